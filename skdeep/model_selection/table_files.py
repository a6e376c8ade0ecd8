"""Tables in files, as a command line gets them: how they are read, and what to say of their columns."""

from __future__ import annotations

import datetime
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: What may stand between the columns of a text file.
_SEPARATORS = ",;\t|"
#: Numbers by their decimal sign: what parts thousands, what decimals, and what both look like together.
_WRITTEN = {
    "comma": (".", ",", r"[+-]?(\d+|[1-9]\d{0,2}(\.\d{3})+)(,\d+)?"),
    "point": (",", ".", r"[+-]?(\d+|[1-9]\d{0,2}(,\d{3})+)(\.\d+)?"),
}
#: A number that is a name.
_CODE = r"0\d+"
#: What may stand around a number, or part its thousands, and says nothing of it; a unit, if it is one for all; a date.
_AROUND = r"^(?:[$€£¥]|(?:USD|EUR|GBP|CHF|JPY)(?=[\s\d+-]))\s?|\s?[$€£¥%]$|(?<=\d)[ '\u00a0\u202f](?=\d{3})"
#: What is not the same number beside another of these.
_MONEY = r"([$€£¥]|^[A-Z]{3}(?=[\s\d+-]))"
_UNIT = r"(?<=[\d.,])\s?([^\W\d_]\D*\d?|°.*)$"
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = (
    rf"(?i)(\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}|\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{4}}"
    rf"|\d{{1,2}}\.?[ -]{_MONTH}[ ,-]+\d{{2,4}}|{_MONTH} \d{{1,2}},? \d{{4}}).*"
)
_CLOCK = r"(?i)\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[ap]m)?"
#: Dates and times that are objects.
_DATES = datetime.date, datetime.time, datetime.timedelta
#: What is neither names nor numbers.
_TIMES, _SEVERAL = "dates or durations", "several values in a row"
#: How many values of a column are looked at.
_LOOKED_AT = 1000
#: What stands beside the digits of numbers: thousands, shares, money.
_MARKS = r"[\s,'%$€£]"
#: Classes from which numbers may be values after all.
_MANY_CLASSES = 20


