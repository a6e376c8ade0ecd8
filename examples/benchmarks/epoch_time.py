"""What one epoch costs, beside the bare matrix products, a plain torch loop, skorch and scikit-learn.

Medians over several rounds of one run, in which the contestants take turns; ratios are what to read, on a machine that
has nothing else to do. An epoch is the difference between a fit of ``1 + k`` epochs and one of a single epoch, divided
by k; ``fixed`` is what a fit costs beyond its epochs.

Run ``python examples/benchmarks/epoch_time.py --help`` for the options.
"""

import warnings

import numpy as np
import torch
from common import parser, report, seconds
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier

from skdeep import SGD, HingeClassifier, MLPClassifierTorch, SoftmaxClassifier

#: For as many epochs as were asked for: parameters of an estimator, and of its solver (or of a network, as they are).
ENDLESS = {"tol": 0.0, "random_state": 0}
STEPS = {"n_iter_no_change": np.inf}


def bare_products(X, n_columns, batch_size):
    """Forward and backward product of a linear classifier, batch by batch, on slices: nothing else."""
    W = torch.randn(n_columns, X.shape[1])

    def epoch():
        for start in range(0, len(X), batch_size):
            rows = X[start : start + batch_size]
            scores = torch.nn.functional.linear(rows, W)
            scores.T @ rows

    return epoch


def products_as_written(X, n_columns, batch_size):
    """The same products as NumPy users write them, with weights (columns, outputs): slow for few outputs."""
    W = torch.randn(X.shape[1], n_columns)

    def epoch():
        for start in range(0, len(X), batch_size):
            rows = X[start : start + batch_size]
            scores = rows @ W
            rows.T @ scores

    return epoch


def products_of_network(X, n_columns, batch_size):
    """The products of a (256, 256) network, forward and backward, on slices: nothing else."""
    W, V, U = torch.randn(256, X.shape[1]), torch.randn(256, 256), torch.randn(n_columns, 256)

    def epoch():
        for start in range(0, len(X), batch_size):
            rows = X[start : start + batch_size]
            h = W @ rows.T
            k = V @ h
            g = U @ k
            g @ k.T
            k = U.T @ g
            k @ h.T
            h = V.T @ k
            h @ rows

    return epoch


def network(d, n_columns):
    return torch.nn.Sequential(
        torch.nn.Linear(d, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, n_columns),
    )


def plain_torch(net, optimizer, X, y, batch_size):
    """The loop one writes by hand: index a permutation, cross-entropy, backward, fused update."""
    criterion = torch.nn.CrossEntropyLoss()

    def epoch():
        order = torch.randperm(len(X), device=X.device)
        for start in range(0, len(X), batch_size):
            rows = order[start : start + batch_size]
            optimizer.zero_grad()
            criterion(net(X[rows]), y[rows]).backward()
            optimizer.step()

    return epoch


def skorch_net(X, y, n_columns, batch_size, device="cpu"):
    """The loop of skorch around the same network, at its defaults."""
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        network(X.shape[1], n_columns),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        batch_size=batch_size,
        max_epochs=1,
        device=device,
        verbose=0,
    )
    return lambda: net.fit(X, y)


def sparse_rows(n_rows=20_000, n_columns=100_000, per_row=100):
    """Random CSR rows, 0.1 % non-zero."""
    rng = np.random.default_rng(0)
    columns = np.sort(rng.integers(0, n_columns, (n_rows, per_row), dtype=np.int32)).ravel()
    start = np.arange(0, n_rows * per_row + 1, per_row, dtype=np.int32)
    X = sparse.csr_array((rng.random(n_rows * per_row), columns, start), shape=(n_rows, n_columns))
    X.sum_duplicates()
    return X


def epoch_of(make, X, y, extra):
    """Seconds of a fit of one epoch, and of each further one."""
    one, _ = seconds(lambda: make(1).fit(X, y))
    more, _ = seconds(lambda: make(1 + extra).fit(X, y))
    return one, (more - one) / extra


