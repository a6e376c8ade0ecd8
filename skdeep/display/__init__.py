"""Pictures of data, training and searches, in scikit-learn's Display convention.

A display holds what is drawn; ``plot`` draws it, and keeps the artists as attributes. The class methods ``from_...``
collect the data and plot at once. Matplotlib is imported only when something is drawn. Decision regions in two columns
are scikit-learn's :class:`~sklearn.inspection.DecisionBoundaryDisplay`, which takes these estimators.
"""

from skdeep.display.coefficients import CoefficientsDisplay
from skdeep.display.comparison import ComparisonDisplay
from skdeep.display.curves import LossCurveDisplay
from skdeep.display.path import RegularizationPathDisplay
from skdeep.display.search import SearchDisplay
from skdeep.display.templates import TemplatesDisplay

__all__ = [
    "CoefficientsDisplay",
    "ComparisonDisplay",
    "LossCurveDisplay",
    "RegularizationPathDisplay",
    "SearchDisplay",
    "TemplatesDisplay",
]
