"""Draw the data's way through the rooms of the package: ``docs/rooms.png``, by ``python docs/rooms.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

OUTPUT = Path(__file__).resolve().parent / "rooms.png"

#: Left edge, bottom, width, room, and what is there.
BOXES = [
    (0.0, 4.6, 3.0, "what you pass", "X, y, weights"),
    (4.0, 4.6, 3.0, "data/", "Problem:\nrows, codes, weights"),
    (8.0, 4.6, 3.0, "estimators/, fitting/", "Recipe: how to train"),
    (8.0, 2.3, 3.0, "fitting/", "Members:\na list of models"),
    (4.0, 2.3, 3.0, "engine/, solvers/", "K models,\none training loop"),
    (0.0, 2.3, 3.0, "fitting/", "fitted attributes:\ncoef_, loss_curve_, ..."),
    (0.0, 0.0, 3.0, "estimators/, data/", "prediction: scores,\nlabels, probabilities"),
]
#: From where to where.
ARROWS = [((3, 5.3), (4, 5.3)), ((7, 5.3), (8, 5.3)), ((9.5, 4.6), (9.5, 3.7)), ((8, 3), (7, 3)), ((4, 3), (3, 3))]
ARROWS += [((1.5, 2.3), (1.5, 1.4))]
WAYS = (
    "four ways of making members:\na fit  ·  folds of a calibration\nmembers of an ensemble  ·  candidates of a search"
)


def main() -> None:
    """Draw and save the picture."""
    plt.style.use("petroff10")
    colors = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    # a white ground of its own: it looks the same on light and dark pages
    figure, ax = plt.subplots(figsize=(10, 5.6), facecolor="white", layout="constrained")
    for i, (x, y, width, room, text) in enumerate(BOXES):
        color = colors[0] if "engine" not in room else colors[1]
        face = "white" if i == 0 else color + "22"
        ax.add_patch(FancyBboxPatch((x, y), width, 1.4, "round,pad=0,rounding_size=0.15", fc=face, ec=color, lw=2))
        ax.text(x + width / 2, y + 1.12, room, ha="center", va="center", weight="bold", size=11, color="black")
        ax.text(x + width / 2, y + 0.5, text, ha="center", va="center", size=11, color="black")
    for start, end in ARROWS:
        ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1.6})
    ax.annotate("", (9.5, 2.3), (9.5, 1.4), arrowprops={"arrowstyle": "-|>", "color": colors[2], "lw": 1.6})
    ax.add_patch(FancyBboxPatch((4.0, 0), 7.0, 1.4, "round,pad=0,rounding_size=0.15", fc="white", ec=colors[2], lw=2))
    ax.text(7.5, 0.7, WAYS, ha="center", va="center", size=11, color="black")
    ax.set(xlim=(-0.2, 11.2), ylim=(-0.2, 6.2), aspect="equal")
    ax.axis("off")
    figure.savefig(OUTPUT, dpi=110, facecolor="white")


if __name__ == "__main__":
    main()