def read(path: Path, encoding: str = "utf-8", target: str | None = None) -> tuple[Any, list[str]]:
    """Read the rows of a table that have a target; raise an error that says what is missing.

    Say which rows were left out, and which texts were taken as numbers.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("Tables are read by pandas: pip install pandas.") from error
    if not path.exists():
        raise ValueError(f"There is no file {path}.")
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if ".parquet" in suffixes or ".pq" in suffixes:
        return _with_target(pandas.read_parquet(path), target, None)
    if not {".csv", ".tsv", ".txt"} & set(suffixes):
        raise ValueError(f"{path} is named neither .csv, .tsv, .txt nor .parquet.")
    try:
        (heading,) = pandas.read_csv(path, sep="\x00", header=None, nrows=1, encoding=encoding, dtype=str).iloc[0]
        separator = max(_SEPARATORS, key=str(heading).count)
        options: dict[str, Any] = {"sep": separator, "encoding": encoding, "skipinitialspace": True}
        headings = pandas.read_csv(path, header=None, nrows=1, dtype=str, **options).iloc[0].str.strip()
        table = pandas.read_csv(path, **options)
        if separator != "," and any(_has_decimal_commas(table[name]) for name in table.columns):
            table = pandas.read_csv(path, decimal=",", **options)
        if not table.index.equals(pandas.RangeIndex(len(table))):  # pandas has moved all columns by what is too much
            n_fields = len(headings) + table.index.nlevels
            raise pandas.errors.ParserError(f"Expected {len(headings)} fields, saw {n_fields}")
    except pandas.errors.EmptyDataError as error:
        raise ValueError(f"{path} is empty. It must have a heading, and lines below.") from error
    except (UnicodeError, LookupError) as error:
        raise ValueError(f"{path} is not text in {encoding} ({error}). Try --encoding latin-1, or utf-16.") from error
    except pandas.errors.ParserError as error:
        raise ValueError(
            f"{path} is not read as a table: {str(error).strip()}. Its first line must be the heading, and each line "
            "below have as many fields. Remove lines above the heading, such as titles and comments."
        ) from error
    if twice := headings[headings.duplicated() & headings.notna()].tolist():
        names = ", and others ".join(map(repr, dict.fromkeys(twice)))
        raise ValueError(f"Several columns of {path} are named {names}: a column is known by its name. Rename them.")
    table.columns = table.columns.astype(str).str.strip()
    texts = None
    if target in table.columns and table[target].isna().any():
        # all columns, else pandas does not take numbers of rows, which have no heading, apart
        texts = pandas.read_csv(path, keep_default_na=False, dtype=str, **options).iloc[:, table.columns == target]
    table = _with_codes(table, lambda **more: pandas.read_csv(path, dtype=str, **options, **more))
    table, notes = _with_target(table, target, texts)
    for name in table.columns:
        texts = _texts(table[name])
        found = _numbers_of(table[name], separator != ",") if len(texts) else None
        if found is not None:
            shown = max(texts, key=len)
            number = found[texts.index[texts == shown][0]]
            notes.append(f"{name}: numbers, of text such as {shown!r}, which is {number:.12g}.")
            table[name] = found
    if all(_is_number(str(name)) for name in table.columns):
        notes.append("All headings are numbers: if the first line of the file is data, put a line of names above it.")
    return table, notes


def _with_codes(table: Any, texts_of: Callable[..., Any]) -> Any:
    """Take numbers that begin with a zero, such as postal codes, as the names that they are."""
    texts = texts_of(nrows=_LOOKED_AT)
    for number, kind in enumerate(table.dtypes):
        if kind.kind in "iuf" and texts.iloc[:, number].str.fullmatch(_CODE).any():
            table[table.columns[number]] = texts_of(usecols=[number]).iloc[:, 0]
    return table


def _with_target(table: Any, target: str | None, texts: Any) -> tuple[Any, list[str]]:
    """Leave out rows without a target, with a word, which says the texts that were taken for none."""
    if target not in table.columns or (known := table[target].notna()).all():
        return table, []
    note = f"{int((~known).sum())} rows without {target} are left out"
    stood = [] if texts is None else sorted({str(text).strip() for text in texts.to_numpy()[~known, 0]} - {""})
    if stood:
        note += f", also those where it is {', '.join(map(repr, stood))}: if that is a class, give it another name"
    return table[known], [f"{note}."]


def _texts(column: Any) -> Any:
    """Take the first texts of a column of texts; none of any other."""
    found = column.dropna().iloc[:_LOOKED_AT]
    may_be = str(column.dtype).lower().startswith(("object", "str", "string"))
    return found[[isinstance(value, str) for value in found]] if may_be else found.iloc[:0]


def _has_decimal_commas(column: Any) -> bool:
    texts = _texts(column)
    return bool(len(texts) and texts.str.fullmatch(_WRITTEN["comma"][2]).all())


def _numbers_of(column: Any, are_commas_decimal: bool) -> Any:
    """Make numbers of a column of texts, if all are written in one way, the likelier one first; None if not."""
    texts = column.str.strip().str.replace("\N{MINUS SIGN}", "-")
    if texts.str.extract(_MONEY, expand=False).nunique() > 1:
        return None
    texts = texts.str.replace(_AROUND, "", regex=True)
    if texts.str.fullmatch(_CODE).any():
        return None
    units = texts.str.extract(_UNIT, expand=False).str.strip()
    kinds_of_units = units.str.replace("M", "mega").str.lower().nunique()  # "KG" is "kg", and "MW" is not "mW"
    if units.notna().sum() == texts.notna().sum() and kinds_of_units == 1:
        texts = texts.str.replace(_UNIT, "", regex=True)
    known, kinds = texts.dropna(), ("comma", "point") if are_commas_decimal else ("point", "comma")
    for thousands, decimal, pattern in (_WRITTEN[kind] for kind in kinds):
        if known.str.fullmatch(pattern).all():
            plain = known.str.replace(thousands, "", regex=False).str.replace(decimal, ".", regex=False)
            return plain.astype(float).reindex(column.index)
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def notes_of_columns(X: Any) -> list[str]:
    """Say which columns are likely not meant as they are taken."""
    import pandas

    dates = [name for name in X.columns if len(texts := _texts(X[name])) and texts.str.fullmatch(_DATE).all()]
    notes, numbers = [], row_numbers(X.drop(columns=dates))
    if numbers:
        notes.append(
            f"{', '.join(numbers)}: another value in each row, which says nothing of other rows. Leave such columns "
            f"out: --drop {shlex.quote(','.join(numbers))}"
        )
    for name in X.columns:
        if str(X[name].dtype).lower().startswith("float") and (n_infinite := int(X[name].abs().eq(math.inf).sum())):
            rows = "a row" if n_infinite == 1 else f"{n_infinite} rows"
            notes.append(f"{name}: infinite in {rows}, which most contestants refuse. Leave it empty there.")
        texts = _texts(X[name])
        if str(name) in numbers or not len(texts):
            continue
        if name in dates:
            notes.append(
                f"{name}: dates, taken as names. Take what matters as numbers, the year or days since a date, or leave "
                f"them out: --drop {shlex.quote(str(name))}. Splits are random: models see rows of later dates than "
                "those that they are judged by."
            )
            continue
        if texts.str.fullmatch(_CLOCK).all():
            notes.append(f"{name}: times of day, taken as names. Take what matters as numbers, such as the hour.")
            continue
        bare = texts.str.strip().str.replace(_UNIT, "", regex=True).str.replace(_MARKS, "", regex=True)
        are_numbers = pandas.to_numeric(bare, errors="coerce").notna()
        if are_numbers.mean() > 0.5:
            other = "" if are_numbers.all() else f", but for {texts[~are_numbers].iloc[0]!r} and the like"
            notes.append(f"{name}: text of numbers{other}, taken as names. Make numbers of it, if they are.")
    return notes


def refuse_others(X: Any, y: Any) -> None:
    """Raise where columns, or the target, are dates or durations, and not text of these, or lists."""
    if (what := _other(y)) is not None:
        raise ValueError(f"The target {y.name!r} has {what}. It must have a class, or a number, in each row.")
    others = {str(name): _other(X[name]) for name in X.columns}
    found, several = ([name for name, what in others.items() if what == kind] for kind in (_TIMES, _SEVERAL))
    if several:
        raise ValueError(
            f"There are {_SEVERAL} of {', '.join(map(repr, several))}. Make a column of each, or leave "
            f"them out: --drop {shlex.quote(','.join(several))}"
        )
    if found:
        raise ValueError(
            f"There are {_TIMES} in {', '.join(map(repr, found))}. Take what matters as numbers, the year or "
            f"days since a date, or leave them out: --drop {shlex.quote(','.join(found))}"
        )


def _other(column: Any) -> str | None:
    """Say what is in a column that is neither names nor numbers; None of any other."""
    kind, values = str(column.dtype).lower(), column.dropna().iloc[:_LOOKED_AT]
    if kind.startswith(("date", "time", "period")) or any(isinstance(value, _DATES) for value in values):
        return _TIMES
    return _SEVERAL if any(getattr(value, "__hash__", None) is None for value in values) else None


def row_numbers(X: Any) -> list[str]:
    """Name the columns that number the rows, or name each of them."""
    found = []
    for name in X.columns:
        column = X[name]
        if len(column) > 2 and column.is_unique:
            kind = str(column.dtype).lower()
            counts = kind.startswith(("int", "uint")) and column.diff().iloc[1:].gt(0).all()
            if counts or not kind.startswith(("int", "uint", "float", "bool", "date")):
                found.append(str(name))
    return found


def without_single_rows(X: Any, y: Any) -> tuple[Any, Any, list[str]]:
    """Leave out rows that are the only ones of their class, with a word, if there are two other classes."""
    single = y.map(y.value_counts()) == 1
    if not single.any() or y[~single].nunique() < 2:
        return X, y, []
    rows = "1 row is left out," if single.sum() == 1 else f"{single.sum()} rows are left out, each"
    name = y[single].tolist()[0]
    note = f"{rows} the only one of a class, such as {name!r}: what is learnt of it is not judged."
    return X[~single], y[~single], [note]


def notes_of_classes(y: Any, n_folds: int) -> list[str]:
    """Say which classes are too few rows, or whether they may be none; raise an error if there is but one."""
    counts, notes = y.value_counts(), []
    counts = counts[counts > 0]  # categories may have no rows
    if len(counts) < 2:
        raise ValueError(
            f"The target has one value, {y.iloc[:1].tolist()[0]!r}, in all {len(y)} rows: there is nothing to learn."
        )
    if len(counts) > _MANY_CLASSES and str(y.dtype).lower().startswith(("int", "uint", "float")):
        notes.append(f"The target has {len(counts)} different numbers, taken as classes. If they are values: --values")
    if counts.iloc[0] < n_folds:
        first = counts.index.tolist()[0]
        what = notes[0] if notes else f"The target has {len(counts)} different values, such as {first!r}."
        raise ValueError(f"No class has a row for each of {n_folds} folds. {what}")
    if counts.iloc[1] == 1:
        raise ValueError(
            f"Only one class of the target, {counts.index.tolist()[0]!r}, has more than one row: what is learnt of "
            "others cannot be judged."
        )
    names = [name for name in counts.index if isinstance(name, str)]
    alike = {name.strip().casefold(): name for name in names}
    for name in names:
        if (other := alike[name.strip().casefold()]) != name:
            notes.append(f"{name!r} and {other!r} are two classes of the target. If they are one, name it alike.")
    rare = counts[counts < n_folds]
    if len(rare):
        notes.append(
            f"Fewer rows than folds ({n_folds}) are of {len(rare)} of {len(counts)} classes, such as "
            f"{rare.index.tolist()[-1]!r}: some splits lack them, and areas under curves have no value there. Leave "
            "out such rows, or use fewer folds (--cv)."
        )
    return notes
