"""Multilayer perceptrons."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from skdeep.compat.sklearn import Interval, StrOptions
from skdeep.data.inputs import Matrix, OutputSpace, has_missing, to_numpy
from skdeep.data.problem import Problem
from skdeep.engine.activations import ACTIVATIONS
from skdeep.engine.networks import Network
from skdeep.engine.penalties import ElasticNet
from skdeep.engine.per_model import to_numpy64
from skdeep.engine.perceptron import MLP
from skdeep.engine.schedules import SCHEDULES
from skdeep.estimators.deep import BATCH_ROWS, NeuralNet, NeuralNetClassifier, SingleNet, rows_of_batches
from skdeep.estimators.docs import deep_parameters, document_deep
from skdeep.fitting import courses
from skdeep.fitting.choices import batch_rows, choose, epochs_of, filled_rows
from skdeep.fitting.fitted import models_of
from skdeep.fitting.fitted_network import fits_float32, network_of
from skdeep.fitting.input_columns import bins_for, bins_of, columns_for, learned_columns, standardization_for
from skdeep.fitting.recipe import Member, Recipe, values
from skdeep.fitting.settings import settings_of, solver_name

#: Learned attributes that no option makes go away.
_ALWAYS = {"coefs_", "intercepts_"}
#: One by the share of values other than zero in sparse rows, and indicators, from which on all columns count where
#: there is much to learn by heart: of a text, a row has few words.
_FULL = 4.0


def _check_complete(X: Matrix, advice: str) -> None:
    """Raise where a value of validation data is missing, and none is in training data: no column's mean is known."""
    if has_missing(X):
        raise ValueError(f"Input X_val contains NaN, and X does not.\n{advice}")


