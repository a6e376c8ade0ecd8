"""Write the figures in README.md and on the pages of the site, from the newest results of the benchmarks.

A figure stands between two marks. In Markdown these are ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``; in
reStructuredText they are the comments ``.. figures: NAME`` and ``.. end of figures``. NAME is a key of `FIGURES`. After
new results, run ::

    python docs/figures.py

``tests/test_figures.py`` fails where a page does not say what the results say.
"""

from __future__ import annotations

import datetime
import json
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "examples" / "benchmarks" / "results"

#: The marks around a figure, by the suffix of the page.
MARKS = {
    ".md": ("<!-- figures: NAME -->", "<!-- end of figures -->"),
    ".rst": (".. figures: NAME", ".. end of figures"),
}


def newest(name: str, results: Path = RESULTS) -> dict:
    """Return the last results of a benchmark, by the date in the file's name."""
    files = sorted(results.glob(f"{name}-2*.json"))
    if not files:
        raise FileNotFoundError(f"{results} has no {name}-<date>.json: run the benchmark with this folder as output")
    return json.loads(files[-1].read_text(encoding="utf-8"))


def date(result: dict) -> str:
    """Return the day of a measurement in words."""
    day = datetime.date.fromisoformat(result["date"])
    return f"{day.day} {day:%B %Y}"


def number(value: object) -> str:
    """Return a number with three significant digits, and text as it is."""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def grid(columns: list[str], rows: list[list[str]], suffix: str) -> str:
    """Return a table in the markup of a page."""
    if suffix == ".md":
        right = [all(re.match(r"[-\d.]", cell) for cell in column) for column in zip(*rows, strict=True)]
        lines = [columns, ["--:" if r else "---" for r in right], *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [columns, *rows]]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


@dataclass(frozen=True)
class Table:
    """Some columns of a results file, under a line that says where they come from.

    Attributes
    ----------
    name : str
        The results file, without its date.
    script : str
        What made it, as it is called in ``examples/``.
    columns : dict of str
        Columns of the file, and their headings here.
    names : dict of str, optional
        Entries of the first column, and their names here.
    """

    name: str
    script: str
    columns: dict[str, str]
    names: dict[str, str] | None = None

    def __call__(self, results: Path, suffix: str) -> str:
        result = newest(self.name, results)
        rows = [[number(row[column]) for column in self.columns] for row in result["table"]]
        if self.names is not None:
            rows = [[self.names[first], *others] for first, *others in rows]
        source = f"{result['data']}; {result['machine']}; {date(result)}; `examples/{self.script}`."
        return f"{sentence(source, suffix)}\n\n{grid(list(self.columns.values()), rows, suffix)}"


def sentence(text: str, suffix: str) -> str:
    """Return a sentence, written as Markdown, in the markup of a page."""
    return textwrap.fill(text if suffix == ".md" else text.replace("`", "``"), 116)


def search(results: Path, suffix: str) -> str:
    """Say what a search costs on many images."""
    result = newest("search_time-images", results)
    seconds, accuracy = ({row["search"]: row[c] for row in result["table"]} for c in ("seconds", "best CV accuracy"))
    ours, same = (
        "skdeep's search, large-data setting",
        "scikit-learn's search over SoftmaxClassifier, large-data setting",
    )
    theirs = "scikit-learn's search over LogisticRegression"
    return sentence(
        f"{result['data']}: skdeep's `GridSearchCV` over `SoftmaxClassifier`, in its setting for large data, takes "
        f"**{seconds[ours]:.1f} s**, scikit-learn's over the same estimator {seconds[same]:.0f} s, scikit-learn's over "
        f"`LogisticRegression` **{seconds[theirs]:.0f} s**. The best cross-validated accuracies are {accuracy[ours]}, "
        f"{accuracy[same]} and {accuracy[theirs]} ({result['machine']}, {date(result)}).",
        suffix,
    )


