"""The training loop: K stacked models end with the parameters that each has alone, and stop when they should."""

import math

import numpy as np
import pytest
import torch
from helpers import CPU, LOSS_CASES, LOSS_IDS, covering, set_constant
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy import optimize, sparse

from skdeep.engine.activations import ACTIVATIONS
from skdeep.engine.batching import Batches
from skdeep.engine.input_layer import Standardization
from skdeep.engine.losses import LOSSES
from skdeep.engine.networks import Linear
from skdeep.engine.objective import Objective
from skdeep.engine.optimizers import OPTIMIZERS
from skdeep.engine.penalties import PENALTIES
from skdeep.engine.per_model import vector
from skdeep.engine.perceptron import MLP
from skdeep.engine.rows import DenseRows, SparseRows, as_tensor
from skdeep.engine.schedules import SCHEDULES
from skdeep.engine.training import Observer, Plan, Progress, train
from skdeep.solvers.full_batch import minimise

N, D, C = 66, 5, 3


def problem():
    """Three overlapping classes; half of the values are zero, so that sparse rows are sparse."""
    generator = np.random.default_rng(0)
    y = generator.integers(0, C, N)
    X = generator.normal(size=(N, D)) + 1.5 * np.eye(C, D)[y]
    return X * (generator.random((N, D)) < 0.6), y


X, Y = problem()


def target_of(loss):
    return torch.from_numpy(Y) if loss.target == "codes" else torch.from_numpy(np.eye(C, dtype=np.uint8)[Y])


def model(**changes):
    """What belongs to one model."""
    standard = {"alpha": 0.01, "l1_ratio": 0.0, "rate": 0.1, "momentum": 0.9, "seed": 0, "class_weight": 1.0}
    assert not changes.keys() - standard.keys() - {"subset", "dropout", "stochastic_depth"}
    return standard | {"subset": None} | changes


#: Options of the network between its layers; blocks where widths agree.
EXTRAS = {
    "dropout": {"dropout": 0.3},
    "batch": {"normalization": "batch"},
    "layer": {"normalization": "layer"},
    "stochastic depth": {"stochastic_depth": 0.6},
    "all": {"dropout": 0.2, "normalization": "batch", "stochastic_depth": 0.4},
}


def network_of(kind, models, generators, columns):
    """Linear, in columns of each model's own centre and scale; or an MLP drawn from its generator."""
    if kind in EXTRAS:
        names = {"dropout", "stochastic_depth"}
        options = {
            k: vector([m.get(k, v) for m in models], len(models)) if k in names else v for k, v in EXTRAS[kind].items()
        }
        return MLP.initial(generators, [D, 6, 6, 6, C], "tanh", dtype=torch.float64, **options)
    if kind != "linear":
        return MLP.initial(generators, [D, 6, C], kind, dtype=torch.float64)
    k = len(models)
    center = scale = None
    if columns:
        own = [X if m["subset"] is None else X[m["subset"]] for m in models]
        center, scale = np.stack([rows.mean(0) for rows in own]), 1 / np.stack([rows.std(0) for rows in own])
    coef = torch.zeros(k, C, D, dtype=torch.float64)
    return Linear(coef, torch.zeros(k, C, dtype=torch.float64), center, scale)


def fit(
    models,
    kind="linear",
    loss=("log_loss", {}),
    solver="sgd",
    penalty="elasticnet",
    layout="dense",
    batch_size=16,
    columns=True,
    nesterov=True,
    max_iter=8,
    tol=1e-4,
    n_iter_no_change=2.0,
    watch_score=False,
    monitor=None,
    observer=None,
    data=X,
    progress=None,
    **plan,
):
    """Train a stack; returns its `Progress` list."""
    k = len(models)
    loss = LOSSES[loss[0]](**loss[1])
    own_rows = models[0]["subset"] is not None
    made = {m["seed"]: np.random.default_rng(m["seed"]) for m in models}
    generators = [np.random.default_rng(m["seed"]) if own_rows else made[m["seed"]] for m in models]
    network = network_of(kind, models, generators, columns)
    make_rows = {"dense": lambda: DenseRows(as_tensor(data), CPU, torch.float64)}
    make_rows["sparse"] = lambda: SparseRows(sparse.csr_array(data), CPU, torch.float64)
    subset = [m["subset"] for m in models] if own_rows else None
    weight = None
    mean_weight = np.ones(k)
    if any(m["class_weight"] != 1 for m in models):
        weights = np.stack([np.where(Y == 0, m["class_weight"], 1.0) for m in models])
        rows = subset or [slice(None)] * k
        mean_weight = np.array([w[mine].mean() for w, mine in zip(weights, rows, strict=True)])
        weight = torch.from_numpy(weights)
    values = {name: vector([m[name] for m in models], k) for name in ("alpha", "l1_ratio", "rate", "momentum")}
    optimizer = OPTIMIZERS[solver](network.params, values["rate"], values["momentum"], nesterov)
    if progress is None:
        progress = [Progress(tol, n_iter_no_change, watch_score) for _ in models]
    batches = Batches(make_rows[layout](), target_of(loss), weight, subset, generators, batch_size)
    return train(
        Objective(network, loss, PENALTIES[penalty](values["alpha"], values["l1_ratio"]), batches, mean_weight),
        optimizer,
        Plan(max_iter, proximal=kind == "linear" or solver == "adamw", **plan),
        progress,
        monitor,
        observer,
    )


