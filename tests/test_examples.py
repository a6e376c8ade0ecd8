"""The gallery: the shape of its scripts, their place in the documentation. One runs here; the site's build runs all."""

import ast
import re
import runpy
import sys
from pathlib import Path

import matplotlib
from helpers import few_images, in_one_test

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
GALLERY = sorted(EXAMPLES.glob("plot_*.py"))
PAGES = [path for path in (ROOT / "docs").rglob("*.rst") if {"auto_examples", "api", "_build"}.isdisjoint(path.parts)]


def test_the_gallery_is_complete():
    numbers = [int(path.name.split("_")[1]) for path in GALLERY]
    assert numbers == list(range(1, 23))


@in_one_test("path", GALLERY)
def test_shape_of_an_example(path):
    text = path.read_text(encoding="utf-8")
    title, underline, empty, introduction = ast.get_docstring(ast.parse(text)).split("\n", 3)
    assert underline == "=" * len(title)
    assert not empty
    assert introduction.strip()
    assert text.count("# %%\n") >= 2, "text and code alternate"
    assert not re.search(r"""["'](/|~|[A-Z]:)""", text), "an absolute path"
    assert "plt.show" not in text, "no display is needed"
    pictures = re.findall(r'savefig\(f?"([^"{]+)', text)
    assert pictures
    number_and_name = path.stem.removeprefix("plot_")
    assert all(picture.startswith(number_and_name[:3]) for picture in pictures)
    assert any(picture == f"{number_and_name}.png" for picture in pictures) or "{" in text


@in_one_test("path", GALLERY)
def test_the_lectures_name_each_example(path):
    """An idea is looked up on that page; what it does not name is about the package, and in the guide."""
    assert any(f"/auto_examples/{path.stem}" in page.read_text(encoding="utf-8") for page in PAGES)


def test_pages_name_only_what_there_is():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"/auto_examples/(plot_\w+)", text):
            assert (EXAMPLES / f"{name}.py").exists(), f"{page.name}: {name}"
        for name in re.findall(r"\btest_\w+\.py", text):
            assert (ROOT / "tests" / name).exists(), f"{page.name}: {name}"


def test_an_example_runs_and_writes_its_picture(tmp_path, monkeypatch):
    """Gradient descent finds better weights than random search."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr("benchmarks.common.load_images", lambda: few_images(1400, 397))
    monkeypatch.setattr(matplotlib, "rcParams", matplotlib.rcParams.copy())
    script = "plot_04_random_search.py"
    monkeypatch.setattr(sys, "argv", [script])
    values = runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    assert (tmp_path / "04_random_search.png").stat().st_size > 10_000
    assert 0.1 < values["random_accuracy"] < 0.5 < values["curve"][-1]
