"""Documentation of the parameters and attributes that the estimators share, written once."""

from __future__ import annotations

import re
from collections.abc import Callable

from skdeep.fitting.document import document
from skdeep.fitting.settings import STEPS

ALPHA = """\
alpha : float or "auto", default="auto"
    Weight of the penalty. ``C`` of LogisticRegression and LinearSVC is ``1 / (alpha * n_samples)``; ``alpha`` of
    SGDClassifier is the same. "auto" is what these do with ``C=1`` behind a StandardScaler:
    :math:`\\frac{1}{\\sum_i w_i} R(W \\,\\mathrm{diag}(\\sigma))` with the columns' standard deviations :math:`\\sigma`
    (weighted; root mean squares if ``fit_intercept=False``). With ``standardize=False``, all columns count as they are.
    In sparse ones, a column that is zero in most rows is to be worth no more than others: there :math:`\\sigma` is that
    of its values, :math:`\\sigma_j / \\sqrt{p_j}` of a share :math:`p_j` that is not zero; and as differences in scale
    are information (tf-idf), it is the geometric mean of all columns, each counted :math:`p_j (1 - p_j)` times, within
    a factor of :math:`3^{1 - p_j}` of its own. In ``partial_fit``, the sums run over all rows so far. For hinges it
    is five times as much, as with less their optimum predicts worse.
"""

RIDGE_ALPHA = """\
alpha : float, default=1e-4
    Weight of the penalty. RidgeClassifier's ``alpha`` is ``alpha * n_samples``.
"""

VALUES_ALPHA = """\
alpha : float or "auto", default="auto"
    Weight of the penalty. Ridge's ``alpha`` is ``alpha * n_samples``; Lasso's, ElasticNet's, QuantileRegressor's and
    PoissonRegressor's are the same. "auto" is 1 / n_samples (of weights) for columns in units of their standard
    deviations and targets in units of theirs: what Ridge does with ``alpha=1`` behind a StandardScaler, for squares.
    Sparse columns have the units that they have in classifiers (of values other than zero, a share :math:`p_j` of all,
    and of all columns, within a factor of :math:`3^{1 - p_j}`), times :math:`\\sqrt{1 + \\sum_j p_j (1 - p_j)}`, so
    that of tf-idf it is about what Ridge does with ``alpha=1``.
"""

_PENALTY = """\
penalty : {"l2", "l1", "elasticnet"} or None, default="l2"
    What is penalised: :math:`R = \\tfrac12\\|W\\|^2`, :math:`\\|W\\|_1`, or a mix of both by ``l1_ratio``. Intercepts
    are free. L1 gives exact zeros.
"""

_COLUMNS = """\
l1_ratio : float, default=0.15
    Share of L1 in the elastic net, 0 to 1.
fit_intercept : bool, default=True
    Whether the scores have a constant term.
standardize : bool, default=True
    Whether to train in centred and scaled columns (sparse data: scaled only). This is a change of variables inside
    the solver: ``coef_``, ``intercept_`` and the penalty of any given ``alpha`` refer to the columns of X. With False
    it is in these that the model is trained, and a warning names those that suit no step.
"""