def validation(data=X, by_loss=False):
    """A monitor: accuracy (or the negative of what follows) and mean log loss on the data, for each model left."""
    rows = torch.from_numpy(data)

    def monitor(network, models):
        assert network.n_models == len(models)
        scores = network.scores(rows).detach()
        accuracy = (scores.argmax(-1).numpy() == Y[: len(data)]).mean(1)
        log_loss = LOSSES["log_loss"]().value(scores, torch.from_numpy(Y[: len(data)])).mean(1).numpy()
        return -log_loss if by_loss else accuracy, log_loss

    return monitor


def assert_same(stacked, alone, momentum, atol=1e-10):
    """The exactness rule."""
    assert stacked.error is None
    assert (stacked.n_iter, stacked.samples, stacked.stopped) == (alone.n_iter, alone.samples, alone.stopped)
    for p, q in zip(stacked.params, alone.params, strict=True):
        np.testing.assert_allclose(p, q, rtol=1e-11, atol=atol)
    for name in ("loss_curve", "validation_scores", "validation_losses"):
        np.testing.assert_allclose(getattr(stacked, name), getattr(alone, name), rtol=1e-9, atol=atol)
    ours, theirs = stacked.optimizer_state, alone.optimizer_state
    for name in ("n_steps", "learning_rate"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-12)
    # (a velocity without momentum is never read, and not kept where all models are without)
    for slot in ours.keys() - {"n_steps", "learning_rate"} - ({"velocity"} if momentum == 0 else set()):
        for p, q in zip(ours[slot], theirs[slot], strict=True):
            np.testing.assert_allclose(p, q, rtol=1e-9, atol=atol)


def check_exactness(models, atol=1e-10, **options):
    """Train the stack, then each model alone; returns the stack's progress."""
    stack = fit(models, **options)
    for m, stacked in zip(models, stack, strict=True):
        assert_same(stacked, fit([m], **options)[0], m["momentum"], atol)
    return stack


# ---- the exactness rule -------------------------------------------------------------------------------------------

# all that may differ between models differs; which rows they see, and in which order, is varied
FIRST = model(alpha=1e-3, l1_ratio=0.5, rate=0.05, momentum=0.9, class_weight=2.0)
SECOND = model(alpha=0.1, l1_ratio=0.0, rate=0.2, momentum=0.0, class_weight=0.5)
THIRD = model(alpha=0.03, l1_ratio=1.0, rate=0.1, momentum=0.5, class_weight=1.0)
ROWS = np.arange(N)
STACKS = {
    "shared rows": [FIRST, SECOND, THIRD],
    "own seeds": [FIRST | {"seed": 1}, SECOND | {"seed": 2}, THIRD | {"seed": 1}],
    # 44, 44 and 44 rows; 33, 66 and 50 rows; 10 (less than a batch), 16 (one batch) and 60 rows
    "folds": [m | {"subset": ROWS[ROWS % 3 != i], "seed": i} for i, m in enumerate((FIRST, SECOND, THIRD))],
    "ragged": [FIRST | {"subset": ROWS[::2]}, SECOND | {"subset": ROWS}, THIRD | {"subset": ROWS[:50], "seed": 5}],
    "very ragged": [
        FIRST | {"subset": ROWS[20:30], "seed": 1},
        SECOND | {"subset": ROWS[::4][:16]},
        THIRD | {"subset": ROWS[6:]},
    ],
}
each_stack = pytest.mark.parametrize("models", STACKS.values(), ids=STACKS)
# where nothing but the number of epochs is left out, two of them have all: steps, a last batch, and a second order


@each_stack
@pytest.mark.parametrize("loss", LOSS_CASES, ids=LOSS_IDS)
def test_exact_for_every_loss(models, loss):
    rate = 0.1 if loss[1] else 1.0  # squared hinges are steep
    models = [m | {"rate": rate * m["rate"]} for m in models]
    check_exactness(models, loss=loss, max_iter=2)


@each_stack
@pytest.mark.parametrize("loss", ["log_loss", "ovr"])
def test_exact_without_weights(models, loss):
    """Nor with centred columns: the shortest path through the code."""
    check_exactness([m | {"class_weight": 1.0} for m in models], loss=(loss, {}), columns=False, max_iter=2)


@each_stack
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_exact_for_every_activation(models, activation):
    check_exactness(models, kind=activation, max_iter=2)


