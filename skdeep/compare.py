"""Compare models on a table, from the command line: ``python -m skdeep.compare data.csv --target y``."""

from __future__ import annotations

import argparse
import sys
import types
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from skdeep.data.conversion import as_plain
from skdeep.model_selection.comparison import Comparison
from skdeep.model_selection.contest import compare
from skdeep.model_selection.contestants import (
    DEFAULTS,
    DEFAULTS_OF_VALUES,
    are_like_values,
    are_values,
    default_contestants,
)
from skdeep.model_selection.table_files import (
    notes_of_classes,
    notes_of_columns,
    read,
    refuse_others,
    without_single_rows,
)

#: Columns of which not all are named, where one is wanted that there is not.
_MANY_COLUMNS = 30


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m skdeep.compare", description="Compare models on a table.")
    parser.add_argument("table", type=Path, help="a file of CSV (with commas, semicolons or tabs) or Parquet")
    parser.add_argument("--target", required=True, help="the column that is to be predicted")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--classes", action="store_true", help="the target is classes, whatever it looks like")
    kinds.add_argument("--values", action="store_true", help="the target is values, also if they are whole numbers")
    parser.add_argument("--encoding", default="utf-8", help="of the text in CSV (default: utf-8)")
    parser.add_argument("--drop", default="", help="columns to leave out, with commas")
    parser.add_argument("--cv", default="5x2", help="folds, or folds x repeats (default: 5x2)")
    parser.add_argument("--scoring", help="scikit-learn's names, with commas (default: two of classes, or of values)")
    names = f"of classes {','.join(DEFAULTS)}; of values {','.join(DEFAULTS_OF_VALUES)}"
    parser.add_argument("--contestants", help=f"some of these, with commas (default: all): {names}")
    parser.add_argument("--reference", help="the contestant that others are compared with (default: the first)")
    parser.add_argument("--rope", type=float, help="the largest difference that makes no difference")
    parser.add_argument("--n-jobs", type=int, help="processes")
    parser.add_argument("--random-state", type=int, default=0, help="seed of the splits (default: 0)")
    parser.add_argument("--out", type=Path, help="write the report as HTML, with pictures if there is matplotlib")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _split_off(table: Any, target: str, dropped: Sequence[str] = ()) -> tuple[Any, Any]:
    """Divide a table into columns and target."""
    for name in (target, *dropped):
        if name not in table.columns:
            names = list(map(str, table.columns))
            shown = names if len(names) <= _MANY_COLUMNS else get_close_matches(name, names, 5, 0)
            which = "there are" if shown is names else f"of {len(names)}, the likest are"
            parted = "" if len(names) > 1 else " Names in CSV are parted by commas, semicolons, tabs or bars."
            raise ValueError(f"There is no column {name!r}; {which} {', '.join(map(repr, shown))}.{parted}")
    table = table.drop(columns=[name for name in dropped if name != target])
    if table.shape[1] < 2 or not len(table):
        raise ValueError(
            f"Beside {target!r}, the table has {table.shape[1] - 1} columns, and {len(table)} rows with a target. "
            "There must be a column to learn from, and rows: name another --target, or fewer columns in --drop."
        )
    y = table[target]
    return table.drop(columns=target), y.infer_objects()  # without its gaps, it may be booleans


def _splitter(text: str, random_state: int, of_values: bool) -> Any:
    """Make a splitter of "5" or "5x2"."""
    from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold

    folds, _, repeats = text.partition("x")
    if not folds.isdigit() or (repeats and not repeats.isdigit()) or int(folds) < 2 or repeats == "0":
        raise ValueError(f"--cv must be folds, such as 5, or folds x repeats, such as 5x2; got {text!r}.")
    form = RepeatedKFold if of_values else RepeatedStratifiedKFold
    return form(n_splits=int(folds), n_repeats=int(repeats or 1), random_state=random_state)


def _target(y: Any, options: argparse.Namespace) -> tuple[Any, bool]:
    """Take a target as what it is said to be, or looks like; tell whether it is values."""
    y = as_plain(y)  # where a value was missing, pandas has objects
    if options.classes:
        return (y.astype(str) if are_values(y) else y), False
    if not options.values:
        return y, are_values(y)
    try:
        return y.astype(float), True
    except (ValueError, TypeError) as error:
        raise ValueError(f"--values, and {options.target!r} is not numbers: {error}.") from error


def _compared(options: argparse.Namespace) -> tuple[Comparison, list[str]]:
    """Compare what is asked for; say as well what is to be known of the table."""
    if options.out is not None and not options.out.parent.is_dir():
        raise ValueError(f"There is no folder {options.out.parent} for the report.")
    table, notes = read(options.table, options.encoding, options.target)
    _say(notes)  # also where the rest has an error
    X, y = _split_off(table, options.target, [name for name in options.drop.split(",") if name])
    refuse_others(X, y)
    y, of_values = _target(y, options)
    cv = _splitter(options.cv, options.random_state, of_values)
    names = None if options.contestants is None else options.contestants.split(",")
    more: list[str] = []
    if not of_values:
        X, y, more = without_single_rows(X, y)
    contestants = default_contestants(X, y, names, of_values)
    more += [*notes_of_columns(X), *([] if of_values else notes_of_classes(y, cv.get_n_splits() // cv.n_repeats))]
    if of_values and not options.values and are_like_values(y):
        more.append(
            f"The target has {y.nunique()} different whole numbers, taken as values. If they are classes: --classes"
        )
    _say(more)
    if not options.quiet:
        what = "values" if of_values else f"{y.nunique()} classes"
        print(f"{len(X)} rows, {X.shape[1]} columns, {what}, {cv.get_n_splits()} splits", file=sys.stderr)
    scoring = options.scoring or ("r2,neg_mean_absolute_error" if of_values else "accuracy,neg_log_loss")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # of which a note tells
        found = compare(
            contestants,
            X,
            y,
            cv=cv,
            scoring=scoring.split(","),
            reference=options.reference,
            rope=options.rope,
            n_jobs=options.n_jobs,
            verbose=0 if options.quiet else 1,
        )
    return found, notes + more


def _say(notes: Sequence[str]) -> None:
    for note in notes:
        print(note, file=sys.stderr)


def _report(found: Comparison) -> str:
    """Write tables and, where there is matplotlib, a picture of the differences in each metric."""
    page = found.to_html()
    if len(found.names) < 2 or find_spec("matplotlib") is None:
        return page
    from skdeep.display.comparison import as_svg

    body, end = page.rsplit("</body>", 1)
    return f"{body}{''.join(as_svg(found, metric) for metric in found.metrics)}</body>{end}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, default=None
        None takes what the process was called with.

    Returns
    -------
    int
        0, or 1 after an error, whose message it prints.
    """
    options = _parser().parse_args(arguments)
    try:
        found, notes = _compared(options)
        print(found)
        if options.out is not None:
            found.notes += notes  # which stand in the terminal already
            options.out.write_text(_report(found), encoding="utf-8")
    except (ValueError, TypeError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


class _Callable(types.ModuleType):
    """The module, which stands in for the function where somebody has imported it by name."""

    def __call__(self, *args: Any, **options: Any) -> Comparison:
        return compare(*args, **options)


if __name__ == "__main__":
    raise SystemExit(main())
sys.modules[__name__].__class__ = _Callable
