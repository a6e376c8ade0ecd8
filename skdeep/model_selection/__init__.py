r"""scikit-learn's hyper-parameter searches, with the candidates of each fold trained as one stack.

`GridSearchCV` and its siblings are scikit-learn's own classes: the same constructor, attributes and ``cv_results_``.
Only the work inside differs. The candidates of a fold that differ in ``alpha``, ``l1_ratio``, ``class_weight``,
``random_state``, ``tol``, ``solver__learning_rate_init``, ``solver__momentum`` or ``solver__n_iter_no_change`` (of
networks: in these parameters without ``solver__``, too) see the same rows: they train in one program, each ending where
it would have ended alone. In a Pipeline, the steps before the classifier are fitted once per fold and distinct setting.
`stacked` is a context in which scikit-learn's own tools do the same. `bootstrap_coefficients` trains resamples of the
rows as one stack, and `compare` puts models side by side.
"""

from skdeep.model_selection.backend import stacked
from skdeep.model_selection.bootstrap import bootstrap_coefficients
from skdeep.model_selection.choice import one_standard_error
from skdeep.model_selection.comparison import Comparison
from skdeep.model_selection.contest import compare
from skdeep.model_selection.evaluation import StackingWarning
from skdeep.model_selection.intervals import BootstrapCoefficients
from skdeep.model_selection.paired import PairedDifference, paired_difference
from skdeep.model_selection.path import RegularizationPath, regularization_path
from skdeep.model_selection.search import GridSearchCV, HalvingGridSearchCV, HalvingRandomSearchCV, RandomizedSearchCV
from skdeep.model_selection.standard_errors import StandardErrors, standard_errors

__all__ = [
    "BootstrapCoefficients",
    "Comparison",
    "GridSearchCV",
    "HalvingGridSearchCV",
    "HalvingRandomSearchCV",
    "PairedDifference",
    "RandomizedSearchCV",
    "RegularizationPath",
    "StackingWarning",
    "StandardErrors",
    "bootstrap_coefficients",
    "compare",
    "one_standard_error",
    "paired_difference",
    "regularization_path",
    "stacked",
    "standard_errors",
]
