"""Odd tables, as the command line of comparisons gets them."""

import datetime
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import skdeep.compare
from skdeep import compare
from skdeep.model_selection.table_files import (
    notes_of_classes,
    notes_of_columns,
    read,
    refuse_others,
    without_single_rows,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
NUMBERS = [1234.5, -0.25, np.nan, 1234567.0, 12.0]


def written(tmp_path, text, **options):
    (tmp_path / "data.csv").write_text(text, **options)
    return tmp_path / "data.csv"


@pytest.mark.parametrize(
    "text",
    [
        'a,n\nx,"1,234.50"\nx,-0.25\nx,\nx,"1,234,567"\nx,12\n',
        "a;n\nx;1.234,50\nx;-0,25\nx;\nx;1.234.567\nx;12\n",
        "a\tn\nx\t1 234,50\nx\t-0,25\nx\t\nx\t1 234 567\nx\t12\n",
        "a,n\nx,$1234.5\nx,\N{MINUS SIGN}0.25\nx,\nx,1234567 $\nx,12 %\n",
        'a,n\nx,"1234,5"\nx,"-0,25"\nx,\nx,"1234567,0"\nx,12\n',
        "a,n\nx,1234.5 kg\nx,-0.25 kg\nx,\nx,1234567.0kg\nx, 12 KG\n",
        'a,n\nx,"1,234.5 m2"\nx,-0.25 m2\nx,\nx,"1,234,567 m2"\nx,12m2\n',
        "a , n\n x, 1234.5 °C\nx, -0.25 °C\nx,\nx, 1234567 °C\nx, 12 °C\n",
    ],
)
def test_text_that_is_numbers_in_all_rows_is_taken_so(text, tmp_path):
    table, (note,) = read(written(tmp_path, text, encoding="utf-8"))
    np.testing.assert_array_equal(table["n"], NUMBERS)
    assert note.startswith("n: numbers, of text such as '1") and note.endswith("which is 1234567.")
    assert list(table["a"]) == ["x"] * 5


def test_currencies_are_no_part_of_numbers(tmp_path):
    text = "a;n\nx;USD 1.234,50\nx;USD-0,25\nx;\nx;USD 1.234.567\nx;USD 12\n"
    table, (note,) = read(written(tmp_path, text))
    np.testing.assert_array_equal(table["n"], NUMBERS)
    assert note == "n: numbers, of text such as 'USD 1.234.567', which is 1234567."


@pytest.mark.parametrize(
    "values",
    [
        ["1,234", "12,34,5", "1"],
        ["1.5", "2", "?"],
        ["01.02.2021", "11.12.2020", "1"],
        ["$", "%", "1"],
        ["1 kg", "2 g", "3 kg"],
        ["1 MW", "2 mW", "3 mW"],
        ["$1", "2 €", "3"],
        ["USD 1", "EUR 2", "USD 3"],
        ["SKU 1", "SKU 2", "SKU 3"],
    ],
)
def test_text_that_is_no_number_somewhere_stays(values, tmp_path):
    pd.DataFrame({"a": values, "b": 1}).to_csv(tmp_path / "data.csv", index=False)
    table, notes = read(tmp_path / "data.csv")
    assert list(table["a"]) == values and not notes


def test_a_line_of_totals_has_no_target_and_leaves_columns_numbers(tmp_path):
    table, (left_out, numbers) = read(written(tmp_path, "a,y\n1.5,0\n2,1\nTotal,\n"), target="y")
    assert left_out == "1 rows without y are left out."
    assert numbers.startswith("a: numbers, of text such as '1.5'")
    np.testing.assert_array_equal(table["a"], [1.5, 2])


def test_numbers_of_rows_without_a_heading_are_no_columns(tmp_path):
    """As R writes them: the text of a target is beside its column, not at its place among the fields."""
    table, (left_out,) = read(written(tmp_path, "a,y\n0,1.5,NA\n1,2,x\n2,3,z\n"), target="y")
    assert left_out.startswith("1 rows without y are left out, also those where it is 'NA'")
    assert table.columns.tolist() == ["a", "y"] and table["y"].tolist() == ["x", "z"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([datetime.date(2020, 1, 1), None], "dates or durations in 'x'"),
        ([None, np.arange(2)], "several values in a row of 'x'. Make a column of each, or leave them out: --drop x"),
        ([{"a": 1}, None], "several values in a row of 'x'"),
    ],
)
def test_columns_of_objects_that_are_no_names_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        refuse_others(pd.DataFrame({"n": [1, 2], "x": values}), pd.Series([0, 1]))
    of_target = f"The target 'y' has {'dates' if 'dates' in message else 'several'} .*. It must have a class"
    with pytest.raises(ValueError, match=of_target):
        refuse_others(pd.DataFrame({"n": [1, 2]}), pd.Series(values, name="y"))


