r"""
Quantiles, and intervals that keep their word
=============================================

A prediction without its uncertainty is half an answer. There are two ways to say it: to learn **quantiles** of the
target, or to look at the errors on rows that a model has not seen, and to make intervals as wide as these ask for
(**conformal** prediction).
"""

# %%
# The pinball loss
# ----------------
# Of a residual :math:`r = \hat y - y`, :math:`\max((1 - \tau) r, -\tau r)` charges what is too low :math:`\tau` a unit,
# and what is too high :math:`1 - \tau`. The constant that costs least has the share :math:`\tau` of the targets below
# it.

import matplotlib.pyplot as plt
import numpy as np

from skdeep import LinearRegressor, MLPEnsembleRegressor, Quantile

plt.style.use("petroff10")
rng = np.random.default_rng(0)

y = rng.exponential(size=1000)
levels = [0.1, 0.5, 0.9]
constants = LinearRegressor(Quantile(levels), penalty=None, random_state=0).fit(np.zeros((1000, 1)), y)
print("constants:", constants.intercept_.round(2), " quantiles:", np.quantile(y, levels).round(2))
assert np.allclose([np.mean(y <= constant) for constant in constants.intercept_], levels, atol=0.02)

# %%
# Lines
# -----
# With a column, each level has a line. Here the noise grows with x, and so does the distance of the lines. On new data,
# 90 % of the targets should be between the lines of 5 % and 95 %.


def draw(n):
    """Make rows whose noise grows with x."""
    x = rng.uniform(0, 10, n)
    return x[:, None], np.sin(1.3 * x) * 2 + x + (0.2 + 0.3 * x) * rng.normal(size=n)


def covered(ends, y):
    """Share of the targets that are in their interval."""
    return np.mean((ends[:, 0] <= y) & (y <= ends[:, -1]))


X, y = draw(500)
X_test, y_test = draw(4000)
lines = LinearRegressor(Quantile([0.05, 0.5, 0.95]), penalty=None, random_state=0).fit(X, y)
print(f"between the lines: {covered(lines.predict(X_test), y_test):.1%} of the test rows")
assert 0.86 < covered(lines.predict(X_test), y_test) < 0.94

# %%
# Lines that are not parallel cross somewhere, and there the quantile of 95 % is below the one of 5 %, which is
# nonsense. ``non_crossing=True`` sorts the predictions of each row, which never takes them further from the true
# quantiles.

outside = np.array([[-4.0]])
print("at x = -4:", lines.predict(outside).round(1), end=", ")
lines.set_params(loss__non_crossing=True).fit(X, y)
print("sorted:", lines.predict(outside).round(1))
assert (np.diff(lines.predict(outside)) > 0).all()

# %%
# Networks, and a promise
# -----------------------
# A network learns curves. But quantiles on rows that it was trained on are too near to each other, the more flexible
# the model. `~skdeep.MLPEnsembleRegressor` knows its errors on rows that are new: each member leaves out a fold. Its
# ``predict_interval`` is
#
# * with a loss of one prediction, as far from it on both sides as the share 90 % of these errors is at most: one width
#   for all x;
# * with the loss `~skdeep.Quantile` of several levels, from the lowest quantile to the highest, and so far beyond (or
#   inside) as new targets were beyond.
#
# Both keep the promise on average over x. Only the second one keeps it where the noise is high, too.

settings = {"hidden_layer_sizes": (64, 64), "activation": "relu", "learning_rate_init": 0.01, "random_state": 0}
ensembles = {
    "squared error": MLPEnsembleRegressor(**settings),
    "quantiles 5 %, 50 %, 95 %": MLPEnsembleRegressor(loss=Quantile([0.05, 0.5, 0.95]), **settings),
}
figure, panels = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained", sharex=True)
shown = np.linspace(0, 10, 300)[:, None]
quarters = np.digitize(X_test[:, 0], [2.5, 5, 7.5])
bars = panels[2]
for k, (panel, (name, ensemble)) in enumerate(zip(panels, ensembles.items(), strict=False)):
    ends = ensemble.fit(X, y).predict_interval(X_test, coverage=0.9)
    whole, parts = covered(ends, y_test), [covered(ends[quarters == q], y_test[quarters == q]) for q in range(4)]
    print(f"{name:26} covers {whole:.1%}; by quarters of x:", *(f"{part:.0%}" for part in parts), end="; ")
    print(f"mean width {np.diff(ends).mean():.1f}")
    assert 0.86 < whole < 0.94
    panel.plot(X[:, 0], y, ".", color="gray", markersize=3)
    prediction, color = ensemble.predict(shown), f"C{k}"
    panel.plot(shown, prediction if prediction.ndim == 1 else prediction[:, 1], color=color)
    panel.fill_between(shown[:, 0], *ensemble.predict_interval(shown, coverage=0.9).T, color=color, alpha=0.3)
    panel.set(title=f"{name}: {whole:.0%} of test rows", xlabel="x", ylim=(-7, 20))
    bars.bar(np.arange(4) * 2.5 + 0.85 + 0.8 * k, parts, 0.75, color=color, label=name)
panels[0].set_ylabel("y, and intervals for 90 %")
bars.axhline(0.9, color="black", linestyle="--", linewidth=1)
bars.set(title="coverage of test rows, by quarters of x", xlabel="x", ylim=(0.6, 1.14))
bars.legend(loc="upper right", fontsize="small")
figure.savefig("21_quantiles_and_intervals.png")

# %%
# What it rests on is that new rows come from where the training rows came from, in any order. Nothing else is asked
# for: neither that errors are normal, nor that the model is right. A bad model has wide intervals.