#: Parameters that say how an estimator is trained, but for its solver's settings.
FIT_PARAMETERS = """
max_iter : int, default={max_iter}
    Epochs (passes over the data) at most; for "lbfgs" and "exact", iterations.
tol : float, default=1e-4
    An epoch counts as improvement if the {falls}
    by more than this; ``n_iter_no_change``, a setting of the solver, is how many may pass without. For "lbfgs": bound
    on the largest entry of the gradient, in the columns trained in; for "exact", on 100 times the duality gap.
early_stopping : bool, default=False
    Whether to watch the score on validation data, and to keep the weights of the best epoch.
validation_fraction : float, default=0.1
    Share of the training data that ``early_stopping`` holds out, unless ``fit`` is given ``X_val``. Equal rows are
    held out together, classes in proportion; of a row that stands for many, this share of the weight is held out.
scoring : str, callable or None, default=None
    What is watched: a scorer, "loss" (the negative loss), "calibrated_loss" (the negative loss at the temperature that
    makes it lowest: what ``calibration`` would be left with), or None for accuracy. While the score stands still, a
    falling validation loss counts as improvement too; so does an accuracy that differs by less than the answer for one
    set of equal rows counts in it (tables).
class_weight : dict, list of dict, "balanced" or None, default=None
    Factor on the weight of each class; "balanced" is inversely proportional to the weighted class counts.
warm_start : bool, default=False
    Whether ``fit`` starts from the model of the last one (as it was before its calibration). The schedule, the columns'
    statistics, the calibration and the rule that stops begin anew. On the same problem (rows, weights, objective), the
    optimizer's state is the last step's; on another one, training begins at an untrained model where that has the
    lower objective. With ``early_stopping``, the start is judged by the validation data of this fit like an epoch, and
    kept if none is better.
random_state : int, RandomState instance or None, default=None
    Seed of initial weights, order of rows and splits. No global generator is touched.
device : str or torch.device, default="auto"
    Where to compute. The model is the same everywhere, up to rounding. "auto" takes an accelerator where a step is work
    enough for it to gain (10⁷ multiply-adds): CUDA, else MPS for work in single precision on dense X; else the CPU. A
    tensor on an accelerator is used where it lies. On "mps", which has no float64, the linear classifiers' "lbfgs" and
    "exact" and predictions of columns far from zero, huge or tiny are computed on the CPU, all else in float32, and
    batches of sparse rows are dense.
callbacks : list of skorch callbacks or None, default=None
    Instances, classes or (name, callback) pairs of skorch's protocol. Callbacks of scikit-learn are set by
    ``set_callbacks``.
verbose : bool or int, default=False
    Whether to print a table of the epochs; of an optimum that is found at once, its end.
categorical_features : "from_dtype", array-like or None, default="from_dtype"
    Which columns are categories: those of a data frame whose dtype says so (pandas' category, Polars' Categorical and
    Enum, Arrow's dictionary), or those that a list names, or numbers, or masks. Each becomes an indicator for each of
    its levels, at the end of the columns, and one for a missing value, if there is any in training; levels that are new
    in prediction have none, or that of the rare ones, which share it where there are more than 255 levels. Indicators
    are trained in as they are, whatever ``standardize`` does to numbers, and ``alpha="auto"`` counts them so.
    ``partial_fit`` knows the levels of its first call.
"""

#: Settings of the solver as parameters of the deep classifiers, as MLPClassifier has them.
FLAT_SETTINGS = (
    STEPS
    + """momentum : float, default=0.9
    Momentum of "sgd", from 0 to 1.
nesterovs_momentum : bool, default=True
    Whether the momentum is Nesterov's.
beta_1, beta_2, epsilon : float, default=0.9, {beta_2}, 1e-8
    Decay rates and denominator offset of "adam" and "adamw".
batch_size : int or "auto", default="auto"
    Rows per step; "auto" is {batch_rows}. A batch that holds all rows is the exact, deterministic gradient.
n_iter_no_change : int or inf, default={n_iter_no_change}
    Stop after more than this many epochs in a row without improvement.
max_fun : int, default=15000
    Evaluations of the objective at most ("lbfgs").
precision : {{"auto", "float64", "float32", "bfloat16"}}, default="auto"
    Of the arithmetic in training. "auto" is float64 where the work is so small that it costs no time (up to 2²⁴
    multiply-adds per epoch), else float32. "bfloat16" computes the matrix products in 8 binary digits, all else in
    float32 (not for "lbfgs"), for hardware that has such products (AMX, AVX512_BF16, recent GPUs; not measured there)
    and slower elsewhere. It rounds X as well: scaled columns lose least.
    Predictions are float32 for float32 and float16 input, else float64, in any case; those of a perceptron are computed
    in the precision of its training where X has 256 rows or more. Columns that the computation would round off, being
    far from zero, huge or tiny, are centred and scaled in float64 first.
"""
)

_FALLS = "training loss falls (or, with ``early_stopping``, the validation score rises)"


def without(text: str, *names: str) -> str:
    """Return the documentation of parameters or attributes, but for some of them."""
    entries = re.split(r"\n(?=\S)", text)
    return "\n".join(entry for entry in entries if entry.split(" : ")[0] not in names)


def fit_parameters(max_iter: int = 200, falls: str = _FALLS) -> str:
    """Write how an estimator is trained, but for its solver's settings."""
    return FIT_PARAMETERS.format(max_iter=max_iter, falls=falls)


def deep_parameters(
    *,
    max_iter: int = 200,
    falls: str = _FALLS,
    n_iter_no_change: int = 10,
    beta_2: float = 0.999,
    batch_rows: str = "a hundredth of the rows, from 64 to 256",
) -> str:
    """Write how a deep classifier is trained."""
    settings = {"n_iter_no_change": n_iter_no_change, "beta_2": beta_2, "batch_rows": batch_rows}
    return FLAT_SETTINGS.format(**settings) + fit_parameters(max_iter, falls).lstrip()


