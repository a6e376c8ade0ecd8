"""Draw the newest results of the searches and of the time to quality: ``docs/benchmarks.png``.

Run ``python examples/benchmarks/picture.py --help`` for the options.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
OURS, THEIRS = "#0072b2", "#999999"  # told apart by those who see fewer colours


def newest(folder, name):
    """The last results of a benchmark, by date."""
    files = sorted(folder.glob(f"{name}-2*.json"))
    return json.loads(files[-1].read_text()) if files else None


def bars(axes, result, label, title):
    """Seconds of each contestant, on a logarithmic axis."""
    table = sorted(result["table"], key=lambda row: -row["seconds"])
    names, seconds = [row[label] for row in table], [row["seconds"] for row in table]
    colors = [THEIRS if "scikit-learn" in n or n.startswith(("Log", "SGD", "Linear")) else OURS for n in names]
    drawn = axes.barh(names, seconds, color=colors)
    axes.bar_label(drawn, [f"{s:.3g} s" for s in seconds], padding=3)
    axes.set(xscale="log", xlabel="seconds", title=f"{title}\n{result['data']}")
    axes.set_xlim(min(seconds) / 2, max(seconds) * 4)
    axes.spines[["top", "right"]].set_visible(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--output", type=Path, default=HERE.parents[1] / "docs" / "benchmarks.png")
    options = parser.parse_args()
    found = [
        (newest(options.results, "search_time-images"), "search", "A search over alpha"),
        (newest(options.results, "time_to_quality-linear"), "", "One fit"),
    ]
    found = [one for one in found if one[0] is not None]
    if not found:
        raise SystemExit(f"No results in {options.results}: run search_time.py or time_to_quality.py with --output.")
    figure, axes = plt.subplots(len(found), 1, figsize=(10, 3.4 * len(found)), layout="constrained", squeeze=False)
    for one, ax in zip(found, axes[:, 0], strict=True):
        bars(ax, *one)
    # the tables that the picture goes with
    tables = json.dumps([result["table"] for result, *_ in found])
    figure.savefig(options.output, dpi=110, metadata={"Description": tables})
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
