"""Figures of the documents are those of the results, and stand nowhere else; each decision says what it rests on."""

import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from helpers import in_one_test
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs"))
figures = importlib.import_module("figures")

PAGES = figures.pages()
DECISIONS = [page for page in sorted((ROOT / "docs" / "decisions").glob("*.rst")) if page.stem != "index"]
#: Seconds, megabytes, ratios of times; accuracies and losses, which have four digits.
MEASURED = re.compile(r"\d (?:m?s|[KMG]B|seconds|milliseconds|times)\b|(?<![\w.])0?\.\d{4}\b")


def named(page):
    """The figures of a page."""
    return [match.group(2) for match in figures.blocks(page.suffix).finditer(page.read_text(encoding="utf-8"))]


@pytest.fixture
def results(tmp_path):
    """A copy of the results, to be changed."""
    return Path(shutil.copytree(figures.RESULTS, tmp_path / "results"))


@in_one_test("page", PAGES)
def test_a_page_says_what_the_results_say(page):
    text = page.read_text(encoding="utf-8")
    start, end = figures.MARKS[page.suffix]
    assert text.count(start.split("NAME")[0]) == text.count(end) == len(named(page)), "a mark without its other one"
    assert figures.updated(text, page.suffix) == text, "run docs/figures.py"


def test_each_figure_has_a_page_and_the_first_pages_agree():
    assert {name for page in PAGES for name in named(page)} == set(figures.FIGURES)
    assert named(ROOT / "README.md") == named(ROOT / "docs" / "index.rst")


@pytest.mark.parametrize("name", figures.FIGURES)
@pytest.mark.parametrize("suffix", figures.MARKS)
def test_a_figure_follows_the_results(name, suffix, results):
    """Every number of a newer file than all others arrives on the page."""
    before = figures.FIGURES[name](results, suffix)
    for path in list(results.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        result["date"] = "2031-02-03"
        for row in result["table"]:
            row.update({key: "1234.5" for key in list(row)[1:] if key not in ("library", "best n_jobs")})
            row.update({key: 1234.5 for key in row if "seconds" in key})
        new = re.sub(r"\d{4}-\d\d-\d\d", "2031-02-03", path.name)
        path.with_name(new).write_text(json.dumps(result), encoding="utf-8")
    after = figures.FIGURES[name](results, suffix)
    assert "3 February 2031" in after.replace("\n", " ") and "3 February 2031" not in before
    table = after.split("\n\n", 1)[-1]
    assert re.search(r"\b123[45]", table) and not re.search(r"\d\.\d\d\d", table)


def test_results_that_are_missing_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no quickstart-<date>\.json"):
        figures.FIGURES["quickstart"](tmp_path, ".md")


def test_figures_in_a_list_keep_their_indentation():
    start, end = figures.MARKS[".md"]
    text = f"- A claim.\n\n  {start.replace('NAME', 'quality')}\n  {end}\n\n- Another.\n"
    once = figures.updated(text, ".md")
    assert all(line.startswith(("  ", "- ")) for line in once.splitlines() if line)
    assert figures.updated(once, ".md") == once


@in_one_test("page", PAGES)
def test_measurements_stand_in_figures_or_on_the_page_of_a_decision(page):
    if page in DECISIONS:
        return
    text = figures.blocks(page.suffix).sub("", page.read_text(encoding="utf-8"))
    prose = re.sub(r"```.*?```|^ *>>>.*?$|^    .*?$|``.*?``|`.*?`", "", text, flags=re.DOTALL | re.MULTILINE)
    assert not MEASURED.findall(prose)


def test_what_counts_as_a_measurement():
    found = ["takes 4.1 s", "adds 78 MB", "in 0.36 seconds", "is 2 times as long", "has .8784 and", "ends at 0.9711"]
    assert all(MEASURED.search(text) for text in found)
    assert not any(
        MEASURED.search(text) for text in ("10⁷ multiply-adds", "8 x 8 images", "0.003", "Python 3.11", "2 sets")
    )


@in_one_test("page", DECISIONS)
def test_a_decision_says_what_it_rests_on(page):
    text = page.read_text(encoding="utf-8")
    fields = dict(re.findall(r"^:(\w+): (.+(?:\n {4}.+)*)", text, re.MULTILINE))
    assert list(fields) == ["Question", "Verdict", "Date", "Script"]
    assert "?" in fields["Question"]
    assert re.search(r"\b\d{1,2}( and \d{1,2})? \w+ 20\d\d\b", fields["Date"])
    scripts = re.findall(r"``((?:examples|tests)/[\w/]+\.py)``", fields["Script"])
    assert scripts or fields["Script"].startswith("none is kept")
    assert all((ROOT / script).exists() for script in scripts)
    assert f"\n    {page.stem}\n" in (page.parent / "index.rst").read_text(encoding="utf-8") + "\n"
    assert f"(docs/decisions/{page.name})" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("picture", "names"),
    [("quickstart.png", ["quickstart"]), ("benchmarks.png", ["search_time-images", "time_to_quality-linear"])],
)
def test_a_picture_shows_the_newest_results(picture, names):
    """The scripts write what they draw into the picture's description."""
    with Image.open(ROOT / "docs" / picture) as image:
        drawn = json.loads(image.text["Description"])
    tables = [figures.newest(name)["table"] for name in names]
    assert drawn == (tables if len(names) > 1 else tables[0])