_LAYERS = """\
normalization : {"batch", "layer"} or None, default=None
    What is normalised before each activation.
dropout : float, default=0.0
    Probability that a hidden unit is left out of a training step.
stochastic_depth : float or None, default=None
    Probability that the last residual block is left out of a training step; None has no residual blocks.
"""

#: Parameters of a single network that an ensemble has no use for.
ALONE = "validation_fraction", "warm_start", "callbacks", "verbose"

TRAINING_ATTRIBUTES = """
classes_ : ndarray of shape (n_classes,)
    Class labels, sorted.
n_iter_ : int
    Epochs of the last call of ``fit``.
t_ : int
    Training samples seen, over all calls.
loss_, best_loss_ : float
    Objective (data term plus penalty) of the last epoch, and its lowest in the last call of ``fit``; ``best_loss_`` is
    None with ``early_stopping``.
loss_curve_ : list of float
    Objective of each epoch, as met during it; grows over warm starts.
validation_scores_, validation_loss_curve_ : list of float, or None
    Score and loss on the validation data after each epoch, if there is any; grow over warm starts (NaN for epochs
    without validation data that come later).
best_validation_score_ : float or None
    Highest validation score of the last call of ``fit``. With ``early_stopping``, the start of a warm fit counts.
n_outputs_ : int
    Number of score columns: one for two classes.
n_features_in_ : int
    Number of columns of X.
feature_names_in_ : ndarray of shape (n_features,)
    Names of the columns of X, if it had any.
encoded_features_ : ndarray of str
    Names of the columns that the model is trained in, such as ``"city_Rome"``; only where some are categories. Those
    that would be the same are longer: ``"city_'Rome' (column 2)"``.
history_ : skorch.history.History
    What the callbacks recorded; only with ``callbacks``.
"""

#: Sections of the ensembles, whose members are as :class:`MLPClassifierTorch` says.
ENSEMBLE = {
    "members": """\
n_estimators : int, default=8
    Members, and folds.
hidden_layer_sizes : array-like of int, default=(128, 128)
    Units of each hidden layer of a member.
activation : str, default="silu"
    See :class:`MLPClassifierTorch`, and there also for ``normalization``, ``dropout`` and ``stochastic_depth``.
""",
    "training": without(
        deep_parameters(
            max_iter=60,
            n_iter_no_change=16,
            beta_2=0.95,
            falls="loss of the rows watched falls",
            batch_rows="a hundredth of the rows, from 64 to 256; of 65 to 511 rows, an eighth, or 16",
        ),
        "early_stopping",
        "scoring",
        *ALONE,
    ),
    "learned": without(TRAINING_ATTRIBUTES, "history_"),
    "bins": """\
numeric_embedding : {"auto", "piecewise"} or None, default="auto"
    Bins of the columns beside these, which stand still far beyond all rows; see :class:`MLPClassifierTorch`. "auto"
    is "piecewise" for dense X of at most 128 numeric columns, else None.
n_bins : int or "auto", default="auto"
    Bins of each column.
""",
    "schedule": """\
solver : {"adamw", "adam", "sgd", "lbfgs"}, `AdamW`, `Adam`, `SGD` or `LBFGS`, default="adamw"
    Adam with decoupled weight decay, Adam, mini-batch gradient descent with momentum, or full-batch L-BFGS. An object
    has settings of its own; see :class:`MLPClassifierTorch`.
alpha : float, default=1e-4
    Strength of the L2 penalty; it is divided by the total weight of a batch.
learning_rate : {"cosine", "constant", "invscaling", "adaptive"}, default="cosine"
    Schedule: half a cosine down to zero at ``max_iter``; or see :class:`MLPClassifierTorch`.
""",
    "bagging": """\
.. [1] L. Breiman, *Bagging predictors*, Machine Learning 24, 1996; *Out-of-bag estimation*, 1996.
.. [2] B. Lakshminarayanan, A. Pritzel & C. Blundell, *Simple and scalable predictive uncertainty estimation using
   deep ensembles*, NeurIPS 2017.
""",
}

LINEAR_ATTRIBUTES = """
solver_ : str
    The solver that was used.
certificate_ : float, or None
    How far from the optimum the model may be, where its solver knows: the largest entry of the gradient ("lbfgs"), or
    the relative duality gap: by what share the objective may be above its minimum at most ("exact").
coef_ : ndarray of shape (1, n_features) or (n_classes, n_features)
    Weights on the columns of X; one row for two classes. Of float32 X they are float32, as ``intercept_`` is, unless
    that would change scores by more than a rounding (columns far from zero): then both are float64.
intercept_ : ndarray of shape (1,) or (n_classes,)
    Constant terms.
"""

