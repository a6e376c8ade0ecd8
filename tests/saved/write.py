"""Write models of this version, with what they answer, for the versions to come: ``python tests/saved/write.py``.

A release adds its files to those of earlier ones, and `tests/test_saved.py` opens them all.
"""

import pickle
from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skdeep
from skdeep import SGD, HingeClassifier, MLPClassifierTorch, MLPEnsembleClassifier, SoftmaxClassifier

MODELS = {
    "softmax": SoftmaxClassifier(solver=SGD(), random_state=0),
    "hinge": make_pipeline(StandardScaler(), HingeClassifier(random_state=0)),
    "mlp": MLPClassifierTorch((3,), random_state=0),
    "ensemble": MLPEnsembleClassifier(2, (3,), random_state=0),
}

if __name__ == "__main__":
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])
    for name, model in MODELS.items():
        model.fit(X, names[y])
        path = Path(__file__).parent / f"{name}-{skdeep.__version__}.pkl"
        path.write_bytes(pickle.dumps((skdeep.__version__, model, model.predict_proba(X[::10])), protocol=5))