def test_classes_that_differ_by_their_case_or_spaces_are_named():
    (first, second) = notes_of_classes(pd.Series(["yes", "no", "Yes", "no "] * 5), 5)
    assert "'yes'" in first and "'Yes'" in first and "are two classes of the target" in first
    assert "'no'" in second and "'no '" in second


def test_a_heading_of_numbers_may_be_data(tmp_path):
    table, (note,) = read(written(tmp_path, "1,2.5,0\n3,4,1\n"))
    assert note.startswith("All headings are numbers") and len(table) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# title\n# more\na,b,y\n1,2,0\n1,2,1\n", "is not read as a table: "),
        (
            "a,y\n" + "".join(f"{i},name {i}\n" for i in range(9)),
            "No class has a row for each of 5 folds. The target has 9",
        ),
        ("a,b,a ,y\n1,2,3,0\n1,2,3,1\n", "data.csv are named 'a': a column"),
        ("a,b,a ,y,y\n1,2,3,0,1\n1,2,3,1,0\n", "data.csv are named 'a', and others 'y': a column"),
        ("", "is empty. It must have"),
        ("a,y\n", "0 rows with a target. There must be a column to learn from, and rows: name"),
        ("a,y\n1,\n2,\n", "0 rows with a target. There must be"),
        ("a b y\n1 2 0\n", "there are 'a b y'. Names in CSV are parted by commas, semicolons, tabs or bars."),
        (
            "a,y\n1,NA\n2,\n3,null\n4,EU\n5,EU\n",
            "3 rows without y are left out, also those where it is 'NA', 'null': if that is a class, give it another",
        ),
        (",".join(f"column{i}" for i in range(40)) + "\n" + "1," * 39 + "1\n", "of 40, the likest are "),
    ],
)
def test_the_command_line_says_what_is_wrong_with_a_table(text, message, tmp_path, capsys):
    assert skdeep.compare.main([str(written(tmp_path, text)), "--target", "y", "--quiet"]) == 1
    assert message in capsys.readouterr().err


def test_booleans_with_gaps_are_classes_and_notes_are_in_the_report(tmp_path, capsys):
    frame = pd.DataFrame({"x": X[:, 0], "price": [f"{10 + v:.2f} €" for v in X[:, 1]], "y": X[:, 0] > 0})
    frame["y"] = frame["y"].astype(object).where(np.arange(60) % 9 > 0, None)
    frame.to_csv(tmp_path / "data.csv", index=False)
    options = ["--target", "y", "--contestants", "logreg,dummy", "--cv", "3", "--out", str(tmp_path / "report.html")]
    assert skdeep.compare.main([str(tmp_path / "data.csv"), *options]) == 0
    printed = capsys.readouterr()
    assert "price: numbers, of text such as" in printed.err and "price" not in printed.out
    assert "53 rows, 2 columns, 2 classes" in printed.err
    assert "price: numbers, of text such as" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_decimal_points_beside_decimal_commas_do_not_part_thousands(tmp_path):
    table, (note,) = read(written(tmp_path, "x\ty\n-0.736\t1,5\n0.250\t2,5\n1.234\t0,5\n"))
    assert table["x"].tolist() == [-0.736, 0.25, 1.234] and "which is -0.736" in note
    table, _ = read(written(tmp_path, "x\ty\n7.736\t1,5\n10.250\t2,5\n1.234\t0,5\n"))
    assert table["x"].tolist() == [7736, 10250, 1234] and table["y"].tolist() == [1.5, 2.5, 0.5]


def test_numbers_that_begin_with_a_zero_are_names(tmp_path):
    table, _ = read(written(tmp_path, "code,n,y\n00501,0,01\n,5,02\n90210,0.5,01\n90210,5,02\n"), "utf-8", "y")
    assert table["code"].dropna().tolist() == ["00501", "90210", "90210"]
    assert table["y"].tolist() == ["01", "02"] * 2 and table["n"].tolist() == [0, 5, 0.5, 5]
    (note,) = notes_of_columns(table[["code", "n"]])
    assert note.startswith("code: text of numbers, taken as names")