def quality(results: Path, suffix: str) -> str:
    """Say how good the defaults are."""
    result = newest("defaults", results)
    rows = {row["estimator on raw columns"]: row for row in result["table"]}
    ensemble, ours, theirs = (
        f"{rows[name]['mean accuracy']} and {rows[name]['mean log-loss']}"
        for name in ("ensemble", "mlp", "MLPClassifier + scaler")
    )
    return sentence(
        f"Means of test accuracy and log-loss over {result['data'].split(',')[0]} with raw columns: "
        f"`MLPEnsembleClassifier()` {ensemble}, `MLPClassifierTorch()` {ours}, scikit-learn's `MLPClassifier()` behind "
        f"a scaler {theirs} ({date(result)}).",
        suffix,
    )


_SECONDS = {
    "search": "search",
    "best n_jobs": "best n_jobs",
    "seconds": "seconds",
    "best CV accuracy": "best CV accuracy",
}
_EPOCHS = {"": "contestant, or ratio of two", "ms, or ratio": "ms, or ratio"}

FIGURES: dict[str, Callable] = {
    "search": search,
    "quality": quality,
    "quickstart": Table(
        "quickstart",
        "quickstart.py",
        {c: c for c in ("classifier", "library", "test accuracy", "test log-loss", "one fit, s", "search, s")},
    ),
    "small": Table(
        "small",
        "benchmarks/small.py",
        {
            "estimator": "what",
            "data": "data",
            "skdeep, ms": "skdeep, ms",
            "scikit-learn, ms": "scikit-learn, ms",
            "ratio": "ratio",
        },
    ),
    "search-images": Table("search_time-images", "benchmarks/search_time.py", _SECONDS),
    "search-digits": Table("search_time-digits", "benchmarks/search_time.py", _SECONDS),
    "search-mlp": Table(
        "search_time-mlp-images",
        "benchmarks/search_time.py",
        {"": "six alphas", "seconds": "seconds", "ratio": "ratio"},
    ),
    "one-fit": Table(
        "time_to_quality-linear",
        "benchmarks/time_to_quality.py",
        {"": "estimator", "seconds": "seconds", "test accuracy": "test accuracy", "test log-loss": "test log-loss"},
    ),
    "epochs": Table("epoch_time", "benchmarks/epoch_time.py", _EPOCHS),
    "epochs-float64": Table("epoch_time-float64", "benchmarks/epoch_time.py", _EPOCHS),
    "memory": Table(
        "memory",
        "benchmarks/memory.py",
        {
            "peak of anonymous memory": "estimator",
            "rows": "rows",
            "data MB": "data, MB",
            "fit adds MB": "fit adds, MB",
            "predict adds MB": "predict adds, MB",
            "fit s": "fit, s",
        },
    ),
    "defaults": Table(
        "defaults",
        "benchmarks/quality/defaults.py",
        {
            "estimator on raw columns": "estimator",
            "mean accuracy": "mean accuracy",
            "mean log-loss": "mean log-loss",
            "total seconds": "seconds for all",
        },
        {
            "softmax": "SoftmaxClassifier()",
            "LogisticRegression + scaler": "StandardScaler, LogisticRegression(max_iter=1000)",
            "mlp": "MLPClassifierTorch()",
            "MLPClassifier + scaler": "StandardScaler, MLPClassifier()",
            "ensemble": "MLPEnsembleClassifier()",
        },
    ),
}


def pages(root: Path = ROOT) -> list[Path]:
    """Return the pages that may have figures."""
    patterns = ("README.md", "docs/index.rst", "docs/guide/*.rst", "docs/decisions/*.rst")
    return [path for pattern in patterns for path in sorted(root.glob(pattern))]


def blocks(suffix: str) -> re.Pattern:
    """Return the pattern of a figure with its marks, in pages of that suffix."""
    start, end = MARKS[suffix]
    start = re.escape(start).replace("NAME", r"(\S+)")
    return re.compile(rf"^( *){start}$.*?^ *{re.escape(end)}$", re.DOTALL | re.MULTILINE)


def updated(text: str, suffix: str, results: Path = RESULTS) -> str:
    """Return the text of a page with its figures as the results have them."""
    start, end = MARKS[suffix]

    def write(found: re.Match) -> str:
        indent, name = found.groups()
        figure = f"{start.replace('NAME', name)}\n\n{FIGURES[name](results, suffix)}\n\n{end}"
        return textwrap.indent(figure, indent)

    return blocks(suffix).sub(write, text)


def main() -> None:
    """Write the figures of all pages."""
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = updated(before, page.suffix)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
