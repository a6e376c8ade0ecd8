"""The direction of imports, and the size of the files, read from the source."""

import ast
import functools
import re
from pathlib import Path

import pytest

import skdeep

PACKAGE = Path(skdeep.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 450
#: The rooms, from the ground floor up: each imports from those before it only.
ROOMS = (
    "compat engine solvers exact data callbacks fitting estimators model_selection distributed images display "
    "compare logs onnx"
).split()
#: Those that know no estimator.
GROUND = ("engine", "solvers", "exact")


def name_of(path):
    """The room and the file in it: "engine.losses"; "logs" for a file of the package itself."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports_of(path):
    """Dotted names of all that a file imports, wherever in it: ``from a import b`` counts as a.b."""
    above = ["", *reversed([parent.name for parent in path.parents if parent.is_relative_to(PACKAGE)])]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(above[1 : len(above) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (package, node.module) if part)
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


@functools.cache
def imports():
    """What each file of the package imports."""
    return {path: imports_of(path) for path in FILES}


def own_modules(names):
    """Which files of skdeep the imported names come from; what the package itself offers counts as "skdeep"."""
    known = {name_of(path).removesuffix(".__init__") for path in FILES}
    found = set()
    for name in names:
        first, *rest = name.split(".")
        if first == "skdeep":
            found.add(next((own for k in (2, 1) if (own := ".".join(rest[:k])) in known), "skdeep"))
    return found


def third_parties(names):
    return {name.split(".")[0] for name in names}


def test_the_reader_of_imports(tmp_path, monkeypatch):
    """The tests below are only as good as it is."""
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "skdeep")
    path = tmp_path / "skdeep" / "data" / "example.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "from skdeep.engine.losses import Loss\nfrom skdeep.engine import networks\nfrom . import splits\n"
        "from .labels import x\nfrom skdeep.model_selection import stacked\n"
        "def f():\n    import sklearn.base\n    from skorch.callbacks import Callback\n"
    )
    names = imports_of(path)
    assert third_parties(names) == {"skdeep", "sklearn", "skorch"}
    monkeypatch.undo()
    assert own_modules(names) == {
        "engine.losses", "engine.networks", "data.splits", "data.labels", "model_selection"
    }  # fmt: skip
    path.write_text("import skdeep\n")
    assert own_modules(imports_of(path)) == {"skdeep"}
    path.write_text("from skdeep import SoftmaxClassifier\n")
    assert own_modules(imports_of(path)) == {"skdeep"}


def test_rooms():
    assert {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.name != "py.typed"} - {
        "__pycache__", "__init__"
    } == set(ROOMS)  # fmt: skip
    assert len([path for path in FILES if path.parent == PACKAGE]) <= 6


def test_a_room_imports_only_from_those_below():
    for path, names in imports().items():
        if name_of(path) != "__init__":
            allowed = ROOMS[: ROOMS.index(name_of(path).split(".")[0]) + 1]
            assert not {name for name in own_modules(names) if name.split(".")[0] not in allowed}, path


@pytest.mark.parametrize("room", [room for room in ROOMS if (PACKAGE / room).is_dir()])
def test_no_file_of_a_room_imports_what_imports_it(room):
    all_of = {name_of(path): own_modules(names) for path, names in imports().items() if path.parent.name == room}
    inside = {name: found & set(all_of) for name, found in all_of.items()}
    while ready := [name for name, found in inside.items() if not found & set(inside)]:
        inside = {name: found for name, found in inside.items() if name not in ready}
    assert not inside


def test_the_ground_floor_knows_neither_sklearn_nor_skorch():
    floor = {path: names for path, names in imports().items() if path.parent.name in GROUND or path.name == "splits.py"}
    assert len(floor) > 30
    for path, names in floor.items():
        assert not third_parties(names) & {"sklearn", "skorch", "joblib"}, path
        private = {name for name in own_modules(names) if name.startswith("compat")}
        assert private <= {"compat.torch", "compat.scipy"}, path


def test_the_design_names_every_file():
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    text = text[text.index("## The rooms") : text.index("## What happens in a fit")]
    named = re.findall(r"`(\w+)\.py`", text)
    files = [path.stem for path in FILES if path.name != "__init__.py"]
    assert sorted(named) == sorted(files)
    headings = re.findall(r"^### `(\w+)/`", text, re.MULTILINE)
    assert headings == [room for room in ROOMS if (PACKAGE / room).is_dir()]


#: Who may import skorch, which is not imported by ``import skdeep``.
MEET_SKORCH = ["compat.skorch", "callbacks.skorch_host", "callbacks.skorch_observer", "logs"]


def test_only_its_adapter_imports_skorch():
    for path, names in imports().items():
        assert name_of(path) in MEET_SKORCH or "skorch" not in third_parties(names), path
        of_skorch = {name for name in names if name.split(".")[0] == "skorch"}
        assert not [name for name in of_skorch if any(part.startswith("_") for part in name.split("."))], path
        assert "compat.skorch" not in own_modules(names) or name_of(path) == "callbacks.skorch_observer", path


def test_pictures_and_logs_are_for_users():
    for path, names in imports().items():
        if path.parent.name != "display":
            # the command line of comparisons is a user
            for_users = {"logs"} if path.name == "compare.py" else {"display", "logs"}
            assert not {name.split(".")[0] for name in own_modules(names)} & for_users, path
            assert "matplotlib" not in third_parties(names), path
            assert path.name == "logs.py" or "torch.utils.tensorboard.SummaryWriter" not in names, path


def test_matplotlib_is_imported_only_to_draw():
    pictures = [path for path in FILES if path.parent.name == "display"]
    assert len(pictures) > 4
    for path in pictures:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        names = [node.module or "" for node in body if isinstance(node, ast.ImportFrom)]
        names += [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
        assert names and not any(name.split(".")[0] == "matplotlib" for name in names), path


def test_files_stay_short():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {name: length for name, length in lengths.items() if length >= MAX_LINES}


#: What a phrase without a verb in the imperative begins with: an article, a question, a preposition, a noun.
NO_VERB = re.compile(
    r"(The|A|An|All|Any|Some|Each|Every|No|Its|One|This|What|Whether|Which|Who|Whom|Whose|How|Why|Where|When|Of|In|On|By|"
    r"For|From|Up|With|Within|Without|Absent|Mean|Class|Least|Logarithm|Derivative|Evenly|Something|Mini-batch)\b"
    r"|(?!Warn |Tell |Hear )\w+ (of|per)\b"  # "Number of rows"
    r"|[\w-]+('s|[^s]s)\b"  # "Scores before the link", and "Returns ..."
    r"|Give\b"  # a verb, but for whatever it may be
    r"|[^A-Z]"  # a formula
)
#: Chains that a reader has to unwind.
CHAINS = re.compile(r"\b(that|those) of\b|\bmakes of\b")


def docstrings_of(path):
    """Pairs of a node of the file's syntax tree and its docstring, as one line."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield node, " ".join(text.split())


def test_which_beginnings_are_verbs():
    """The test below is only as good as they are."""
    for text in (
        "Number of rows.", "The rows.", "Scores of a batch.", "Whether it fits.", "Rows per step.", "Newton's steps.",
        "Returns a batch.", "Give a batch.", ":math:`x`", "A batch.", "Weight of all rows.", "Up to how many.",
    ):  # fmt: skip
        assert NO_VERB.match(text), text
    for text in (
        "Number the rows.",
        "Pass over the data.",
        "Warn of columns.",
        "Share rows.",
        "Express it.",
        "Add, here.",
    ):
        assert not NO_VERB.match(text), text


def test_docstrings_say_what_is_done_in_plain_words():
    for name, (node, text) in ((name_of(path), found) for path in FILES for found in docstrings_of(path)):
        where = f"{name}, {getattr(node, 'name', 'the file')}: {text[:100]}"
        assert not CHAINS.search(text), where
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
            assert decorators & {"property", "cached_property"} or not NO_VERB.match(text), where