def test_the_only_row_of_a_class_is_left_out(tmp_path, capsys):
    frame = pd.DataFrame({"x": X[:, 0], "y": np.where(np.arange(60) == 7, "none", np.where(X[:, 0] > 0, "yes", "no"))})
    frame.to_csv(tmp_path / "data.csv", index=False)
    options = ["--target", "y", "--contestants", "logreg,dummy", "--cv", "3"]
    assert skdeep.compare.main([str(tmp_path / "data.csv"), *options]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("1 row is left out, the only one of a class, such as 'none'")
    assert "59 rows, 1 columns, 2 classes" in printed.err and "failed" not in printed.out


def test_only_classes_that_have_rows_are_spoken_of():
    y = pd.Series([1.0, 2.0] * 20 + [3.0, 4.0])
    for target in (y, y.astype(pd.CategoricalDtype([1.0, 2.0, 3.0, 4.0, 5.0]))):
        X, left, (note,) = without_single_rows(pd.DataFrame({"x": np.arange(42)}), target)
        assert note.startswith("2 rows are left out, each the only one of a class, such as 3.0")
        assert len(X) == len(left) == 40
        assert notes_of_classes(left, 5) == []


def test_numbers_of_several_units_are_named():
    (note,) = notes_of_columns(pd.DataFrame({"weight": ["1 kg", "20 g", "3 kg"] * 2}))
    assert note.startswith("weight: text of numbers, taken as names")


@pytest.mark.parametrize("form", ["%d %b %Y", "%d-%B-%y", "%B %d, %Y", "%b %d %Y", "%d. %B %Y", "%Y-%m-%dT%H:%M"])
def test_dates_are_named_however_they_are_written(form):
    days = pd.Series(pd.date_range("2024-01-25", periods=30, freq="17D")).dt.strftime(form)
    (note,) = notes_of_columns(pd.DataFrame({"day": [*days[:-1], None] * 2, "b": 1}))
    assert note.startswith("day: dates, taken as names")


@pytest.mark.parametrize("form", ["%H:%M", "%H:%M:%S", "%I:%M %p"])
def test_times_of_day_are_named(form):
    times = pd.Series(pd.date_range("2024-01-25", periods=30, freq="37min")).dt.strftime(form)
    (note,) = notes_of_columns(pd.DataFrame({"at": [*times, *times], "b": 1, "c": ["May 5", "march"] * 30}))
    assert note.startswith("at: times of day, taken as names")


def test_scores_that_are_large_have_fewer_decimals():
    mae, r2 = {"a": [-15821.36, -15800.0], "b": [-15900.5, -15880.0]}, {"a": [0.5, 0.6], "b": [0.55, 0.61]}
    text = repr(
        compare({name: {"test_mae": np.array(mae[name]), "test_r2": np.array(r2[name])} for name in "ab"}, cv=2)
    )
    assert "-15811  " in text and "-15890" in text and "0.5500" in text, text


def test_infinite_values_and_rare_classes_are_named():
    (infinite,) = notes_of_columns(pd.DataFrame({"a": [1.0, np.inf, -np.inf], "b": [0.0, 0.0, np.nan]}))
    assert infinite.startswith("a: infinite in 2 rows")
    (rare,) = notes_of_classes(pd.Series(["a"] * 5 + ["b"] * 2), 5)
    assert "'b'" in rare and "areas under curves" in rare
    with pytest.raises(ValueError, match="Only one class of the target, 'a', has more than one row"):
        notes_of_classes(pd.Series(["a"] * 5 + ["b"]), 5)


def test_a_reference_that_has_failed_is_named():
    class Failing(LogisticRegression):
        def fit(self, X, y):
            raise RuntimeError("no.")

    y = np.arange(60) % 2
    found = compare({"failing": Failing(), "dummy": DummyClassifier()}, X, y, cv=3)
    assert "Where the reference, failing, has failed, no differences are known: name another." in repr(found)
    found = compare({"dummy": DummyClassifier(), "failing": Failing()}, X, y, cv=3)
    assert "name another" not in repr(found)


@pytest.mark.parametrize("kind", ["int64", "float64", "Int64", "Float64"])  # the last two are pandas' own
def test_a_log_loss_is_known_where_test_rows_lack_a_class(kind):
    y = np.where(X[:, 0] > 0, 1, 0)
    y[[4, 9, 14]] = 2
    model = LogisticRegression()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the class of few rows
        splits = list(skdeep.compare._splitter("5", 0, False).split(X, y))
    assert sum((y[test] == 2).any() for _, test in splits) == 3
    found = compare({"logreg": model}, X, pd.Series(y, dtype=kind), cv=splits, scoring=["neg_log_loss", "accuracy"])
    expected = [
        -log_loss(y[test], model.fit(X[train], y[train]).predict_proba(X[test]), labels=model.classes_)
        for train, test in splits
    ]
    np.testing.assert_allclose(found.scores["neg_log_loss"]["logreg"], expected, rtol=1e-12)