@dataclass(eq=False, repr=False, kw_only=True)
class Perceptron(NeuralNet):
    """Common part of the multilayer perceptrons."""

    if TYPE_CHECKING:  # each says what comes first
        hidden_layer_sizes: Any
        activation: str
    normalization: str | None = None
    dropout: float = 0.0
    stochastic_depth: float | None = None
    standardize: bool = True
    alpha: float | str = "auto"
    column_learning_rate: float = 3.0
    numeric_embedding: str | None = None
    n_bins: int | str = "auto"
    learning_rate: str = "auto"
    learning_rate_init: float | str = "auto"

    _coef_attribute = "coefs_"
    #: Whether steps have more rows, up to as many as of large data, where these are sparse.
    _fills_batches = False
    stackable = NeuralNet.stackable | {"dropout", "stochastic_depth"}
    _nan_advice = (
        "MLPClassifierTorch takes them in dense X, with standardize=True, or where those that it was fitted on were "
        "missing, too."
    )
    _parameter_constraints: ClassVar[dict] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "alpha": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "learning_rate": [StrOptions({*SCHEDULES, "auto"})],
        "learning_rate_init": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "standardize": ["boolean"],
        "column_learning_rate": [Interval(Real, 0, None, closed="left")],
        "numeric_embedding": [StrOptions({"auto", "piecewise"}), None],
        "n_bins": [StrOptions({"auto"}), Interval(Integral, 2, None, closed="left")],
        "normalization": [StrOptions({"batch", "layer"}), None],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "stochastic_depth": [Interval(Real, 0, 1, closed="left"), None],
    }
    #: Fitted attribute of each group of `MLP.groups`.
    _attributes: ClassVar[dict[str, str]] = {
        "weight": "coefs_",
        "bias": "intercepts_",
        "slope": "slopes_",
        "gamma": "gammas_",
        "beta": "betas_",
        "scale": "column_factors_",
        "running_mean": "running_means_",
        "running_var": "running_vars_",
    }
    _parameters = frozenset({*_attributes.values(), "missing_features_", "bin_edges_", "bin_starts_"})

    @property
    def _allow_nan(self) -> bool:
        # of columns as they are, a fitted model knows means only where fit has met missing values
        model = models_of(self)[0]
        return self.standardize or not hasattr(model, "coefs_") or hasattr(model, "missing_features_")

    def _output_name(self) -> str:
        """Name what predictions are of scores."""
        raise NotImplementedError

    def _map_scores(self, matrix: np.ndarray, offsets: np.ndarray | float) -> None:
        space, coef, intercept = OutputSpace(self.coefs_[-1]), to_numpy(self.coefs_[-1]), to_numpy(self.intercepts_[-1])
        # other lists: who goes back to the attributes that were, finds what was in them
        self.coefs_: list = [*self.coefs_[:-1], space.array((coef @ matrix).astype(coef.dtype))]
        self.intercepts_: list = [
            *self.intercepts_[:-1],
            space.array((intercept @ matrix + offsets).astype(coef.dtype)),
        ]

    def _rows_per_step(self, n_rows: int) -> int:
        """Choose the rows of a step, of so many."""
        return int(rows_of_batches(n_rows))

    def _recipe(self, problem: Problem, going_on: bool, incremental: bool) -> Recipe:
        solver, schedule = solver_name(self), getattr(settings_of(self), "learning_rate", "constant")
        plain = self._rows_per_step(problem.n_rows)
        most = BATCH_ROWS[1] if self._fills_batches else plain
        rows = batch_rows(self, problem, solver, auto=max(plain, min(filled_rows(problem, plain), most)))
        decisions: dict[str, Any] = {"auto_rate": courses.PATIENT_RATE}
        decisions["n_bins"] = bins_for(self, problem, going_on, incremental)
        form = ACTIVATIONS[self.activation]
        # at the optimum, which L-BFGS comes to, less of a penalty is too little on noisy data
        share = 1.0 if solver == "lbfgs" else form.penalty
        decisions["penalty"] = partial(self._penalty, n_columns=self._n_columns(problem), share=share)
        if schedule == "auto" and incremental:
            decisions["schedule"] = "constant"
        elif schedule == "auto":
            course = self._course(problem, rows) if settings_of(self).learning_rate_init == "auto" else courses.PATIENT
            least = epochs_of(course.steps, problem, rows)
            horizon, due = (min(max(epochs, least), self.max_iter) for epochs in (course.longest, course.epochs))
            decisions |= {"horizon": horizon, **course.decisions} | ({"due": due} if due < horizon else {})
        decisions["auto_rate"] *= 1.0 if solver == "sgd" else form.rate
        if not self.standardize and not problem.has_missing and not (going_on and self._allow_nan):
            decisions["check"] = partial(_check_complete, advice=self._nan_advice)
        return choose(self, problem, solver, rows, self._loss(self.n_outputs_), **decisions)

    def _n_columns(self, problem: Problem) -> float:
        """Count the columns of which there is much to learn by heart: of a category, a row has one level of many."""
        d, levels = problem.source.shape[1], problem.indicators
        stored = d * problem.density
        if problem.density == 1 and levels.start < levels.stop:
            stored -= levels.stop - levels.start - len(self._categories.columns)
        return min(d, _FULL * stored)

    def _course(self, problem: Problem, rows: int) -> courses.Course:
        """Choose how to train by so many rows per step, where that is left to us."""
        raise NotImplementedError

    def _rates(self, recipe: Recipe, problem: Problem, network: Network, members: list[Member]) -> np.ndarray:
        rates = super()._rates(recipe, problem, network, members)
        return np.where(np.isnan(rates), recipe.auto_rate, rates)

    def _layer_units(self, n_features: int, n_outputs: int) -> list[int]:
        hidden = self.hidden_layer_sizes
        hidden = list(hidden) if np.iterable(hidden) else [hidden]
        if any(not isinstance(h, Integral) or h <= 0 for h in hidden):
            raise ValueError(f"hidden_layer_sizes must be > 0 and integers, got {hidden}.")
        return [n_features, *map(int, hidden), n_outputs]

    def _n_params(self, n_features: int, n_outputs: int) -> int:
        units = np.array(self._layer_units(n_features * (1 + bins_of(self, n_features)), n_outputs))
        return int((units[1:] * units[:-1]).sum())

    def _n_units(self, n_outputs: int) -> int:
        return sum(self._layer_units(1, n_outputs)[1:])

    def _network(self, recipe: Recipe, problem: Problem, members: list[Member], penalty: ElasticNet, warm: bool) -> MLP:
        columns = columns_for(self, problem, recipe.n_bins)
        if not columns.are_centred:  # what earlier training with it has left
            for name in {"means_", "missing_features_"} & vars(self).keys():
                delattr(self, name)
        units = self._layer_units(columns.n_inputs, self.n_outputs_)
        self.n_layers_ = len(units)
        self.out_activation_, self._trained_activation = self._output_name(), self.activation
        for what in ("dropout", "stochastic_depth", "normalization"):
            if (value := getattr(self, what)) and value != "layer":
                self._check_same_objective(f"{what}={value!r}")
        noise: dict[str, Any] = {"dropout": values(members, "dropout")}
        if self.stochastic_depth is not None:
            noise["stochastic_depth"] = values(members, "stochastic_depth")
        tensor: dict[str, Any] = {"device": problem.device, "dtype": problem.dtype}
        if warm:
            self._check_layers(units)
        noise["standardization"] = standardization_for(self, problem, columns, members, warm)
        # a gradient step in u is r times as long already, where Adam's is as long as any
        noise["scaling"] = float(self.column_learning_rate) ** (0.5 if recipe.solver in ("sgd", "lbfgs") else 1.0)
        if warm:
            network = self._trained_network(**tensor, **noise)
            last = [network.groups[name][-1] for name in ("weight", "bias")]
            for param, own in zip(last, self._unmapped(*(to_numpy64(p)[0] for p in last)), strict=True):
                param.detach()[0] = torch.from_numpy(own).to(param)
            return network
        generators = [member.state.generator for member in members]
        return MLP.initial(generators, units, self.activation, normalization=self.normalization, **noise, **tensor)

    def _check_layers(self, units: list[int]) -> None:
        """Raise if the fitted attributes do not belong to such layers."""
        form, n_hidden = ACTIVATIONS[self.activation], len(units) - 2
        widths = [*(form.n_pieces * unit for unit in units[1:-1]), units[-1]]
        known = [tuple(np.shape(coef)) for coef in self.coefs_]
        expected = {"slopes_": form.slope is not None, "gammas_": self.normalization is not None}
        expected["running_means_"] = self.normalization == "batch"
        same = all(len(getattr(self, name, [])) == there * n_hidden for name, there in expected.items())
        same &= hasattr(self, "column_factors_") == bool(self.column_learning_rate)
        if not same or known != list(zip(units[:-1], widths, strict=True)):
            raise ValueError(
                "warm_start and partial_fit go on with the network of the previous fit, and hidden_layer_sizes, "
                "activation, standardize, numeric_embedding, n_bins, column_learning_rate or normalization has "
                f"changed: hidden_layer_sizes={self.hidden_layer_sizes!r}, activation={self.activation!r}, "
                f"standardize={self.standardize!r}, column_learning_rate={self.column_learning_rate!r}, "
                f"normalization={self.normalization!r}, numeric_embedding={self.numeric_embedding!r}, "
                f"n_bins={self.n_bins!r} do not fit what was learnt, with weights of shape {known}. Put "
                "them back, or fit with warm_start=False."
            )

    def _trained_network(self, device: torch.device, dtype: torch.dtype, **more: Any) -> MLP:
        return network_of(models_of(self), device, dtype, **more)

    def _learned(self, network: Network, model: int, dtype: np.dtype, space: OutputSpace) -> dict[str, Any]:
        assert isinstance(network, MLP)
        groups = network.learned(model, dtype, self._output_map)
        learned: dict[str, Any] = {}
        for name, arrays in groups.items():
            if name == "slope":
                learned[self._attributes[name]] = [float(array[0]) for array in arrays]
            else:
                # copies: "contiguous" leaves the stride of an axis of one as it is, and products round by strides
                learned[self._attributes[name]] = [space.array(array.T.copy()) for array in arrays]
        learned = {name: value for name, value in learned.items() if value or name in _ALWAYS}
        is_single = network.params[0].dtype is torch.float32 and self.n_layers_ > 2
        learned["_is_single"] = is_single and fits_float32(groups["weight"][0], groups["weight"][-1])
        if "column_factors_" in learned:
            (learned["column_factors_"],) = learned["column_factors_"]
        if network.standardization is not None:
            # as exact as the first layer: from there, a missing value is its mean
            are_raw = not self.standardize and network.standardization.center is None
            learned |= learned_columns(network.standardization, model, groups["bias"][0].dtype, space, are_raw)
        return learned