LINEAR_SOLVERS = """
solver : {"auto", "exact", "lbfgs", "sgd", "adam", "adamw"}, or an object, default="auto"
    "lbfgs": full batches in float64 for smooth objectives, with Newton steps up to 1024 weights (of squared hinges of
    several classes, of any number) and L-BFGS beyond; with ``tol=1e-8`` it ends at the optimum up to rounding. "exact":
    the optimum of objectives with kinks (hinges, L1 and elastic net), on the CPU, to a relative duality gap of ``tol /
    100``. "sgd", "adam", "adamw": mini-batches, with momentum, by Adam, and by Adam with decoupled weight decay. "auto"
    is "lbfgs" or "exact" where that is no more work than 1500 mini-batch steps, else "sgd": so it is on larger data,
    without a penalty for the hinges, in ``partial_fit`` and with skorch's callbacks. ``solver_`` tells which it was.

    A name stands for the solver with its default settings. An object (`SGD`, `Adam`, `AdamW`, `LBFGS`) has settings of
    its own: learning rate, momentum, rows per step, precision, as in ``SGD(0.01, momentum=0.8, batch_size=64)``. A
    search sets them as ``solver__momentum``.
"""

LABEL_SMOOTHING = """
label_smoothing : float, default=0.0
    Share :math:`\\epsilon` of each target that is spread evenly over the possible answers: of C classes, the true one
    has :math:`1 - \\epsilon + \\epsilon / C`, the others :math:`\\epsilon / C` (torch's ``cross_entropy``); a yes or no
    is :math:`1 - \\epsilon / 2` sure. For labels that are noisy, and against scores that grow without end. Validation
    data is judged without it.
"""

_CALIBRATION = """
calibration : {{"temperature", "sigmoid"}} or None, default={default}
    How scores become probabilities: "temperature" is :math:`\\mathrm{{softmax}}(s / T)`, for two classes and for each
    label of a multilabel target (with a T of its own) :math:`\\sigma(s / T)`; "sigmoid" is Platt's sigmoid for each
    class, normalised, whose slopes and offsets become part of the learned weights and intercepts. Fitted on the scores
    of 5 fold models (4 from 300 distinct rows on, 3 from 1500, where a class has 40 on average), each on rows it has
    not seen, and half an observation more that may be of any class: no answer is ever certain. Two or more folds that
    leave out 400 rows are enough for one temperature. Scores that do not rise with the right answers give nearly equal
    probabilities, and a warning. The class with the highest score is always the most probable one. With None {without}.
"""

CALIBRATION_PARAMETERS = _CALIBRATION.format(default=None, without="probabilities are as they were trained")

SCORES_CALIBRATION_PARAMETERS = _CALIBRATION.format(default=None, without="there is no ``predict_proba``")

HINGE_CALIBRATION_PARAMETERS = _CALIBRATION.format(default='"temperature"', without="there is no ``predict_proba``")

CALIBRATION_ATTRIBUTES = """
temperature_ : float or ndarray of shape (n_labels,)
    T of ``calibration="temperature"``.
calibration_slopes_, calibration_offsets_ : ndarray of shape (n_outputs,)
    Platt's slopes and offsets, which are part of the weights and intercepts already; only with
    ``calibration="sigmoid"``.
"""


REGRESSION_LOSS = """
loss : str or an object, default="squared_error"
    "squared_error" (half of it), "absolute_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive",
    "quantile" (the median); or half a deviance on the log link, whose predictions are :math:`e^s`: "poisson", "gamma",
    "tweedie". Objects have settings, which a search sets as ``loss__delta``: `Huber`, `EpsilonInsensitive`, `Quantile`
    (of one level or several), `Tweedie`.
"""

OUTPUT = """
output : {"auto", "identity", "relu", "softplus", "exp"}, default="auto"
    What makes predictions of the scores s. "auto" is s, or :math:`e^s` for the deviances, which have no other. Of
    predictions that are never negative, :math:`\\max(0, s)`, :math:`\\log(1 + e^s)` and :math:`e^s`, the other losses
    have no certain optimum: training ends in the nearest one.
"""

SCORING_OF_VALUES = """\
scoring : str, callable or None, default=None
    What is watched: a scorer, "loss" (the negative loss), or None: R² for the squared error, else the loss.
    While the score stands still, a falling validation loss counts as improvement too.
"""

#: What losses of values are of.
_UNIT_OF_LOSSES = "of targets as they are (of several,\n    in units of their deviations)"

