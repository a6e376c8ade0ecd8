r"""
Sparse text
===========

Texts become rows of a sparse matrix: one column per word, almost all entries zero. skdeep trains and predicts from
the sparse matrix as it is.
"""

# %%
# The texts
# ---------
# SMS messages, spam or not, if they lie beside the checkout; else SciPy's documentation: which of its parts does a
# description come from?

import importlib
import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
from benchmarks.common import SHARED
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from skdeep import Adam, SoftmaxClassifier
from skdeep.model_selection import GridSearchCV, one_standard_error

plt.style.use("petroff10")


def descriptions(part):
    """What the functions and classes of a part of SciPy say of themselves, without code."""
    module = importlib.import_module(f"scipy.{part}")
    docs = (getattr(module, name).__doc__ or "" for name in module.__all__)
    return [doc.partition("Examples\n")[0] for doc in docs if doc.strip()]


if (SHARED / "sms_spam").is_dir():
    sys.path.insert(0, str(SHARED))
    from loaddata import load

    data = load("sms_spam")
    texts, y = data["texts"], data["y"]
else:
    parts = ["linalg", "ndimage", "optimize", "signal", "special", "stats"]
    texts, y = zip(*((text, part) for part in parts for text in descriptions(part)), strict=True)
texts_train, texts_test, y_train, y_test = train_test_split(texts, y, stratify=y, random_state=0)
print(f"{len(texts)} texts of the classes {', '.join(np.unique(y))}")

# %%
# As it comes
# -----------
# The default penalty knows that rows of tf-idf are short: under ``C=1``, a model is hardly sure of anything.

for model in (SoftmaxClassifier(random_state=0), LogisticRegression(max_iter=1000)):
    pipe = make_pipeline(TfidfVectorizer(sublinear_tf=True), model).fit(texts_train, y_train)
    loss = log_loss(y_test, pipe.predict_proba(texts_test))
    print(f"{type(model).__name__}: test accuracy {pipe.score(texts_test, y_test):.4f}, log-loss {loss:.3f}")

# %%
# A tuned pipeline
# ----------------
# L1 chooses among the words. `~skdeep.model_selection.GridSearchCV` fits the vectoriser once per fold, and trains the
# candidates of the fold together. Of all models within one standard error of the best it takes that with the strongest
# penalty.

warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is chosen, not found
softmax = SoftmaxClassifier(
    "l1", solver=Adam(learning_rate="cosine"), max_iter=20, class_weight="balanced", random_state=0
)
pipe = make_pipeline(TfidfVectorizer(min_df=3, stop_words="english", sublinear_tf=True), softmax)
grid = {"softmaxclassifier__alpha": np.logspace(-4, -2, 5)}
search = GridSearchCV(pipe, grid, scoring="balanced_accuracy", refit=one_standard_error, cv=3).fit(texts_train, y_train)
vectorizer, softmax = search.best_estimator_
rows = vectorizer.transform(texts_test)
print(f"{rows.shape[1]} columns, of which a text uses {rows.nnz / rows.shape[0]:.0f}")
print(f"alpha = {softmax.alpha:.1e}, test balanced accuracy {search.score(texts_test, y_test):.3f}")
print(f"{(softmax.coef_ != 0).any(axis=0).sum()} words are used: the model is {softmax.sparsify().coef_!r}")

# %%
# The words that decide
# ---------------------
# A weight on a word is read like that of a pixel: for the class, or against it. (Two classes have one row of weights,
# in favour of the second class.)

words = vectorizer.get_feature_names_out()
coef = softmax.densify().coef_
names = [f"{softmax.classes_[1]} (right) or {softmax.classes_[0]} (left)"] if len(coef) == 1 else softmax.classes_
n_rows = -(-len(coef) // 3)
figure, axes = plt.subplots(n_rows, min(len(coef), 3), figsize=(10, 4 * n_rows), layout="constrained", squeeze=False)
for panel, row, name in zip(axes.flat, coef, names, strict=True):
    top = np.argsort(row)[[0, 1, 2, 3, *range(-8, 0)]]
    panel.barh(words[top], row[top], color=np.where(row[top] > 0, "C0", "C1"))
    panel.set(xlabel="weight", title=name)
figure.savefig("12_text.png")