@pytest.mark.parametrize(("models", "solver", "kind"), covering(STACKS, [*OPTIMIZERS, "sgd-plain"], ["linear", "tanh"]))
def test_exact_for_every_solver(models, solver, kind):
    solver, _, plain = solver.partition("-")
    rate = 1.0 if solver == "sgd" else 0.1
    models = [m | {"rate": rate * m["rate"]} for m in models]
    check_exactness(models, solver=solver, kind=kind, nesterov=not plain, max_iter=2)


@each_stack
@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
def test_exact_for_every_penalty(models, penalty):
    check_exactness(models, penalty=penalty, max_iter=2)


@pytest.mark.parametrize(
    ("models", "schedule", "steps"), covering(STACKS, list(SCHEDULES), [(0.0, "sgd"), (2.5, "sgd"), (2.5, "adam")])
)
def test_exact_for_every_schedule(models, schedule, steps):
    warmup_epochs, solver = steps
    rate = 1.0 if solver == "sgd" else 0.1
    models = [m | {"rate": rate * m["rate"]} for m in models]
    check_exactness(models, schedule=schedule, warmup_epochs=warmup_epochs, solver=solver, max_iter=4)


@pytest.mark.parametrize(
    ("models", "layout", "batches"),
    covering(STACKS, ["dense", "sparse"], [("linear", 1, 1), ("relu", 7, 2), ("linear", 1000, 4)]),
)
def test_exact_for_every_layout_and_batch_size(models, layout, batches):
    kind, batch_size, max_iter = batches
    models = [m | {"rate": 0.1 * m["rate"]} for m in models]  # single rows are noisy
    check_exactness(models, layout=layout, kind=kind, batch_size=batch_size, max_iter=max_iter)


@each_stack
@pytest.mark.parametrize("kind", ["linear", "prelu"])
def test_exact_with_clipped_gradients(models, kind):
    clipped = check_exactness(models, kind=kind, max_grad_norm=0.05, max_iter=2)
    free = fit(models, kind=kind, max_iter=2)
    assert all(not torch.allclose(a.params[0], b.params[0]) for a, b in zip(clipped, free, strict=True))


@pytest.mark.parametrize(
    ("models", "kind", "layout", "ends"),
    covering(STACKS, list(EXTRAS), ["dense", "sparse"], ["one after another", "judged"]),
)
def test_exact_with_random_factors_and_batch_statistics(models, kind, layout, ends):
    """Models leave, batches are filled up; the last ones have few rows, or one (of 33 with batches of 16)."""
    rates = [{"dropout": 0.1, "stochastic_depth": 0.9}, {}, {"dropout": 0.6, "stochastic_depth": 0.2}]
    models = [m | rate for m, rate in zip(stopping(models), rates, strict=True)]
    options = {"kind": kind, "layout": layout}
    if ends == "judged":
        check_exactness(models, **options, max_iter=2, watch_score=True, monitor=validation(), solver="adam")
    else:
        stack = check_exactness(models, **options, max_iter=6, tol=0.05, n_iter_no_change=1)
        assert len({p.n_iter for p in stack}) > 1


@pytest.mark.parametrize("kind", ["dropout", "batch", "all"])
def test_a_batch_that_is_gathered_in_parts_is_one_batch(kind, monkeypatch):
    """How many rows are gathered at once must not show: statistics and masks are those of the whole batch."""
    whole = fit([FIRST, SECOND], kind=kind, max_iter=2, batch_size=60)
    set_constant(monkeypatch, "MAX_VALUES", 40)
    for stacked, p in zip(fit([FIRST, SECOND], kind=kind, max_iter=2, batch_size=60), whole, strict=True):
        assert_same(stacked, p, 0.9)


def stopping(models):
    """The models made to converge at different speeds."""
    return [m | {"rate": r, "momentum": 0.0} for m, r in zip(models, (0.5, 0.03, 0.005), strict=True)]


@pytest.mark.parametrize(("models", "kind", "layout"), covering(STACKS, ["linear", "elu"], ["dense", "sparse"]))
def test_exact_when_models_stop_at_different_epochs(models, kind, layout):
    options = {"kind": kind, "layout": layout, "max_iter": 40, "tol": 5e-3, "n_iter_no_change": 1}
    stack = check_exactness(stopping(models), **options)
    assert len({p.n_iter for p in stack}) > 1
    assert sum(p.stopped is not None for p in stack) >= 2


@each_stack
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_exact_when_models_stop_under_a_schedule(models, schedule):
    options = {"max_iter": 30, "tol": 5e-3, "n_iter_no_change": 1, "schedule": schedule, "warmup_epochs": 1.5}
    stack = check_exactness(stopping(models), **options)
    assert schedule == "adaptive" or len({p.n_iter for p in stack}) > 1
    if schedule == "adaptive":  # the learning rate of each model went its own way
        ends = [p.optimizer_state["learning_rate"] / m["rate"] for p, m in zip(stack, stopping(models), strict=True)]
        assert len(set(ends)) > 1


