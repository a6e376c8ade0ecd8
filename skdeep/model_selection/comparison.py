"""What a comparison of models has found: scores of all splits, a table, and what follows from it."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skdeep.model_selection.paired import PairedDifference, holm, paired_difference

#: Columns of the table that is shown: its heading, and how a row's value is written.
_SHOWN = {
    "contestant": lambda row: row["contestant"],
    "mean": lambda row: _score(row, "mean", ""),
    "difference": lambda row: _score(row, "difference"),
    "interval": lambda row: "" if math.isnan(row["low"]) else f"[{_score(row, 'low')}, {_score(row, 'high')}]",
    "P(better)": lambda row: _number(row["p_better"], "{:.2f}"),
    "P(equal)": lambda row: _number(row["p_equal"], "{:.2f}"),
    "P(worse)": lambda row: _number(row["p_worse"], "{:.2f}"),
    "p (Holm)": lambda row: _number(row["p_holm"], "{:.3f}"),
    "fit, s": lambda row: _seconds(row, "fit_seconds"),
    "predict, s": lambda row: _seconds(row, "predict_seconds"),
    "verdict": lambda row: row["verdict"],
}
#: Columns that hold words.
_WORDS = ("contestant", "verdict")


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else form.format(value)


def _score(row: dict[str, Any], name: str, sign: str = "+") -> str:
    """Write a score, or a difference, with four decimals, or with fewer where scores are beyond ten."""
    size = abs(row["mean"])
    n_decimals = 4 if not 10 <= size < math.inf else max(0, 4 - int(math.log10(size)))
    return _number(row[name], f"{{:{sign}.{n_decimals}f}}")


def _seconds(row: dict[str, Any], name: str) -> str:
    mean, spread = row[name], row[f"{name}_std"]
    spread = 0.0 if spread < 1e-9 * mean else spread  # equal shares of a stack's time, to rounding
    return "" if math.isnan(mean) else f"{mean:.3g}" + ("" if math.isnan(spread) else f" ± {spread:.1g}")


@dataclass(repr=False)
class Comparison:
    """Scores of several models on the same splits, and what they say of the differences from one of them.

    `compare` makes it. The verdict on a contestant is

    - "equal" if the difference lies within the ROPE (region of practical equivalence) with a probability of at least
      `confidence`;
    - else "better" or "worse" if its p-value, adjusted by Holm over the contestants, is at most 1 - `confidence`;
    - else "undecided": an interval, which is of one contestant alone, may leave out zero all the
      same. One split, or differences that are all the same but not zero, decide nothing.

    Attributes
    ----------
    names : list of str
        The contestants.
    reference : str
        The one that the others are compared with.
    scores : dict of str to dict of str to ndarray of shape (n_splits,)
        Of each metric, the scores of each contestant; more is better. NaN where there is none.
    fit_seconds, predict_seconds : dict of str to ndarray of shape (n_splits,)
        What each contestant has taken: to fit, and to predict and compute the metrics. Of a search, only the mean.
    test_ratio : float
        Test rows per training row, of all splits together.
    rope : dict of str to float
        Of each metric, the largest difference that makes no difference.
    confidence : float
    errors : dict of str to str
        What went wrong, by contestant.
    notes : list of str
        What to know when reading the table.
    score_errors : dict of (str, str) to str
        Why there is no score, by metric and contestant, where a scorer has said so.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.dummy import DummyClassifier
    >>> from skdeep import SoftmaxClassifier, compare
    >>> X, y = load_iris(return_X_y=True)
    >>> found = compare({"dummy": DummyClassifier(), "softmax": SoftmaxClassifier(random_state=0)}, X, y)
    >>> [(row["contestant"], row["verdict"]) for row in found.rows()]
    [('dummy', 'reference'), ('softmax', 'better')]
    """

    names: list[str]
    reference: str
    scores: dict[str, dict[str, np.ndarray]]
    fit_seconds: dict[str, np.ndarray]
    predict_seconds: dict[str, np.ndarray]
    test_ratio: float
    rope: dict[str, float]
    confidence: float = 0.95
    errors: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    score_errors: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        return list(self.scores)

    @property
    def n_splits(self) -> int:
        """The number of splits."""
        return len(self.scores[self.metrics[0]][self.reference])

    def difference(self, metric: str, name: str) -> PairedDifference | None:
        """Estimate how much better a contestant is than the reference; None if one of them has not all scores."""
        scores, reference = self.scores[metric][name], self.scores[metric][self.reference]
        if name == self.reference or not (np.isfinite(scores).all() and np.isfinite(reference).all()):
            return None
        rope = self.rope[metric]
        return paired_difference(scores, reference, self.test_ratio, rope=rope, confidence=self.confidence)

    def rows(self) -> list[dict[str, Any]]:
        """List the table's rows, one per metric and contestant.

        Returns
        -------
        list of dict
            With the keys metric, contestant, mean, std (over the splits), difference, low, high, p_better, p_equal,
            p_worse, p_value, p_holm, fit_seconds, fit_seconds_std, predict_seconds, predict_seconds_std, verdict and
            error. Numbers that there are not are NaN.
        """
        return [row for metric in self.metrics for row in self._rows_of(metric)]

    def _rows_of(self, metric: str) -> list[dict[str, Any]]:
        found = {name: self.difference(metric, name) for name in self.names}
        adjusted = holm([math.nan if one is None else one.p_value for one in found.values()])
        rows = []
        for (name, one), p_holm in zip(found.items(), adjusted.tolist(), strict=True):
            scores = self.scores[metric][name]
            row = {"metric": metric, "contestant": name, "mean": float(scores.mean()), "std": _spread(scores)}
            paired = vars(one or PairedDifference(math.nan))
            row |= {"difference": paired["mean"], **{key: paired[key] for key in paired if key != "mean"}}
            row["p_holm"] = p_holm
            for key, seconds in (("fit_seconds", self.fit_seconds), ("predict_seconds", self.predict_seconds)):
                row |= {key: float(seconds[name].mean()), f"{key}_std": _spread(seconds[name])}
            row |= {"verdict": self._verdict(metric, name, one, p_holm), "error": self._error(metric, name)}
            rows.append(row)
        return rows

    def _verdict(self, metric: str, name: str, found: PairedDifference | None, p_holm: float) -> str:
        if not np.isfinite(self.scores[metric][name]).all():
            return "failed"
        if name == self.reference:
            return "reference"
        if found is None or math.isnan(p_holm):
            return "undecided"
        if found.p_equal >= self.confidence:
            return "equal"
        if p_holm <= 1 - self.confidence:
            return "better" if found.mean > 0 else "worse"
        return "undecided"

    def _error(self, metric: str, name: str) -> str:
        if name in self.errors:
            return self.errors[name]
        n_lost = np.count_nonzero(~np.isfinite(self.scores[metric][name]))
        if not n_lost:
            return ""
        where = f"{metric} has no finite value on {n_lost} of {self.n_splits} splits"
        if why := self.score_errors.get((metric, name)):
            return f"{where}: {why}"
        return (
            f"{where}. Does the contestant have the method that it asks for, such as predict_proba, and each split "
            "rows of all classes? A warning above says more."
        )

    def frame(self) -> Any:
        """Make a table of `rows`.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("Comparison.frame needs pandas: pip install pandas, or take rows().") from error
        return pandas.DataFrame(self.rows())

    # ---- what is shown ------------------------------------------------------------------------------------------

    def _title(self) -> str:
        counts = {"contestant": len(self.names), "split": self.n_splits}
        who, where = (f"{count} {what}{'s' if count > 1 else ''}" for what, count in counts.items())
        return f"{who} on {where}, compared with {self.reference}"

    def _caption(self, metric: str) -> str:
        parts = [f"equal within {self.rope[metric]:g}"] if self.rope[metric] else []
        parts += [f"{100 * self.confidence:g} % intervals"] if self.n_splits > 1 else []
        return f"{metric} ({', '.join(parts)})" if parts else metric

    def _remarks(self) -> list[str]:
        failed = {row["contestant"]: row["error"] for row in reversed(self.rows()) if row["error"]}
        remarks = [f"{name}: {error}" for name, error in reversed(failed.items())]
        if self.reference in failed and len(self.names) > 1:
            remarks.append(
                f"Where the reference, {self.reference}, has failed, no differences are known: name another."
            )
        return remarks + self._of_intervals() + self.notes

    def _of_intervals(self) -> list[str]:
        """Explain why a verdict may be "undecided" where an interval leaves out zero."""
        undecided = [row for row in self.rows() if row["verdict"] == "undecided"]
        names = dict.fromkeys(row["contestant"] for row in undecided if row["low"] > 0 or row["high"] < 0)
        if not names:
            return []
        return [
            f"{', '.join(names)}: an interval leaves out zero, and the verdict is undecided: an interval is about one "
            "contestant alone, and Holm's adjustment allows for chance among all of them. More splits may decide."
        ]

    def _cells(self, metric: str) -> list[list[str]]:
        return [list(_SHOWN), *([write(row) for write in _SHOWN.values()] for row in self._rows_of(metric))]

    def __repr__(self) -> str:
        lines = [self._title()]
        for metric in self.metrics:
            cells = self._cells(metric)
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            lines += ["", self._caption(metric)]
            for row in cells:
                padded = (
                    cell.ljust(width) if heading in _WORDS else cell.rjust(width)
                    for cell, width, heading in zip(row, widths, _SHOWN, strict=True)
                )
                lines.append("  " + "  ".join(padded).rstrip())
        remarks = self._remarks()
        return "\n".join([*lines, *([""] if remarks else []), *remarks])

    def _repr_html_(self) -> str:
        parts = [f"<p>{html.escape(self._title())}</p>"]
        for metric in self.metrics:
            heading, *rows = self._cells(metric)
            parts.append(f"<table><caption>{html.escape(self._caption(metric))}</caption><thead>")
            parts += [_html_row(heading, "th"), "</thead><tbody>", *(_html_row(row, "td") for row in rows)]
            parts.append("</tbody></table>")
        remarks = "".join(f"<li>{html.escape(remark)}</li>" for remark in self._remarks())
        return "\n".join([*parts, *([f"<ul>{remarks}</ul>"] if remarks else [])])

    def to_html(self) -> str:
        """Write the tables as a page of their own.

        Returns
        -------
        str
            A whole HTML document, without links to anything outside.
        """
        style = "body{font-family:sans-serif} table{border-collapse:collapse;margin:1em 0} "
        style += "caption{text-align:left;font-weight:bold} td,th{padding:.2em .7em;border-bottom:1px solid #ccc}"
        head = f'<meta charset="utf-8"><title>{html.escape(self._title())}</title><style>{style}</style>'
        return f"<!DOCTYPE html>\n<html><head>{head}</head><body>\n{self._repr_html_()}\n</body></html>\n"


def _html_row(cells: list[str], tag: str) -> str:
    aligned = ("left" if heading in _WORDS else "right" for heading in _SHOWN)
    inside = (
        f'<{tag} style="text-align:{side}">{html.escape(cell)}</{tag}>'
        for side, cell in zip(aligned, cells, strict=True)
    )
    return f"<tr>{''.join(inside)}</tr>"


def _spread(values: np.ndarray) -> float:
    """Compute the standard deviation over the splits; NaN of one."""
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan
