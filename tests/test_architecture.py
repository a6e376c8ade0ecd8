"""The direction of imports, and the size of the files, read from the source."""

import ast
import re
from pathlib import Path

import pytest

import skdeep

PACKAGE = Path(skdeep.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {path.stem if path.parent == PACKAGE else path.parent.name for path in FILES}
MAX_LINES = 450

ENGINE = {
    "_stack": set(),
    **{
        name: {"_stack"}
        for name in ("losses", "penalties", "activations", "optimizers", "schedules", "batching", "line_search")
    },
    "frame": set(),
    "networks": {"_stack", "frame", "penalties"},
    "normalization": set(),
    "dropout": {"_stack"},
    "standardization": {"_stack", "frame", "networks"},
    "perceptron": {"_stack", "activations", "networks", "normalization", "dropout", "standardization"},
}
ENGINE["random_numbers"] = set()
ENGINE["module_network"] = {"networks", "random_numbers"}
ENGINE["batching"] |= {"frame"}
ENGINE["gradients"] = {"_stack", "losses", "networks", "batching"}
ENGINE["training"] = ENGINE["gradients"] | {"penalties", "optimizers", "schedules", "gradients"}
ENGINE["objective"] = ENGINE["gradients"] | {"penalties", "gradients"}
ENGINE["curvature"] = {"networks", "objective"}
ENGINE["newton"] = {"curvature", "networks", "objective"}
ENGINE["preconditioner"] = {"curvature", "losses", "networks", "objective"}
ENGINE["lbfgs"] = {"_stack", "preconditioner", "objective"}
ENGINE["quasi_newton"] = ENGINE["training"] | {"training", "objective", "newton", "lbfgs", "line_search"}


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


def siblings(names):
    """Which of the imported names are modules of skdeep; what the package itself offers counts as "skdeep"."""
    found = set()
    for name in names:
        first, *rest = name.split(".")
        if first == "skdeep":
            found.add(rest[0] if rest and rest[0] in MODULES else "skdeep")
    return found


def third_parties(names):
    return {name.split(".")[0] for name in names}


def test_the_reader_of_imports(tmp_path, monkeypatch):
    """The tests below are only as good as it is."""
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "skdeep")
    path = tmp_path / "skdeep" / "example.py"
    path.parent.mkdir()
    path.write_text(
        "from skdeep.losses import Loss\nfrom skdeep import networks\nfrom . import batching\nfrom .splits import x\n"
        "def f():\n    import sklearn.base\n    from skorch.callbacks import Callback\n"
    )
    names = imports_of(path)
    assert siblings(names) == {"losses", "networks", "batching", "splits"}
    assert third_parties(names) == {"skdeep", "sklearn", "skorch"}
    path.write_text("import skdeep\n")
    assert siblings(imports_of(path)) == {"skdeep"}
    path.write_text("from skdeep import SoftmaxClassifier\n")
    assert siblings(imports_of(path)) == {"skdeep"}


@pytest.mark.parametrize("name", ENGINE)
def test_engine_imports_only_what_lies_below(name):
    assert siblings(imports_of(PACKAGE / f"{name}.py")) <= ENGINE[name]


@pytest.mark.parametrize("name", [*ENGINE, "splits"])
def test_engine_knows_neither_sklearn_nor_skorch(name):
    assert not third_parties(imports_of(PACKAGE / f"{name}.py")) & {"sklearn", "skorch"}


def test_the_design_shows_the_direction_of_imports():
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    graph = re.search(r"```text\n(_stack, .*?)```", text, re.DOTALL).group(1)
    groups = [re.findall(r"\w+", group) for group in graph.split("←")]
    named = [name for group in groups for name in group]
    assert len(named) == len(set(named)) and set(named) <= MODULES
    imports = {name: set() for name in MODULES}
    for path in FILES:
        imports[path.stem if path.parent == PACKAGE else path.parent.name] |= siblings(imports_of(path))
    below = {name for name in MODULES - set(named) if not imports[name]}
    assert MODULES - set(named) - below == {"__init__"}
    for group in groups:
        for name in group:
            assert imports[name] - {name} <= below, name
        below |= set(group)


@pytest.mark.parametrize("path", [p for p in FILES if p.name not in ("callbacks.py", "logs.py")], ids=lambda p: p.name)
def test_only_callbacks_import_skorch(path):
    assert "skorch" not in third_parties(imports_of(path))


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name != "display"], ids=lambda p: p.name)
def test_pictures_and_logs_are_for_users(path):
    names = imports_of(path)
    assert not siblings(names) & {"display", "logs"}
    assert "matplotlib" not in third_parties(names)
    assert path.name == "logs.py" or "torch.utils.tensorboard.SummaryWriter" not in names


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "display"], ids=lambda p: p.name)
def test_matplotlib_is_imported_only_to_draw(path):
    body = ast.parse(path.read_text(encoding="utf-8")).body
    names = [node.module or "" for node in body if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
    assert names and not any(name.split(".")[0] == "matplotlib" for name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_files_stay_short(path):
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines < MAX_LINES, f"{path.name} has {n_lines} lines"