@each_stack
@pytest.mark.parametrize("kind", ["linear", "silu"])
def test_exact_with_early_stopping(models, kind):
    options = {"kind": kind, "max_iter": 40, "tol": 1e-3, "n_iter_no_change": 2, "watch_score": True}
    stack = check_exactness(models, monitor=validation(), **options)
    assert len({p.n_iter for p in stack}) > 1
    assert all(len(p.validation_scores) == len(p.validation_losses) == p.n_iter for p in stack)


def test_nothing_that_differs_is_ignored():
    """Each setting of a model changes its parameters: the comparisons above are not of equal things."""
    base = fit([model()])[0].params[0]
    changes = [
        {"alpha": 0.1},
        {"l1_ratio": 0.9},
        {"rate": 0.02},
        {"momentum": 0.5},
        {"seed": 3},
        {"class_weight": 3.0},
        {"subset": ROWS[:40]},
    ]
    for change in changes:
        assert (fit([model(**change)])[0].params[0] - base).abs().max() > 1e-4, change


settings_of_a_model = st.builds(
    model,
    alpha=st.sampled_from([0.0, 1e-3, 0.3]),
    l1_ratio=st.sampled_from([0.0, 0.3, 1.0]),
    rate=st.floats(0.001, 0.05),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    seed=st.integers(0, 2),
    class_weight=st.sampled_from([0.5, 1.0, 3.0]),
)


@pytest.mark.slow
# not shrunk: a smaller stack would tell no more, and finding it takes a minute
@settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_exact_whatever_the_stack(data):
    models = data.draw(st.lists(settings_of_a_model, min_size=2, max_size=4))
    if data.draw(st.booleans(), label="own rows"):
        sizes = data.draw(st.lists(st.integers(2, N), min_size=len(models), max_size=len(models)))
        models = [
            m | {"subset": np.random.default_rng(i).permutation(N)[:size], "class_weight": 1.0}
            for i, (m, size) in enumerate(zip(models, sizes, strict=True))
        ]
    watch = data.draw(st.booleans(), label="early stopping")
    solver = data.draw(st.sampled_from(list(OPTIMIZERS)))
    check_exactness(
        models,
        # where a gradient cancels exactly, Adam divides its rounding (1e-17) by little more than epsilon (1e-8)
        atol=1e-10 if solver == "sgd" else 1e-8,
        solver=solver,
        kind=data.draw(st.sampled_from(["linear", *ACTIVATIONS])),
        loss=data.draw(st.sampled_from(LOSS_CASES)),
        layout=data.draw(st.sampled_from(["dense", "sparse"])),
        schedule=data.draw(st.sampled_from(list(SCHEDULES))),
        warmup_epochs=data.draw(st.sampled_from([0.0, 1.5])),
        max_grad_norm=data.draw(st.sampled_from([None, 0.5])),
        batch_size=data.draw(st.sampled_from([7, 32, 1000])),
        columns=False,  # a column of a few rows may be constant
        max_iter=6,
        tol=1e-2,
        n_iter_no_change=1,
        watch_score=watch,
        monitor=validation(by_loss=True) if watch else None,  # accuracy jumps where rounding decides a tie
    )


# ---- what a step does ---------------------------------------------------------------------------------------------


def test_one_full_batch_step_is_the_formula():
    """theta - rate * gradient of the weighted mean loss, then the proximal map, on the model's own coefficients."""
    settings_ = model(alpha=0.2, rate=0.3, momentum=0.0, class_weight=3.0)
    (progress,) = fit([settings_], penalty="l2", columns=False, batch_size=1000, max_iter=1)
    weight = np.where(Y == 0, 3.0, 1.0)
    residual = weight[:, None] * (np.full((N, C), 1 / C) - np.eye(C)[Y]) / weight.sum()
    np.testing.assert_allclose(progress.params[0][0], -0.3 * residual.T @ X / (1 + 0.3 * 0.2), atol=1e-14)
    np.testing.assert_allclose(progress.params[1][0], -0.3 * residual.sum(0), atol=1e-14)
    assert progress.loss_curve == [pytest.approx(math.log(C), rel=1e-14)]
    assert progress.samples == N


def test_a_deep_penalty_is_part_of_the_gradient():
    """Weights are penalised, biases are not."""
    first, second = (fit([model(alpha=a, momentum=0.0)], kind="tanh", batch_size=1000, max_iter=1)[0] for a in (0, 0.5))
    start = MLP.initial([np.random.default_rng(0)], [D, 6, C], "tanh", dtype=torch.float64).params
    for i, (p, q) in enumerate(zip(first.params, second.params, strict=True)):
        decay = 0.1 * 0.5 * start[i].detach() if i < 2 else torch.zeros_like(p)
        np.testing.assert_allclose(q, p - decay, atol=1e-14)


def test_loss_curve_is_the_mean_over_the_rows_seen_and_the_penalty():
    (progress,) = fit([model(rate=1e-12, alpha=0.5)], kind="tanh", batch_size=16, max_iter=1)
    start = MLP.initial([np.random.default_rng(0)], [D, 6, C], "tanh", dtype=torch.float64)
    value = LOSSES["log_loss"]().value(start.scores(torch.from_numpy(X)), torch.from_numpy(Y)).mean()
    penalty = 0.25 * sum(p.square().sum() for p in start.params[:2])
    assert progress.loss_curve[0] == pytest.approx((value + penalty).item(), rel=1e-9)


