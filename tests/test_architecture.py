"""The direction of imports, and the size of the files, read from the source."""

import ast
from pathlib import Path

import pytest

import skdeep

PACKAGE = Path(skdeep.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 450

ENGINE = {
    **{name: {"_stack"} for name in ("_stack", "losses", "penalties", "activations", "optimizers", "schedules")},
    "batching": {"_stack"},
    "networks": {"_stack", "activations"},
}
ENGINE["training"] = {"_stack", "losses", "penalties", "networks", "optimizers", "schedules", "batching"}
ENGINE["quasi_newton"] = ENGINE["training"] | {"training"}


def imports_of(path):
    """Dotted names of all modules that a file imports, wherever in it: ``from a import b`` counts as a and a.b."""
    package = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix().split("/")[0] for path in FILES}


def siblings(path):
    """Modules of skdeep that a file imports; the package as a whole is "__init__"."""
    found = set()
    for name in imports_of(path):
        first, *rest = name.split(".")
        if first == "skdeep":
            found.add(rest[0] if rest and rest[0] in MODULES else "__init__")
    # `from skdeep.losses import Loss` names the package only on the way
    return found - ({"__init__"} if found - {"__init__"} and "skdeep" not in plain_imports(path) else set())


def plain_imports(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}


def third_parties(path):
    return {name.split(".")[0] for name in imports_of(path)}


def test_the_reader_of_imports(tmp_path, monkeypatch):
    """The tests below are only as good as it is."""
    monkeypatch.setattr("test_architecture.PACKAGE", tmp_path / "skdeep", raising=False)
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "skdeep")
    path = tmp_path / "skdeep" / "example.py"
    path.parent.mkdir()
    path.write_text(
        "from skdeep.losses import Loss\nfrom skdeep import networks\nfrom . import batching\nfrom .splits import x\n"
        "def f():\n    import sklearn.base\n    from skorch.callbacks import Callback\n"
    )
    assert siblings(path) == {"losses", "networks", "batching", "splits"}
    assert {"sklearn", "skorch"} <= third_parties(path)
    path.write_text("import skdeep\n")
    assert siblings(path) == {"__init__"}


@pytest.mark.parametrize("name", ENGINE)
def test_engine_imports_only_what_lies_below(name):
    assert siblings(PACKAGE / f"{name}.py") - {name} <= ENGINE[name]


@pytest.mark.parametrize("name", [*ENGINE, "splits"])
def test_engine_knows_neither_sklearn_nor_skorch(name):
    assert not third_parties(PACKAGE / f"{name}.py") & {"sklearn", "skorch"}


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "callbacks.py"], ids=lambda p: p.name)
def test_only_callbacks_import_skorch(path):
    assert "skorch" not in third_parties(path)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_files_stay_short(path):
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines < MAX_LINES, f"{path.name} has {n_lines} lines"