@dataclass(eq=False, repr=False, kw_only=True)
class PerceptronClassifier(Perceptron, NeuralNetClassifier):
    """Common part of the perceptrons that learn classes."""

    numeric_embedding: str | None = "auto"
    label_smoothing: float = 0.0

    _parameter_constraints: ClassVar[dict] = {"label_smoothing": [Interval(Real, 0, 1, closed="both")]}

    def _course(self, problem: Problem, rows: int) -> courses.Course:
        return courses.of_classes(problem, self.n_outputs_, self._layer_units(0, 0)[1:-1], rows)

    def _output_name(self) -> str:
        return "softmax" if self._loss(self.n_outputs_).target == "codes" else "logistic"


@document_deep(training=deep_parameters())
@dataclass(eq=False, repr=False, kw_only=True)
class MLPClassifierTorch(PerceptronClassifier, SingleNet):
    r"""Multilayer perceptron: linear layers with an activation after each but the last.

    .. math:: h_0 = x, \quad h_l = \phi(W_l h_{l-1} + b_l), \quad s = W_L h_{L-1} + b_L

    (with normalisation, dropout and residual blocks where asked for) trained on the cross-entropy of the scores s
    (softmax for more than two classes, one logistic column for two, one per label for multilabel targets) plus
    :math:`\frac{\alpha}{2 B \bar w} \sum_l \|W_l\|^2`, the L2 penalty as MLPClassifier has it. Parameters, attributes
    and their meaning are as in :class:`sklearn.neural_network.MLPClassifier`, so that a swap is one word; by default
    (``standardize=True``) of one behind a StandardScaler, with :math:`W_1 \,\mathrm{diag}(\sigma)` for :math:`W_1` in
    the penalty.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int, default=(100,)
        Units of each hidden layer; ``()`` is softmax regression.
    activation : str, default="relu"
        "identity", "relu", "leaky_relu", "prelu" (slopes are learnt), "elu", "selu", "gelu", "silu", "tanh",
        "logistic", or "maxout" (each unit the larger of two linear pieces).
    normalization : {"batch", "layer"} or None, default=None
        What is normalised before each activation: each column over the rows of a batch (with their weights; a batch of
        one row, and all predictions, by running averages over batches), or each row over its columns. Both learn a
        factor and a summand per column, which ``alpha`` does not penalise.
    dropout : float, default=0.0
        Probability that a hidden unit is left out of a training step, drawn for each row. The others are scaled up, so
        that predictions need no correction.
    stochastic_depth : float or None, default=None
        A number makes residual blocks, :math:`h_l = h_{l-1} + \phi(\ldots)`, of the hidden layers that are as wide as
        the hidden layer before. Each is left out of a training step, for the whole batch, with a probability that grows
        linearly from block to block up to this one at the last (0 leaves out none); otherwise it is scaled up. Layers
        of other widths stay as they are. None has no residual blocks.
    standardize : bool, default=True
        Whether to train in columns that are centred and scaled by their weighted means and standard deviations (sparse
        ones: scaled by their largest magnitude; of zeros and ones: by a half at least, so that a rare one is no large
        number), as if the classifier were behind a StandardScaler: the initial weights and ``alpha`` belong to a first
        layer on such columns. ``coefs_[0]`` and ``intercepts_[0]`` refer to the columns of X all the same.
        ``partial_fit`` goes by the statistics of all rows so far. With False, everything refers to the columns as they
        are, as in MLPClassifier, and a warning names those that suit no step.

        Dense X may have missing values (NaN). They count as the mean of their column, and each column in which ``fit``
        (or the first call of ``partial_fit``) meets some gets an indicator: a further column, 1 where the value is
        missing and else 0, scaled like others of zeros and ones. Columns that have never had a value have no influence.
        With ``standardize=False``, columns are centred where some values are missing, and not scaled; and a model that
        has met no missing value takes none later.
    column_learning_rate : float, default=3.0
        How fast a factor on each (standardised) column is learnt, as a multiple of the weights' learning rate [7]_. The
        factors begin at one; they are part of ``coefs_[0]``, and so of its penalty. The bins of a column share one,
        learnt twice as fast. 0 learns none.
    numeric_embedding : {"auto", "piecewise"} or None, default="auto"
        "piecewise" gives the first layer, beside each column, its bins [9]_: between two edges, which are quantiles of
        the training rows, or all values where these are not more than edges,
        :math:`e_t(x) = \min(\max((2 x - b_{t-1} - b_t) / (b_t - b_{t-1}), -1), 1)`. So a border at some value of a
        column need not be found by a unit. Initial weights and ``alpha`` belong to :math:`h e_t`, with
        :math:`h = \min(1/2, 4 / e, 15 / (r e))` for e columns that have more than one bin and the
        ``column_learning_rate`` r; where all values are edges, as of categories that are numbered, h is 1/2. A missing
        value has the bins of the mean; indicators, categories and columns with a single bin have none; of more than
        16 384 rows, as many are looked at. A quarter of the range of its edges beyond the outermost of these, a column
        stands still: a line says little of values far from all others. Sparse X is an error. "auto" is "piecewise" for
        dense X of less than 64 columns to embed and of 512 rows or more, or few values, with ``standardize`` and a
        hidden layer; else, and where training begins with ``partial_fit``, None.
    n_bins : int or "auto", default="auto"
        Bins of each column. "auto" is one for every 128 rows (a row of weight 2 is two), from 2 to 16, in ensembles 32,
        and no more than 256 of all columns; but where half of the columns have few values, nine at most and one for
        every eight rows, as many as are between all of these. Where training goes on, they are the bins of the first
        call.
    solver : {"adam", "sgd", "adamw", "lbfgs"}, `Adam`, `SGD`, `AdamW` or `LBFGS`, default="adam"
        Adam, mini-batch gradient descent with momentum, Adam with decoupled weight decay, or full-batch L-BFGS. An
        object, such as ``SGD(0.01, momentum=0.8)``, has settings of its own. ``learning_rate`` to ``precision`` below
        belong to a solver that is named: beside an object, each counts where the object leaves it "auto", and any other
        must stay at its default.
    alpha : float or "auto", default="auto"
        Strength of the L2 penalty; it is divided by the total weight of a batch. With ``standardize`` it acts on the
        weights of standardised columns. "auto" is :math:`\frac12 \sqrt{\min(d / n, 1)}\, q\, B / B_n` of d columns, n
        rows to train on and B in a batch, which have no part in the penalty so: :math:`B_n` is a hundredth of n, from
        64 to 256, and :math:`q = \max(300 / \max(n, 64), 1)`. (Rows of ``partial_fit`` are those so far; a row of
        weight 2 is two, unless weights are below one on average; of sparse rows and of categories, d is at most four
        times the values other than zero that a row has on average.)
        With "adam", ``learning_rate`` and ``learning_rate_init`` "auto" as well, and labels as targets, it follows the
        loss: in each epoch it is :math:`\max(1, T / 8) \max(1, 4 \min(L / H, 1))` times that, with T bins of each
        column, L the mean loss of the epoch before (at first, H; 0 where training goes on) and H the entropy of the
        classes.
    learning_rate : {"auto", "constant", "invscaling", "adaptive", "cosine"}, default="auto"
        Schedule: constant; divided by ``(t + 1) ** power_t`` after t samples; divided by 5 whenever improvement stops,
        until it is below 1e-6; or half a cosine down to zero at ``max_iter``. "auto" is constant for :math:`0.4 \sqrt{n
        \min(C, n / 200) / d}` epochs (n rows, d columns, C classes), from 10 to 45, or as many as 80 steps take if
        these are more; on clean data, whose training loss is by then below 0.15 of the entropy of the classes, for
        :math:`\sqrt C` times as many epochs, 45 at most. Other data is left once the training loss has not improved
        for half of ``n_iter_no_change`` epochs. Weights are averages over steps, of which the last quarter counts most
        [8]_ (``loss_curve_`` is of the steps); from a ``learning_rate_init`` of your own, it is one cosine over 60
        epochs, or 500 steps. ``max_iter`` is the most in any case. In ``partial_fit`` it is constant.
    learning_rate_init : float or "auto", default="auto"
        Learning rate at the start. "auto" is 0.003; for ``learning_rate="auto"`` and E epochs by size (10 to 45), which
        are T steps (80 at least), it is :math:`0.8 / \sqrt{\min(E, T / 25) \max(d, 100)}`, divided by the number of
        hidden layers, and of n rows, which are less than the h units of a layer, n / h of that.
    {training}
    {label_smoothing}
    {calibration}

    Attributes
    ----------
    coefs_ : list of ndarray of shape (fan_in, fan_out)
        Weights of each layer; with "maxout", two columns side by side for each hidden unit. After the rows for the
        columns of X, the first has a row for each indicator of missing values, then for each bin of each column.
    intercepts_ : list of ndarray of shape (fan_out,)
        Constant terms of each layer; zero before batch normalisation, whose ``betas_`` take their place (in the first
        layer: what centres the columns).
    slopes_ : list of float
        Learnt slope of each hidden layer; only with "prelu".
    gammas_, betas_ : list of ndarray of shape (fan_out,)
        Factor and summand of each hidden layer's normalisation,
        :math:`\gamma (z - \mu) / \sqrt{v + 10^{-5}} + \beta`; only with ``normalization``.
    running_means_, running_vars_ : list of ndarray of shape (fan_out,)
        :math:`\mu` and v of predictions: running averages over batches, in which the last one counts a tenth; only
        with ``normalization="batch"``.
    column_factors_ : ndarray of shape (n_factors,)
        Learnt factors on the (standardised) columns, then on all bins of each column that has any, which are in
        ``coefs_[0]`` already; only with ``column_learning_rate``.
    bin_edges_ : ndarray of shape (n_embedded, n_bins + 1)
        Ascending edges of the bins of embedded columns; between equal ones is no bin, and its weights are zero. The
        columns themselves are kept within these and a quarter more, on either side.
    bin_starts_ : ndarray of shape (n_embedded,)
        :math:`e h` of the bins of each, where that is below 1/2; infinite if its values are all edges.
    means_ : ndarray of shape (n_features,)
        Weighted means of the columns, by which missing values are replaced (zero for sparse ones); only with
        ``standardize`` or missing values.
    missing_features_ : ndarray of shape (n_indicators,)
        Columns that have an indicator; only with ``standardize`` or missing values.
    n_layers_ : int
        Layers, with the input.
    out_activation_ : {"softmax", "logistic"}
        What turns scores into probabilities.
    {learned}

    See Also
    --------
    SoftmaxClassifier : Softmax regression.
    sklearn.neural_network.MLPClassifier : The same model in NumPy.

    References
    ----------
    .. [1] I. Goodfellow, Y. Bengio & A. Courville, *Deep Learning*, 2016, chapter 6.
    .. [2] X. Glorot & Y. Bengio, *Understanding the difficulty of training deep feedforward neural networks*,
       AISTATS 2010.
    .. [3] N. Srivastava et al., *Dropout: a simple way to prevent neural networks from overfitting*, JMLR 15, 2014.
    .. [4] S. Ioffe & C. Szegedy, *Batch normalization*, ICML 2015.
    .. [5] J. L. Ba, J. R. Kiros & G. Hinton, *Layer normalization*, 2016.
    .. [6] G. Huang et al., *Deep networks with stochastic depth*, ECCV 2016.
    .. [7] D. Holzmüller, L. Grinsztajn & I. Steinwart, *Better by default: strong pre-tuned MLPs and boosted trees on
       tabular data*, NeurIPS 2024, section 4.
    .. [8] O. Shamir & T. Zhang, *Stochastic gradient descent for non-smooth optimization*, ICML 2013, section 4.
    .. [9] Y. Gorishniy, I. Rubachev & A. Babenko, *On embeddings for numerical features in tabular deep learning*,
       NeurIPS 2022, section 3.2.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeep import MLPClassifierTorch
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = MLPClassifierTorch((32,), random_state=0).fit(X / 16, y)
    >>> clf.score(X / 16, y) > 0.9
    True
    >>> [W.shape for W in clf.coefs_]
    [(64, 32), (32, 10)]
    """

    hidden_layer_sizes: Any = field(default=(100,), kw_only=False)
    activation: str = field(default="relu", kw_only=False)