# ---- stopping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "tol", "patience", "expected"),
    [
        ([1.0] * 10, 1e-4, 2, 4),  # the first epoch improves on nothing; then more than two in a row do not
        ([1.0] * 10, 1e-4, 0, 2),
        ([1.0] * 10, 0.0, 2, 4),  # a plateau is no improvement
        ([1.0] * 10, 1e-4, math.inf, None),
        ([2.0, 3.0, 4.0, 5.0, 6.0], 1e-4, 3, 5),
        ([2.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5], 1e-4, 2, 8),  # an improvement starts the count anew
        ([1.0, 0.99, 0.98, 0.97, 0.96], 0.015, 2, 4),  # less than tol at each epoch is none
        ([1.0, 0.99, 0.98, 0.97, 0.96], 0.005, 2, None),
        ([5.0, 4.0, 3.0, 2.0, 1.0], 0.0, 0, None),
    ],
)
@pytest.mark.parametrize("watch_score", [False, True])
def test_when_a_model_stops(losses, tol, patience, expected, watch_score):
    """By the training loss, or by a score of its negative (the validation loss then stays as it was)."""
    progress = Progress(tol, patience, watch_score)
    stopped = None
    for epoch, loss in enumerate(losses, start=1):
        score = (-loss, 1.0) if watch_score else (None, None)
        progress.record(0.0 if watch_score else loss, *score)
        if progress.stalled:
            stopped = epoch
            break
    assert stopped == expected
    assert progress.n_iter == (expected or len(losses))


def test_train_stops_by_its_progress():
    """A learning rate of zero is a plateau from the first epoch on."""
    for tol, patience, n_iter in [(1e-4, 2, 4), (0.0, 0, 2), (0.0, math.inf, 8)]:
        (progress,) = fit([model(rate=0.0)], tol=tol, n_iter_no_change=patience, batch_size=1000)
        assert progress.n_iter == n_iter
        assert (progress.stopped is None) == (patience == math.inf)


def test_adaptive_divides_the_rate_instead_of_stopping():
    (progress,) = fit([model(rate=1e-3)], schedule="adaptive", tol=10.0, n_iter_no_change=1, max_iter=40)
    # 1e-3 -> 2e-4 -> ... -> below 1e-6 after five divisions; each takes two epochs, after the first that improves
    assert progress.optimizer_state["learning_rate"] == pytest.approx(1e-3 / 5**5)
    assert progress.stopped is not None
    assert progress.n_iter == 1 + 2 * 6


def scripted(scores, losses=None):
    """A monitor that gives scores by epoch and model, and notes the parameters it was shown."""
    shown = []

    def monitor(network, models):
        epoch = len(shown)
        shown.append({m: [p.detach()[i].clone() for p in network.tensors] for i, m in enumerate(models)})
        score = np.asarray(scores[epoch])[models]
        return score, np.ones(len(models)) if losses is None else np.asarray(losses[epoch])[models]

    return monitor, shown


def test_best_parameters_are_restored():
    """Each model's from its own best epoch; the first one counts if it comes back later."""
    scores = [[0.1, 0.9, 0.1], [0.5, 0.8, 0.2], [0.3, 0.7, 0.3], [0.5, 0.9, 0.4]]
    for kind in ("linear", "relu", "all"):
        monitor, shown = scripted(scores)
        stack = fit([FIRST, SECOND, THIRD], kind=kind, monitor=monitor, watch_score=True, max_iter=4)
        for m, best in enumerate((1, 0, 3)):
            for p, q in zip(stack[m].params, shown[best][m], strict=True):
                assert torch.equal(p[0], q)
            assert stack[m].best_score == scores[best][m]
            assert stack[m].n_iter == 4


def test_of_scores_within_the_grain_the_lower_loss_counts():
    progress = Progress(tol=0.01, watch_score=True, grain=0.1)
    epochs = [(0.8, 0.7), (0.75, 0.6), (0.9, 0.65), (0.81, 0.5), (0.79, 0.4), (0.85, 0.495), (0.96, 0.6), (0.84, 0.3)]
    assert [progress.record(1.0, *epoch) for epoch in epochs] == [True, True, True, True, False, True, True, False]
    assert progress.kept_iter == 7 and progress.best_score == 0.96
    assert progress.no_improvement == 1


def test_last_parameters_are_kept_where_no_score_is_watched():
    monitor, shown = scripted([[0.9], [0.1], [0.1]])
    (progress,) = fit([FIRST], monitor=monitor, max_iter=3)
    for p, q in zip(progress.params, shown[2][0], strict=True):
        assert torch.equal(p[0], q)
    assert progress.validation_scores == [0.9, 0.1, 0.1]


