"""Random fits, a few of them; `fuzz.py` makes any number."""

import json
import weakref

import fuzz
import numpy as np
import pytest
import torch
from fuzzing import cases
from fuzzing.judge import examine, find, shrink
from hypothesis import HealthCheck, given, settings

from skdeep import LeastSquaresClassifier, MLPClassifierTorch, SoftmaxClassifier
from skdeep.data.columns import Columns
from skdeep.estimators import prediction
from skdeep.fitting import fit as fitting


@pytest.mark.parametrize("estimator", cases.PARAMETERS)
def test_a_fit_is_refused_or_right(estimator):
    @settings(max_examples=12, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(cases.cases(estimator))
    def check(case):
        examine(case)

    check()


#: Examples of the long run that were faults once.
FOUND = [
    # a square of coefficients overflowed, and was multiplied by a penalty of zero
    {"estimator": "LeastSquaresClassifier", "columns": 2, "values": "ties", "scale": 1e-200, "penalty": None},
    # the last step led to scores that overflow
    {
        "estimator": "SoftmaxClassifier",
        "scale": 1e200,
        "story": "partial_fit",
        "learning_rate_init": 0.01,
        "standardize": False,
    },
    # the last step was one too many, and the last loss had been a good one
    {
        "estimator": "TorchClassifier",
        "data_seed": 107,
        "rows": 20,
        "columns": 4,
        "values": "constant",
        "classes": 4,
        "learning_rate_init": 1.0,
        "class_weight": "balanced",
        "module": "perceptron",
    },
    # a class of one row, which no fold holds out, counted for nothing in Platt's offsets
    {
        "estimator": "LeastSquaresClassifier",
        "data_seed": 36,
        "rows": 40,
        "columns": 15,
        "values": "ties",
        "class_weight": "balanced",
        "calibration": "sigmoid",
    },
    # which epoch is best depended on the rounding of tenths of weights
    {
        "estimator": "SoftmaxClassifier",
        "data_seed": 149,
        "rows": 20,
        "columns": 5,
        "signal": "none",
        "classes": 4,
        "relation": "repetition",
        "early_stopping": True,
    },
    {"estimator": "HingeClassifier", "validation": "rows", "scoring": "neg_log_loss"},
    {"estimator": "SoftmaxClassifier", "values": "zeros", "alpha": 0.0, "fit_intercept": False},
    {"estimator": "MLPClassifierTorch", "container": "strided", "relation": "row by row"},
    {"estimator": "HingeClassifier", "weights": "tiny", "solver": "lbfgs", "loss": "squared_hinge"},
    # weights that grew with each step, and were kept
    {"estimator": "MLPClassifierTorch", "columns": 2, "container": "float32", "weights": "tiny", "solver": "sgd"},
    {"estimator": "MLPClassifierTorch", "weights": "tiny", "solver": "sgd"},
    {"estimator": "MLPEnsembleClassifier", "classes": 3, "labels": "indicators", "scoring": "neg_log_loss"},
    # other bits after a pickle, for products round by the strides of an axis of one entry
    {
        "estimator": "MLPClassifierTorch",
        "data_seed": 110,
        "rows": 60,
        "columns": 2,
        "mean": 1e12,
        "classes": 4,
        "story": "warm after pickle",
        "batch_size": 1,
        "random_state": 1,
        "max_iter": 8,
        "hidden_layer_sizes": [1],
        "activation": "leaky_relu",
    },
    # balanced labels counted rows without weight
    {
        "estimator": "SigmoidClassifier",
        "rows": 5,
        "labels": "indicators",
        "relation": "zero weights",
        "class_weight": "balanced",
    },
    # a direction in which X differs by its rounding alone
    {"estimator": "LeastSquaresClassifier", "rows": 5, "columns": 3, "values": "collinear", "mean": 1e6, "alpha": 0.0},
    {
        "estimator": "LeastSquaresClassifier",
        "data_seed": 53,
        "columns": 15,
        "classes": 4,
        "weights": "wild",
        "class_weight": "balanced",
    },
    {"estimator": "TorchClassifier", "rows": 40, "weights": "a class of zeros", "early_stopping": True},
    # hardly trained, without a word
    {"estimator": "TorchClassifier", "learning_rate_init": 1e-05},
    {"estimator": "MLPClassifierTorch", "learning_rate_init": 1e-05},
    # a constant column, which has no curvature beside its rounding
    {"estimator": "SoftmaxClassifier", "values": "one-hot", "scale": 1e20, "alpha": 0.01, "class_weight": "by label"},
    # a step of 1e49 along what only rows of next to no weight speak of
    {
        "estimator": "SoftmaxClassifier",
        "data_seed": 157,
        "rows": 6,
        "columns": 40,
        "signal": "none",
        "classes": 7,
        "weights": "wild",
    },
    # coefficients that Platt's slopes make overflow
    {
        "estimator": "SigmoidClassifier",
        "rows": 4,
        "columns": 5,
        "scale": 1e-310,
        "max_grad_norm": 0.001,
        "batch_size": 2,
        "calibration": "sigmoid",
    },
    # momentum past a rare class, from where an epoch gains less than the tolerance
    {"estimator": "SoftmaxClassifier", "rows": 300, "values": "one-hot", "signal": "separable", "solver": "sgd"},
    {
        "estimator": "SigmoidClassifier",
        "rows": 300,
        "values": "one-hot",
        "signal": "separable",
        "learning_rate": "adaptive",
    },
    # a cosine that ended on the way back
    {"estimator": "HingeClassifier", "rows": 6, "learning_rate": "cosine"},
    # Adam's short steps, which the tolerance ends
    {"estimator": "LeastSquaresClassifier", "columns": 4, "weights": "spread", "solver": "adam"},
    # rounding along directions without curvature, and on which side of its kink a squared hinge is
    {
        "estimator": "SigmoidClassifier",
        "rows": 3,
        "columns": 3,
        "relation": "stacked",
        "penalty": None,
        "calibration": "temperature",
    },
    {
        "estimator": "HingeClassifier",
        "rows": 3,
        "columns": 3,
        "classes": 3,
        "relation": "stacked",
        "penalty": None,
        "loss": "squared_hinge",
    },
    {
        "estimator": "SoftmaxClassifier",
        "rows": 4,
        "classes": 3,
        "relation": "stacked",
        "penalty": None,
        "calibration": "sigmoid",
    },
    # an ensemble's out-of-fold score is of three classes
    {
        "estimator": "MLPEnsembleClassifier",
        "rows": 30,
        "classes": 3,
        "scoring": "roc_auc",
        "early_stopping": False,
    },
    # what a fold had not seen to vary acted in raw units through weights that no row had trained
    {
        "estimator": "MLPClassifierTorch",
        "rows": 300,
        "columns": 40,
        "values": "one-hot",
        "scale": 1e60,
        "classes": 4,
        "learning_rate_init": 1.0,
        "precision": "float32",
        "calibration": "sigmoid",
    },
    # the automatic penalty is on sparse columns as they are
    {"estimator": "SoftmaxClassifier", "scale": 1e-4, "container": "csr", "solver": "lbfgs"},
    # products round by where rows lie, and columns far from zero by more
    {"estimator": "LeastSquaresClassifier", "rows": 4, "mean": 1e8, "relation": "other container"},
]


@pytest.mark.parametrize("case", FOUND, ids=lambda case: case["estimator"])
def test_what_was_found(case):
    examine(case)


# ---- the fuzz itself -------------------------------------------------------------------------------------------------


def first_fault(what, estimator, given, n=60):
    """The first fault of a kind among some examples of an estimator; None if it is in none of them."""
    drawn = (cases.draw(np.random.default_rng([0, i]), estimator) for i in range(n))
    examples = (find(cases.suited(case | given))[1] for case in drawn)
    return next((finding for finding in examples if finding is not None and what in finding.what), None)


def unfair(scores, classes, link, original=prediction.probabilities):
    return 0.999 * original(scores, classes, link)


def upside_down(self, network, model, dtype, space, original=SoftmaxClassifier._learned):
    return {name: -value for name, value in original(self, network, model, dtype, space).items()}


def faint(self, network, model, dtype, space, original=SoftmaxClassifier._learned):
    return {name: value / 100 for name, value in original(self, network, model, dtype, space).items()}


def moves_torch(*arguments, original=fitting.conclude):
    torch.rand(1)
    original(*arguments)


#: Estimators that have been fitted.
FITTED: weakref.WeakSet = weakref.WeakSet()


def remembers(recipe, network, member, *rest, original=fitting.conclude):
    original(recipe, network, member, *rest)
    if member.estimator in FITTED:
        member.estimator.fitted_before_ = True
    FITTED.add(member.estimator)


def writes(*arguments, original=fitting.encode, **options):
    problem = original(*arguments, **options)
    if isinstance(problem.X, np.ndarray) and problem.X.flags.writeable:
        problem.X[0] = 0
    return problem


def raw(*arguments, original=fitting.encode, **options):
    problem = original(*arguments, **options)
    if problem.n_rows == 6:
        raise IndexError("index 6 is out of bounds")
    return problem


def mumbles(*arguments, original=fitting.encode, **options):
    problem = original(*arguments, **options)
    if problem.n_rows == 6:
        raise ValueError("something went wrong")
    return problem


def counts_all(cls, rows, subsets, weights, known=None, original=Columns.of_models.__func__):
    return original(cls, rows, [None] * len(subsets), [None] * len(weights), known)


#: Each fault, and what all its cases have in common: that it can show there, and that they are quick.
PLANTED = {
    "probabilities do not sum to one": (
        "SoftmaxClassifier",
        prediction,
        "probabilities",
        unfair,
        {"rows": 20, "max_iter": 5},
    ),
    "scores of zero": ("SoftmaxClassifier", SoftmaxClassifier, "_learned", upside_down, {"rows": 6}),
    "constant scores": ("SoftmaxClassifier", SoftmaxClassifier, "_learned", faint, {"rows": 6}),
    "global state": (
        "MLPClassifierTorch",
        MLPClassifierTorch,
        "_procedure",
        MLPClassifierTorch._procedure._replace(conclude=moves_torch),
        {},
    ),
    "earlier fit leaves": (
        "LeastSquaresClassifier",
        LeastSquaresClassifier,
        "_procedure",
        LeastSquaresClassifier._procedure._replace(conclude=remembers),
        {"story": "fit something else, fit", "rows": 20, "max_iter": 5},
    ),
    "written to": ("SoftmaxClassifier", fitting, "encode", writes, {"rows": 20, "max_iter": 5}),
    "IndexError": ("HingeClassifier", fitting, "encode", raw, {"rows": 6}),
    "without the name": ("HingeClassifier", fitting, "encode", mumbles, {"rows": 6}),
    "not a repetition": (
        "SoftmaxClassifier",
        Columns,
        "of_models",
        classmethod(counts_all),
        {"relation": "repetition"},
    ),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_fault_is_found(what, monkeypatch):
    estimator, owner, name, fault, given = PLANTED[what]
    monkeypatch.setattr(owner, name, fault)
    finding = first_fault(what, estimator, given)
    assert finding is not None
    smallest = shrink(finding, seconds=0.1)
    assert len(smallest.case) <= len(finding.case)
    assert what in find(smallest.case)[1].what


@pytest.mark.slow
def test_the_long_run_reports_each_fault_once(monkeypatch, capsys):
    monkeypatch.setattr(prediction, "probabilities", unfair)
    assert fuzz.main(["--examples", "12", "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert out.count("==== probabilities do not sum to one [SoftmaxClassifier]") == 1
    (smallest,) = (line for line in out.splitlines() if "--case" in line and "SoftmaxClassifier" in line)
    case = smallest.split("'")[1]
    assert fuzz.main(["--case", case]) == 1
    monkeypatch.undo()
    assert fuzz.main(["--case", case]) == 0


def test_a_run_goes_on_where_it_stopped():
    together, parts = fuzz._work((0, 0, 6)), [fuzz._work((0, 0, 2)), fuzz._work((0, 2, 6))]
    assert together[1] == parts[0][1] + parts[1][1]


def test_a_case_survives_json():
    for i in range(50):
        case = cases.draw(np.random.default_rng(i))
        assert json.loads(json.dumps(case)) == case
        assert all(set(smaller) <= set(case) for smaller in cases.smaller(case))
