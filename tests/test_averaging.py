"""Averages over steps: what they are, alone and in stacks, and who gets to see them."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_classification

from skdeep import MLPClassifierTorch
from skdeep.engine import training
from skdeep.engine.averaging import Averages
from skdeep.engine.batching import Batches
from skdeep.engine.losses import LOSSES
from skdeep.engine.objective import Objective
from skdeep.engine.optimizers import OPTIMIZERS
from skdeep.engine.penalties import PENALTIES
from skdeep.engine.perceptron import MLP
from skdeep.engine.progress import Progress
from skdeep.engine.rows import DenseRows
from skdeep.engine.training import Observer, Plan, train

X, Y = make_classification(70, 5, n_informative=4, n_redundant=0, n_classes=3, random_state=0)
FOLDS = [np.arange(70), np.arange(0, 70, 2), np.arange(23)]


def trained(models, solver="adam", monitor=None, patience=np.inf, observer=None, **options):
    """Train networks by (rows, rate), each of two epochs at least."""
    generators = [np.random.default_rng(3) for _ in models]
    network = MLP.initial(generators, [5, 4, 3], "relu", device=torch.device("cpu"), dtype=torch.float64, **options)
    rows = DenseRows(torch.from_numpy(X), torch.device("cpu"), torch.float64)
    batches = Batches(rows, torch.from_numpy(Y), None, [fold for fold, _ in models], generators, 8)
    zeros = np.zeros(len(models))
    objective = Objective(network, LOSSES["log_loss"](), PENALTIES["l2"](zeros + 0.01, zeros), batches, zeros + 1)
    progress = [Progress(n_iter_no_change=patience, watch_score=monitor is not None) for _ in models]
    optimizer = OPTIMIZERS[solver](network.params, np.array([rate for _, rate in models]), zeros)
    plan = Plan(max_iter=6, proximal=solver == "adamw", averages=True)
    return train(objective, optimizer, plan, progress, monitor, observer)


@pytest.mark.parametrize("solver", OPTIMIZERS)
def test_the_model_is_the_average_of_the_steps(solver, monkeypatch):
    seen = []
    take_in = Averages.take_in

    def watched(self):
        seen.append([tensor.clone() for tensor in self.tensors])
        take_in(self)

    monkeypatch.setattr(Averages, "take_in", watched)
    (progress,) = trained([(FOLDS[0], 0.02)], solver)
    weights = np.ones(len(seen))
    for t in range(1, len(seen) + 1):  # by hand: (η + 1) / (t + η) of each, and less of what was before
        weights[t - 1] = 4 / (t + 3)
        weights[: t - 1] *= 1 - weights[t - 1]
    assert len(seen) == 6 * 9
    assert weights.sum() == pytest.approx(1)
    for i, found in enumerate(progress.params):
        average = sum(w * tensors[i] for w, tensors in zip(weights, seen, strict=True))
        torch.testing.assert_close(found, average, rtol=1e-12, atol=1e-14)
        assert not torch.allclose(found, seen[-1][i])


@pytest.mark.parametrize("normalization", [None, "batch"])
def test_a_stack_has_the_averages_of_each_model_alone(normalization):
    models = [(fold, rate) for fold, rate in zip(FOLDS, (0.02, 0.05, 0.01), strict=True)]
    for model, found in zip(models, trained(models, normalization=normalization), strict=True):
        (alone,) = trained([model], normalization=normalization)
        for ours, theirs in zip(found.params, alone.params, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-13)


def test_those_who_stop_early_keep_the_averages_that_were_judged():
    rows, codes, judged = torch.from_numpy(X), torch.from_numpy(Y), {}

    def monitor(network, models):
        losses = LOSSES["log_loss"]().value(network.scores(rows).detach(), codes).mean(1).numpy()
        for place, m in enumerate(models):  # falling scores of one model, which stops
            judged.setdefault(m, []).append([t.clone() for t in network.copy_of(place)])
        return np.where(models == 1, -float(len(judged[0])), -losses), losses

    first, second = trained([(FOLDS[0], 0.02), (FOLDS[0], 0.04)], monitor=monitor, patience=2)
    assert second.n_iter < first.n_iter == 6
    for m, progress in enumerate([first, second]):
        best = judged[m][progress.kept_iter - 1]
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(progress.params, best, strict=True))


class Reader(Observer):
    """Keeps what it is shown."""

    def __init__(self):
        self.after = []

    def epoch_end(self, epoch, progress, network, is_best):
        self.after.append(network.copy_of(0))
        return False

    def train_end(self, network):
        self.after.append(network.copy_of(0))


def test_what_observers_see_is_the_average():
    reader = Reader()
    (shown,), (plain,) = trained([(FOLDS[0], 0.02)], observer=reader), trained([(FOLDS[0], 0.02)])
    assert len(reader.after) == 7
    for last, at_end, ours, without in zip(*reader.after[-2:], shown.params, plain.params, strict=True):
        assert torch.equal(last, at_end)
        assert torch.equal(last, ours)
        torch.testing.assert_close(ours, without, rtol=1e-12, atol=1e-14)  # who looks changes nothing


def test_an_interrupted_fit_is_the_average_so_far(monkeypatch):
    step, n_steps = training._Stack.step, [0]

    def interrupted(self, *args, **options):
        n_steps[0] += 1
        if n_steps[0] == 2 * 2 + 1:
            raise KeyboardInterrupt
        return step(self, *args, **options)

    short = MLPClassifierTorch((4,), random_state=0, max_iter=2, tol=0).fit(X, Y)
    monkeypatch.setattr(training._Stack, "step", interrupted)
    with pytest.warns(UserWarning, match="interrupt"):
        cut = MLPClassifierTorch((4,), random_state=0).fit(X, Y)
    assert cut.n_iter_ == 2
    np.testing.assert_allclose(cut.coefs_[0], short.coefs_[0], rtol=1e-12)


def test_more_training_begins_with_the_average():
    model = MLPClassifierTorch((4,), random_state=0, warm_start=True).fit(X, Y)
    n_first = model.n_iter_
    curve = model.fit(X, Y).loss_curve_
    assert curve[n_first] < curve[n_first - 1] + 0.05
    before = model.coefs_[-1].copy()
    model.partial_fit(X, Y)
    assert 0 < np.abs(model.coefs_[-1] - before).max() < 0.1