def test_monitor_is_told_which_models_are_left():
    told = []

    def monitor(network, models):
        told.append(models.tolist())
        return np.array([[1.0, 0.0, float(len(told))][m] for m in models]), np.ones(len(models))

    fit([FIRST, SECOND, THIRD], monitor=monitor, watch_score=True, n_iter_no_change=1, max_iter=5)
    assert told == [[0, 1, 2]] * 3 + [[2]] * 2


# ---- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("stack", ["shared rows", "own seeds", "ragged"])
@pytest.mark.parametrize("kind", ["linear", "relu"])
def test_a_diverging_model_disturbs_no_other(layout, stack, kind):
    options = {"layout": layout, "kind": kind, "loss": ("ovr", {"squared": True}), "penalty": None}
    models = [m | {"rate": 0.01} for m in STACKS[stack]]
    diverging = models[1] | {"rate": 1e30}
    together = fit([models[0], diverging, models[2]], **options)
    assert "became" in together[1].error
    assert together[1].n_iter < 8
    for m in (0, 2):
        assert_same(together[m], fit([models[m]], **options)[0], models[m]["momentum"])


def test_parameters_that_overflow_in_the_last_step_are_an_error():
    """The loss of the only epoch was still that of the start."""
    (progress,) = fit([model(rate=1e308, momentum=0.0)], data=1e3 * X, columns=False, batch_size=1000, max_iter=1)
    assert progress.n_iter == 1
    assert "non-finite" in progress.error


def test_rows_outside_a_models_subset_do_not_touch_it():
    """Not even a row that is no number: every other model may have its reasons to leave it out."""
    spoilt = X.copy()
    spoilt[[0, 33]] = np.nan
    subsets = [np.r_[1:20], np.r_[40:N], np.r_[5:30]]
    models = [m | {"subset": s, "class_weight": 1.0} for m, s in zip((FIRST, SECOND, THIRD), subsets, strict=True)]
    for options in ({}, {"layout": "sparse"}, {"kind": "relu"}):
        clean, other = fit(models, columns=False, **options), fit(models, columns=False, data=spoilt, **options)
        for p, q, m in zip(clean, other, models, strict=True):
            assert_same(q, p, m["momentum"])


@pytest.mark.parametrize("stack", ["shared rows", "ragged"])
def test_interrupt_in_the_first_epoch_is_raised(stack):
    def monitor(network, models):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(STACKS[stack], monitor=monitor)


def test_interrupt_later_keeps_what_was_learnt():
    calls = []

    def monitor(network, models):
        calls.append(models.tolist())
        if len(calls) == 5:
            raise KeyboardInterrupt
        return np.array([[1.0, float(len(calls)), float(len(calls))][m] for m in models]), np.ones(len(models))

    stack = fit([FIRST, SECOND, THIRD], monitor=monitor, watch_score=True, n_iter_no_change=1)
    assert calls[-1] == [1, 2]
    assert [p.interrupted for p in stack] == [False, True, True]  # the first had stopped before
    assert [p.n_iter for p in stack] == [3, 4, 4]
    # the best so far: as if max_iter had been 4
    expected, _ = fit([FIRST, SECOND], max_iter=4), None
    for p, q in zip(stack[1].params, expected[1].params, strict=True):
        np.testing.assert_allclose(p, q, atol=1e-12)
    assert all(p.params is not None and p.optimizer_state for p in stack)


# ---- going on, and being watched ----------------------------------------------------------------------------------


class Journal(Observer):
    """Notes what it is told; halts after an epoch, if asked to."""

    watches_batches = True

    def __init__(self, halt_after=None):
        self.events, self.halt_after = [], halt_after

    def train_begin(self, network, optimizer):
        self.events.append("train")

    def epoch_begin(self, epoch):
        self.events.append(f"epoch {epoch}")

    def batch_begin(self, batch):
        self.events.append("batch")

    def gradients(self, batch, gradients):
        self.events.append("gradients")

    def batch_end(self, batch, loss):
        self.events.append("end")

    def epoch_end(self, epoch, progress, network, is_best):
        self.events.append(f"best {is_best}")
        return epoch == self.halt_after

    def train_end(self, network):
        self.events.append("train end")


def test_an_observer_sees_everything_in_order():
    journal = Journal(halt_after=1)
    (progress,) = fit([model(rate=0.01)], observer=journal, batch_size=40)
    step = ["batch", "gradients", "end"]
    epochs = [f"epoch {e}" if i == 0 else x for e in (0, 1) for i, x in enumerate(["", *step, *step, "best True"])]
    assert journal.events == ["train", *epochs, "train end"]
    assert progress.n_iter == 2
    assert "callback" in progress.stopped