REGRESSION_ATTRIBUTES = """
delta_ : float, or ndarray of shape (n_targets,)
    What ``delta="auto"`` of Huber's loss is, of several targets for each; only with that.
output_scale_ : ndarray of shape (n_targets,)
    What predictions are multiplied by; only with ``output="softplus"``.
"""

#: Parameters and attributes of the linear classifiers that are trained on a cross-entropy.
_CROSS_ENTROPY = """
Parameters
----------
{linear}
{solvers}
{label_smoothing}
{calibration}
{training}

Attributes
----------
{learned}
"""

#: Arguments of ``fit`` that classifiers and regressors share.
FIT_ARGUMENTS = {
    "rows": """\
X : {array-like, sparse matrix, Tensor} of shape (n_samples, n_features)
    Training data. Sparse data is never made dense as a whole. An array in a file (Zarr, h5py, Dask: what has
    ``shape`` and ``dtype`` and is read by slices) is read by blocks. Chunks may come in passes: a function that
    returns an iterator of pairs (X, y) or (X, y, sample_weight), an object whose ``__iter__`` begins a new
    pass, torch's Dataset or DataLoader, a data set of pyarrow.
""",
    "weight": """\
sample_weight : array-like of shape (n_samples,), or str, default=None
    Weight of each sample, or the name of a column, as for y; None counts each once. A weight of 2 is the same
    sample given twice, 0 none at all.
""",
    "validation": """\
X_val, y_val : array-like, default=None
    Validation data to watch after each epoch, instead of a part of the training data; of any kind that X and y may
    be. Without ``early_stopping`` it is only recorded. The steps of a Pipeline do not transform it, unless the
    Pipeline is told to: ``transform_input=["X_val"]``, with metadata routing. The searches of
    `skdeep.model_selection` pass it on as it is; scikit-learn's searches, and its ``cross_validate``, do so inside
    ``skdeep.stacked()``, and else take a part of it for each fold if it happens to have as many rows as X.
sample_weight_val : array-like, default=None
    Weights of the validation samples.
""",
}

#: Sections that any docstring may name.
_SHARED = {
    "solvers": LINEAR_SOLVERS,
    "layers": _LAYERS,
    "label_smoothing": LABEL_SMOOTHING,
    "calibration": CALIBRATION_PARAMETERS,
    "loss": REGRESSION_LOSS,
    "output": OUTPUT,
}


def _of_values(text: str) -> str:
    """Return the documentation of what classifiers and regressors share, for regressors."""
    found = re.sub(r"scoring : .*\n( .*\n)+", SCORING_OF_VALUES, without(text, "class_weight", "classes_"))
    found = found.replace("as met during it; grows", f"as met during it, {_UNIT_OF_LOSSES}; grows")
    return found.replace("classifiers", "models")


def document_linear(**own: str) -> Callable[[type], type]:
    """Decorate a linear classifier: write into its docstring what it shares with others, but for its `own` sections."""
    learned = LINEAR_ATTRIBUTES + CALIBRATION_ATTRIBUTES + TRAINING_ATTRIBUTES
    columns = _PENALTY + own.pop("alpha", ALPHA) + _COLUMNS
    return document(**_SHARED | {"linear": columns, "training": fit_parameters(), "learned": learned} | own)


def document_cross_entropy(cls: type) -> type:
    """Decorate a linear classifier that is trained on a cross-entropy, whose parameters are the same as another's."""
    return document_linear()(document(parameters=_CROSS_ENTROPY)(cls))


def document_regressor() -> Callable[[type], type]:
    """Decorate a linear regressor: write into its docstring what it shares with others."""
    learned = LINEAR_ATTRIBUTES.replace("n_classes", "n_targets").replace("two classes", "one target")
    learned = _of_values(learned + REGRESSION_ATTRIBUTES + TRAINING_ATTRIBUTES)
    columns = _PENALTY + VALUES_ALPHA + _COLUMNS
    return document(**_SHARED | {"linear": columns, "training": _of_values(fit_parameters()), "learned": learned})


def document_deep(**own: str) -> Callable[[type], type]:
    """Decorate a deep classifier: write into its docstring what it shares with others, and its `own` sections."""
    return document(**_SHARED | {"learned": CALIBRATION_ATTRIBUTES + TRAINING_ATTRIBUTES} | own)


def document_deep_regressor(*, training: str, learned: str = TRAINING_ATTRIBUTES, **own: str) -> Callable[[type], type]:
    """Decorate a deep regressor: write into its docstring what it shares with others, and its `own` sections."""
    of_values = {"training": _of_values(training), "learned": _of_values(REGRESSION_ATTRIBUTES + learned)}
    return document(**_SHARED | of_values | own)