def main():
    options = parser(__doc__)
    options.set_defaults(rounds=5)
    options.add_argument("--rows", type=int, default=60_000)
    options.add_argument("--columns", type=int, default=784)
    options.add_argument("--classes", type=int, default=10)
    options.add_argument("--batch-size", type=int, default=256)
    options.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="of estimators' columns")
    options.add_argument("--epochs", type=int, default=4, help="epochs that an epoch is measured over")
    options.add_argument("--skip-peers", action="store_true", help="leave out scikit-learn and skorch, which are slow")
    options.add_argument("--sparse", action="store_true", help="also 20000 x 100000 sparse rows, beside SGDClassifier")
    options = options.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)

    rng = np.random.default_rng(0)
    X = rng.random((options.rows, options.columns), dtype=np.float32)
    y = rng.integers(0, options.classes, options.rows)
    tensors = torch.from_numpy(X), torch.from_numpy(y)
    X = X.astype(options.dtype, copy=False)  # of scikit-learn's estimators and ours; torch's loops have float32
    iris = load_iris(return_X_y=True)
    rows = sparse_rows() if options.sparse else None
    steps = {"batch_size": options.batch_size, **STEPS}
    softmax, mlp = {"solver": SGD(**steps), **ENDLESS}, {"hidden_layer_sizes": (256, 256), **steps, **ENDLESS}

    products = bare_products(tensors[0], options.classes, options.batch_size)
    as_written = products_as_written(tensors[0], options.classes, options.batch_size)
    of_network = products_of_network(tensors[0], options.classes, options.batch_size)
    net = network(options.columns, options.classes)
    loop = plain_torch(net, torch.optim.Adam(net.parameters(), lr=1e-3, fused=True), *tensors, options.batch_size)
    linear = torch.nn.Linear(options.columns, options.classes)
    sgd = torch.optim.SGD(linear.parameters(), lr=1e-2, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True)
    linear_loop = plain_torch(linear, sgd, *tensors, options.batch_size)
    figures: dict[str, list[float]] = {}

    def note(name, value):
        figures.setdefault(name, []).append(1e3 * value)

    for estimator in (SoftmaxClassifier, MLPClassifierTorch):  # what is only paid once in a process
        estimator(max_iter=1, random_state=0).fit(*iris)
    for round_ in range(options.rounds):
        print(f"round {round_ + 1} of {options.rounds}", flush=True)
        note("bare matrix products", seconds(products)[0])
        note("bare products as X @ W, X.T @ G", seconds(as_written)[0])
        one, epoch = epoch_of(lambda k: SoftmaxClassifier(max_iter=k, **softmax), X, y, options.epochs)
        note("SoftmaxClassifier", epoch)
        note("SoftmaxClassifier, fixed", one - epoch)
        note("plain torch loop, softmax", seconds(linear_loop)[0])
        note("bare products of (256, 256)", seconds(of_network)[0])
        note("plain torch loop (256, 256)", seconds(loop)[0])
        one, epoch = epoch_of(lambda k: MLPClassifierTorch(max_iter=k, **mlp), X, y, options.epochs)
        note("MLPClassifierTorch (256, 256)", epoch)
        note("MLPClassifierTorch (256, 256), fixed", one - epoch)
        if not options.skip_peers:
            net_of_skorch = skorch_net(tensors[0].numpy(), y, options.classes, options.batch_size)
            note("skorch (256, 256)", seconds(net_of_skorch)[0])
            note("MLPClassifier (256, 256)", seconds(lambda: MLPClassifier(max_iter=1, **mlp).fit(X, y))[0])
        for n_classes in (2, 20) if options.sparse else ():
            target = rng.integers(0, n_classes, rows.shape[0])
            name = f"sparse rows, {n_classes} classes"
            for penalty in ("l2", "l1"):
                peer = {"loss": "log_loss", "penalty": penalty, "tol": None, "random_state": 0}
                _, epoch = epoch_of(lambda k, p=peer: SGDClassifier(max_iter=k, **p), rows, target, options.epochs)
                note(f"SGDClassifier, {penalty}, {name}", epoch)
                ours = {"penalty": penalty, "solver": SGD(**STEPS), **ENDLESS}
                _, epoch = epoch_of(lambda k, p=ours: SoftmaxClassifier(max_iter=k, **p), rows, target, options.epochs)
                note(f"SoftmaxClassifier, {penalty}, {name}", epoch)
        for make, extra in [
            (SoftmaxClassifier, {}),
            (HingeClassifier, {"calibration": None}),
            (MLPClassifierTorch, {}),
        ]:
            small = make(max_iter=1, random_state=0, **extra)
            note(
                f"{make.__name__}, iris, max_iter=1",
                float(np.median([seconds(lambda e=small: e.fit(*iris))[0] for _ in range(20)])),
            )

    medians = {name: float(np.median(values)) for name, values in figures.items()}
    pairs = [
        ("SoftmaxClassifier", "bare matrix products"),
        ("SoftmaxClassifier", "bare products as X @ W, X.T @ G"),
        ("plain torch loop, softmax", "bare matrix products"),
        ("SoftmaxClassifier", "plain torch loop, softmax"),
        ("bare products of (256, 256)", "MLPClassifier (256, 256)"),
        ("MLPClassifierTorch (256, 256)", "plain torch loop (256, 256)"),
        ("MLPClassifierTorch (256, 256)", "skorch (256, 256)"),
        ("MLPClassifierTorch (256, 256)", "MLPClassifier (256, 256)"),
    ]
    pairs += [(a, a.replace("Softmax", "SGD")) for a in medians if "sparse" in a and a.startswith("Softmax")]
    rows = [[name, value] for name, value in medians.items()]
    rows += [[f"{a} / {b}", medians[a] / medians[b]] for a, b in pairs if b in medians]
    data = f"{options.rows} x {options.columns} {options.dtype}, {options.classes} classes, batch {options.batch_size}"
    name = "epoch_time" if options.dtype == "float32" else "epoch_time-float64"
    report(name, f"{data}; medians of {options.rounds} rounds", ["", "ms, or ratio"], rows, options.output)


if __name__ == "__main__":
    main()
