r"""
L1 against L2: regression with outliers
=======================================

Linear regression learns values, :math:`\hat y = W x + b`, and its loss says how bad a residual :math:`r = \hat y - y`
is. The square (L2) is the classic; the absolute value (L1) does not mind outliers; Huber's loss is a bit of both.
"""

# %%
# Three losses and their slopes
# -----------------------------
# The slope is the force with which a row pulls at the model: with squares, the harder the further off; with absolute
# values, always the same; with Huber's loss, like squares up to :math:`\delta`, and no harder beyond.

import matplotlib.pyplot as plt
import numpy as np
import torch

from skdeep import Huber, LinearRegressor
from skdeep.engine.values import AbsoluteValues, HuberValues, SquaredValues

plt.style.use("petroff10")
rng = np.random.default_rng(0)

residual = torch.linspace(-4, 4, 401, dtype=torch.float64)[:, None]
losses = {"L2: r² / 2": SquaredValues(), "L1: |r|": AbsoluteValues(), "Huber, δ = 1": HuberValues(1.0)}
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for (name, loss), style in zip(losses.items(), ("-", "--", "-."), strict=True):
    value, slope = loss.value_and_gradient(residual, torch.zeros_like(residual))
    left.plot(residual, value, style, label=name)
    right.plot(residual, slope, style, label=name)
left.set(xlabel="residual r", title="loss")
right.set(xlabel="residual r", title="slope")
left.legend()
figure.savefig("19_outliers_losses.png")

# %%
# The best constant
# -----------------
# Without a column that says anything, the model is one number. Squares make it the mean, which one outlier can move
# anywhere; absolute values make it the median, which does not care how far away an outlier is.

y = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
nothing = np.zeros((5, 1))
for loss, expected in (("squared_error", np.mean(y)), ("absolute_error", np.median(y))):
    constant = LinearRegressor(loss, penalty=None, random_state=0).fit(nothing, y).predict(nothing)[0]
    print(f"{loss:14} {constant:.2f}, expected {expected:.2f}")
    assert abs(constant - expected) < 0.1

# %%
# A line
# ------
# The line is :math:`y = 2 x + 1` with some noise. In some rows of large x, y has lost its decimal point, and is ten
# times what it was.

x = rng.uniform(0, 10, 150)
y = 2 * x + 1 + rng.normal(size=150)
wrong = (x > 7) & (rng.uniform(size=150) < 0.4)
y[wrong] *= 10
X = x[:, None]
lines = {
    "L2": LinearRegressor("squared_error", penalty=None),
    "L1": LinearRegressor("absolute_error", penalty=None, random_state=0),
    "Huber, δ = 2": LinearRegressor(Huber(delta=2.0), penalty=None),
}
figure, (whole, near) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
for panel in (whole, near):
    panel.plot(x[~wrong], y[~wrong], ".", color="gray", label="rows")
    panel.plot(x[wrong], y[wrong], "x", color="black", label=f"{wrong.sum()} of {len(x)} are wrong")
    panel.set(xlabel="x")
ends = np.array([[0.0], [10.0]])
for (name, line), style in zip(lines.items(), ("-", "--", "-."), strict=True):
    line.fit(X, y)
    slope, constant = line.coef_[0, 0], line.intercept_[0]
    print(f"{name:13} y = {slope:.2f} x {constant:+.2f}")
    for panel in (whole, near):
        panel.plot(ends[:, 0], line.predict(ends), style, linewidth=2, label=f"{name}: {slope:.1f} x {constant:+.1f}")
near.set(ylim=(-10, 40), title="the same, near the rows that are right")
whole.set(ylabel="y", title="all rows")
whole.legend()
figure.savefig("19_outliers.png")
assert abs(lines["L1"].coef_[0, 0] - 2) < 0.2 > abs(lines["Huber, δ = 2"].coef_[0, 0] - 2)
assert abs(lines["L2"].coef_[0, 0] - 2) > 2

# %%
# Which one?
# ----------
# L2 predicts means: what a bill adds up to. It is the best there is where errors are normal. L1 predicts medians,
# whatever the errors; its slope jumps at zero, so that small steps are needed near the optimum. Huber's loss is as
# smooth as squares where most rows are: choose :math:`\delta` such as the size of a usual error, in units of y.
