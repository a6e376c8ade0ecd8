"""What scikit-learn 1.10 announces: it is handled when it is there.

Halving searches hold the last iteration in ``cv_results_`` and all of them in ``all_cv_results_``
(scikit-learn/scikit-learn#34250); pipelines transform ``X_val`` unless told otherwise (#34263); estimators with
validation data request it by default (#34901). Each is made here of what the installed version has.
"""

import numpy as np
import pytest
import sklearn
from helpers import IRIS, IRIS_Y
from sklearn import model_selection
from sklearn.base import clone
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeep import MLPClassifierTorch, SoftmaxClassifier, compare
from skdeep.model_selection import GridSearchCV, one_standard_error
from skdeep.model_selection.fronts import shared_fronts
from skdeep.model_selection.search import _StackedSearch

ALPHAS = {"alpha": np.logspace(-4, 2, 9)}


class Trimmed(model_selection.HalvingGridSearchCV):
    """A halving search whose results are the last iteration's."""

    def fit(self, X, y=None, **params):
        super().fit(X, y, **params)
        self.all_cv_results_ = {k: v for k, v in self.cv_results_.items() if not k.startswith("rank")}
        (last,) = np.nonzero(self.cv_results_["iter"] == np.max(self.cv_results_["iter"]))
        self.cv_results_ = {name: [values[i] for i in last] for name, values in self.cv_results_.items()}
        self.cv_results_ = {k: v if k == "params" else np.ma.asarray(v) for k, v in self.cv_results_.items()}
        self.best_index_ -= last[0]
        return self


class Ours(_StackedSearch, Trimmed):
    """The same, stacked."""


def test_halving_keeps_what_scikit_learn_keeps():
    options = {"factor": 2, "min_resources": 60, "random_state": 0, "cv": 3}
    plain, ours = (
        cls(SoftmaxClassifier(random_state=0), ALPHAS, **options).fit(IRIS, IRIS_Y) for cls in (Trimmed, Ours)
    )
    assert vars(ours).keys() == vars(plain).keys()
    assert len(ours.cv_results_["params"]) < len(ours.all_cv_results_["params"]) == sum(ours.n_candidates_)
    assert ours.best_params_ == plain.best_params_ == ours.cv_results_["params"][ours.best_index_]
    for results in ("cv_results_", "all_cv_results_"):
        scores = [getattr(search, results)["mean_test_score"] for search in (ours, plain)]
        np.testing.assert_allclose(*scores, rtol=1e-12)
    assert 0 <= one_standard_error(ours.cv_results_) < len(ours.cv_results_["params"])
    found = compare({"ours": ours, "theirs": plain}, cv=3)
    assert found.rows()[0]["mean"] == pytest.approx(ours.best_score_)


def test_pipelines_that_transform_validation_data_share_their_steps():
    models = {
        name: Pipeline(
            [("scale", StandardScaler()), ("clf", SoftmaxClassifier(alpha=alpha))], transform_input=("X_val",)
        )
        for name, alpha in (("weak", 1e-3), ("strong", 1.0))
    }
    scorer = sklearn.metrics.get_scorer("accuracy")
    assert shared_fronts(models, scorer, IRIS) == [["weak", "strong"]]
    plain = {name: make_pipeline(*(clone(step) for _, step in model.steps)) for name, model in models.items()}
    for own, other in zip(*(compare(each, IRIS, IRIS_Y, cv=3).rows() for each in (models, plain)), strict=True):
        assert own["mean"] == other["mean"]


class Requesting(MLPClassifierTorch):
    """Asks for validation data without being told to."""

    __metadata_request__fit = {"X_val": True, "y_val": True, "sample_weight_val": True}


@pytest.mark.parametrize("asks", ["by itself", "when told"])
@pytest.mark.parametrize("search", [GridSearchCV, model_selection.GridSearchCV])
def test_validation_data_is_routed_through_pipelines_and_searches(asks, search):
    network = {"hidden_layer_sizes": (3,), "max_iter": 3, "early_stopping": True, "random_state": 0}
    rest = {"X_val": IRIS + 5, "y_val": IRIS_Y, "sample_weight_val": np.eye(150)[1]}
    with sklearn.config_context(enable_metadata_routing=True):
        model = Requesting(**network)
        if asks == "when told":
            model = MLPClassifierTorch(**network).set_fit_request(**dict.fromkeys(rest, True))
        pipeline = Pipeline([("scale", StandardScaler()), ("clf", model)], transform_input=["X_val"])
        found = search(pipeline, {"clf__alpha": [1e-4, 1.0]}, cv=2).fit(IRIS[::2], IRIS_Y[::2], **rest)
    best = found.best_estimator_
    rows = best[0].transform(IRIS[1:2] + 5)  # the only one that counts
    right = best[-1].predict(rows) == IRIS_Y[1]
    assert best[-1].best_validation_score_ == float(right[0])
    assert set(best[-1].validation_scores_) <= {0.0, 1.0}