@pytest.mark.parametrize("solver", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["linear", "prelu", "all"])
def test_going_on_is_not_having_stopped(solver, kind):
    """Three epochs, their state loaded, and three more are six."""
    (whole,) = fit([model(rate=0.01)], kind=kind, solver=solver, max_iter=6, n_iter_no_change=math.inf)
    loss, generator = LOSSES["log_loss"](), np.random.default_rng(0)
    network = network_of(kind, [model()], [generator], columns=True)
    penalty, state = PENALTIES["elasticnet"](vector(0.01, 1), vector(0.0, 1)), None
    for _ in range(2):
        optimizer = OPTIMIZERS[solver](network.params, vector(0.01, 1), vector(0.9, 1))
        if state is not None:
            optimizer.load(state)
        rows = DenseRows(torch.from_numpy(X), CPU, torch.float64)
        batches = Batches(rows, torch.from_numpy(Y), None, None, [generator], 16)
        plan = Plan(3, proximal=kind == "linear" or solver == "adamw")
        progress = [Progress(n_iter_no_change=math.inf)]
        (part,) = train(Objective(network, loss, penalty, batches, np.ones(1)), optimizer, plan, progress)
        network, state = network.with_params(part.params), part.optimizer_state
    assert all(torch.equal(p, q) for p, q in zip(part.params, whole.params, strict=True))


# ---- the quasi-Newton solver --------------------------------------------------------------------------------------

SMOOTH = [(name, options) for name, options in LOSS_CASES if LOSSES[name](**options).smooth]


class Counting:
    """A loss that counts its evaluations."""

    def __init__(self, loss):
        self.loss, self.n, self.target = loss, 0, loss.target
        self.shift_invariant, self.twice_smooth = loss.shift_invariant, loss.twice_smooth

    def value_and_gradient(self, scores, target):
        self.n += 1
        return self.loss.value_and_gradient(scores, target)

    def second(self, scores, target):
        return self.loss.second(scores, target)


def quasi_newton(loss, alpha=0.05, weight=None, batch_size=1000, columns=True, kind="linear", data=X, **options):
    """Run `minimise` on the problem above; returns the progress, the network and the number of evaluations."""
    network = network_of(kind, [model()], [np.random.default_rng(0)], columns)
    counting = Counting(loss)
    rows = DenseRows(torch.from_numpy(data), CPU, torch.float64)
    own = None if weight is None else torch.from_numpy(weight)
    batches = Batches(rows, target_of(loss), own, None, [np.random.default_rng(0)], batch_size, shuffle=False)
    mean = np.ones(1) if weight is None else weight.mean(keepdims=True)
    penalty = PENALTIES["l2"](vector(alpha, 1), np.zeros(1))
    options = {"max_iter": 200, "max_fun": 1000, "progress": [Progress(1e-9)]} | options
    (progress,) = minimise(Objective(network, counting, penalty, batches, mean), **options)
    return progress, network.with_params(progress.params), counting.n


def objective_of(loss, coef, intercept, alpha, weight):
    """sum_i w_i L_i / sum w + alpha |W|^2 / 2 on the raw columns, as an independent autograd expression."""
    scores = torch.from_numpy(X) @ coef.T + intercept
    target = target_of(loss)
    values = loss.value(scores, target if loss.target == "codes" else target.double())
    return (values * weight).sum() / weight.sum() + alpha / 2 * coef.square().sum()


def scipys_optimum(loss, alpha, weight):
    def value_and_gradient(flat):
        point = torch.from_numpy(flat.copy()).requires_grad_()
        value = objective_of(loss, point[: C * D].view(C, D), point[C * D :], alpha, weight)
        value.backward()
        return value.item(), point.grad.numpy()

    start = np.zeros(C * D + C)
    return optimize.minimize(value_and_gradient, start, jac=True, method="BFGS", options={"gtol": 1e-10}).fun


# The value of these is autograd's to differentiate above; the others' gradients are closed forms, tested elsewhere.
@pytest.mark.parametrize("name", [name for name in LOSSES if LOSSES[name]().smooth])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("batch_size", [1000, 20])
def test_quasi_newton_reaches_scipys_optimum(name, weighted, columns, batch_size):
    """In whichever columns it works, and in however many chunks it sums."""
    loss, alpha = LOSSES[name](), 0.05
    weight = np.where(Y == 0, 3.0, 0.5) if weighted else None
    progress, network, _ = quasi_newton(loss, alpha, weight, batch_size, columns)
    coef, intercept = (p[0] for p in network.unscaled())
    mass = torch.ones(N, dtype=torch.float64) if weight is None else torch.from_numpy(weight)
    reached = objective_of(loss, coef, intercept, alpha, mass).item()
    assert reached == pytest.approx(scipys_optimum(loss, alpha, mass), abs=1e-10)
    assert progress.loss_curve[-1] == pytest.approx(reached, abs=1e-12)
    assert progress.stopped is not None
    assert progress.error is None


@pytest.mark.parametrize(("name", "options"), SMOOTH)
@pytest.mark.parametrize("kind", ["linear", "tanh"])
def test_quasi_newton_never_goes_up(name, options, kind):
    loss = LOSSES[name](**options)
    progress, _, _ = quasi_newton(loss, kind=kind, max_iter=30)
    assert len(progress.loss_curve) > 1
    assert (np.diff(progress.loss_curve) <= 1e-12).all()


