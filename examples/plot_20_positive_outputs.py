r"""
Outputs that are never negative
===============================

Counts, prices, lengths and times are not negative, and a score :math:`s = W x + b` may be. What is between them is the
**output**, :math:`\hat y = g(s)`: the score itself, ReLU, softplus or the exponential function.
"""

# %%
# Four outputs
# ------------
# ReLU, :math:`\max(0, s)`, cuts off what is negative. Softplus, :math:`\log(1 + e^s)`, is a ReLU without the corner,
# and :math:`e^s` makes factors of what the columns add.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.metrics import mean_poisson_deviance

from skdeep import LinearRegressor, MLPRegressorTorch
from skdeep.engine.values import Positive, SquaredValues

plt.style.use("petroff10")
styles = {"identity": "-", "relu": "--", "softplus": "-.", "exp": ":"}
rng = np.random.default_rng(0)

scores = torch.linspace(-3, 3, 301, dtype=torch.float64)[:, None]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for output, style in styles.items():
    loss = SquaredValues() if output == "identity" else Positive(SquaredValues(), output)
    left.plot(scores, loss.prediction(scores), style, linewidth=2, label=output)
    right.plot(scores, loss.value_and_gradient(scores, torch.ones_like(scores))[1], style, linewidth=2, label=output)
left.set(xlabel="score s", title="prediction", ylim=(-3, 6))
right.set(xlabel="score s", title="slope of the squared error, where y = 1", ylim=(-4.2, 6))
left.legend()
figure.savefig("20_positive_outputs_functions.png")

# %%
# On the left of the corner, ReLU has no slope: a row whose score is negative teaches nothing, however wrong it is.
# Softplus always has some.

score, target = torch.tensor([[-2.0]]), torch.tensor([[3.0]])
for output in ("relu", "softplus"):
    _, slope = Positive(SquaredValues(), output).value_and_gradient(score, target)
    print(f"{output:8} slope of the loss at s = -2, where y = 3: {abs(slope.item()):.2f}")
    assert (slope.item() == 0) == (output == "relu")

# %%
# Counts
# ------
# How many rented bicycles are out, by the temperature: next to none in the cold, and then more and more. Counts vary
# the more, the higher they are (this is Poisson's distribution).

temperature = np.sort(rng.uniform(-10, 30, 300))
rate = 25 / (1 + np.exp(-(temperature - 14) / 4))
bicycles = rng.poisson(rate)
X = temperature[:, None]
lines = {output: LinearRegressor(output=output, alpha=0, random_state=0) for output in styles}
network = MLPRegressorTorch("poisson", (16,), "tanh", solver="lbfgs", alpha=1e-3, random_state=0)
models = {
    **lines,
    "poisson": LinearRegressor("poisson", alpha=0),
    "network, poisson": network,
}
figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
wide = np.linspace(-15, 35, 300)[:, None]
for panel in panels:
    panel.plot(temperature, bicycles, ".", color="gray", markersize=4)
    panel.axhline(0, color="black", linewidth=0.8)
    panel.set(xlabel="temperature, °C", ylim=(-8, 45))
for name, model in models.items():
    predicted = model.fit(X, bicycles).predict(X)
    panel = panels[0 if name in lines else 1]
    panel.plot(wide, model.predict(wide), styles.get(name, "-"), linewidth=2, label=name)
    deviance = mean_poisson_deviance(bicycles, np.maximum(predicted, 1e-9)) if (predicted > 0).all() else np.inf
    print(f"{name:17} lowest prediction {predicted.min():6.2f}, R² {model.score(X, bicycles):.3f}", end=", ")
    print(f"Poisson deviance {deviance:.2f}")
panels[0].set(title="linear models, squared error, four outputs", ylabel="bicycles")
panels[1].plot(wide, 25 / (1 + np.exp(-(wide - 14) / 4)), "k--", linewidth=1, label="the truth")
panels[1].set_title("half the Poisson deviance, exp(s)")
for panel in panels:
    panel.legend(loc="upper left")
figure.savefig("20_positive_outputs.png")

assert lines["identity"].predict(X).min() < 0 <= lines["relu"].predict(X).min()
assert network.score(X, bicycles) > max(line.score(X, bicycles) for line in lines.values())

# %%
# A straight line is negative in the cold. ReLU puts its corner where the counts begin. Softplus and :math:`e^s` are
# never zero; :math:`e^s` multiplies by the same factor from each degree to the next, which is too much in the heat.
# Half the Poisson deviance is the loss for counts: errors weigh less where counts are high and vary anyhow. It has no
# finite value where zero is predicted and a bicycle was out (``inf`` above). The network bends where the data does.
#
# Which one?
# ----------
# ReLU where values are zero over a part of the range, softplus where they approach zero and grow like a line, the
# exponential where effects multiply, as in prices and growth. Counts, waiting times and claims have losses of their
# own, ``"poisson"``, ``"gamma"`` and ``"tweedie"``, with the exponential inside. Which values a loss takes, it says
# itself:

try:
    LinearRegressor("poisson").fit(X, bicycles - 5)
except ValueError as error:
    print(error)