@pytest.mark.parametrize("max_iter", [1, 3])
def test_quasi_newton_respects_max_iter(max_iter):
    progress, _, _ = quasi_newton(LOSSES["log_loss"](), max_iter=max_iter)
    assert progress.n_iter == max_iter
    assert progress.stopped is None


@pytest.mark.parametrize("units", [1e-6, 1.0, 1e5])
@pytest.mark.parametrize("max_fun", [3, 6, 10, 12])
def test_quasi_newton_respects_max_fun(max_fun, units):
    """Also where one line search takes several, because the columns are in odd units."""
    progress, _, n = quasi_newton(LOSSES["log_loss"](), alpha=0.0, columns=False, data=units * X, max_fun=max_fun)
    assert n <= max_fun
    assert progress.stopped is None
    assert progress.n_iter >= 1
    assert progress.loss_curve[-1] <= math.log(C) * (1 + 1e-12)  # the value at the start


def test_quasi_newton_stops_on_the_gradient():
    for tol in (1e-2, 1e-6):
        progress, network, _ = quasi_newton(LOSSES["log_loss"](), columns=False, progress=[Progress(tol)])
        coef, intercept = (p[0].clone().requires_grad_() for p in network.unscaled())
        objective_of(LOSSES["log_loss"](), coef, intercept, 0.05, torch.ones(N, dtype=torch.float64)).backward()
        assert max(coef.grad.abs().max(), intercept.grad.abs().max()) <= tol * (1 + 1e-6)
        assert "gradient" in progress.stopped


def test_quasi_newton_restores_the_best_parameters():
    monitor, shown = scripted([[0.1], [0.5], [0.3], [0.3]])
    progress, _, _ = quasi_newton(
        LOSSES["log_loss"](), monitor=monitor, max_iter=4, progress=[Progress(1e-9, 10, watch_score=True)]
    )
    for p, q in zip(progress.params, shown[1][0], strict=True):
        assert torch.equal(p[0], q)


def test_quasi_newton_interrupted():
    calls = []

    def monitor(network, models):
        calls.append(models)
        if len(calls) == limit:
            raise KeyboardInterrupt
        return np.ones(1), np.ones(1)

    limit = 1
    with pytest.raises(KeyboardInterrupt):
        quasi_newton(LOSSES["log_loss"](), monitor=monitor)
    limit = 4
    progress, _, _ = quasi_newton(LOSSES["log_loss"](), monitor=monitor)
    assert progress.interrupted
    assert progress.n_iter == 2
    assert progress.params is not None


@pytest.mark.parametrize(
    ("kind", "options"),
    [("linear", {}), ("mlp", {"dropout": 0.0}), ("mlp", {"dropout": 0.3, "normalization": "batch"})],
)
def test_groups_of_models_with_rows_of_their_own(kind, options):
    """Models that share their rows get them once: each ends where it ends alone, in columns of its group."""
    folds = [np.flatnonzero(np.arange(len(X)) % 3 != fold) for fold in range(3)]
    everyone = [(fold, alpha) for fold in range(3) for alpha in (1e-3, 0.1)]

    def trained(models):
        columns = [(X[folds[fold]].mean(0), 1 / X[folds[fold]].std(0)) for fold, _ in models]
        center, scale = (np.stack(parts) for parts in zip(*columns, strict=True))
        made = {fold: np.random.default_rng(5) for fold in range(3)}
        generators = [made[fold] for fold, _ in models]
        if kind == "linear":
            zeros = torch.zeros(len(models), C, D, dtype=torch.float64)
            network = Linear(zeros, zeros[:, :, 0].clone(), center, scale)
        else:
            alike = max(1, len(models) // 3)
            of_columns = (torch.from_numpy(part).unsqueeze(1) for part in (center, scale))
            change = Standardization(*of_columns, torch.empty(0, dtype=torch.int64), n_alike=alike)
            form = {"standardization": change, "dtype": torch.float64, "scaling": 3.0}
            network = MLP.initial(generators, [D, 6, 6, C], "relu", **form, **options)
        subsets = [folds[fold] for fold, _ in models]
        rows = DenseRows(as_tensor(X), CPU, torch.float64)
        batches = Batches(rows, torch.from_numpy(Y), None, subsets, generators, 16, draws=network.draws)
        assert batches.n_alike == (2 if len(models) > 1 else 1)
        alphas = np.array([alpha for _, alpha in models])
        objective = Objective(
            network, LOSSES["log_loss"](), PENALTIES["l2"](alphas, 0 * alphas), batches, np.ones(len(models))
        )
        progress = [Progress(tol=0.0, n_iter_no_change=np.inf) for _ in models]
        optimizer = OPTIMIZERS["adam"](network.params, np.full(len(models), 0.01), 0 * alphas)
        return train(objective, optimizer, Plan(max_iter=3, proximal=kind == "linear"), progress)

    for model, found in zip(everyone, trained(everyone), strict=True):
        (alone,) = trained([model])
        for ours, theirs in zip(found.params, alone.params, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-13)
