"""What is private to other libraries: imported in one place, checked there, and bounded in pyproject.toml."""

import ast
import importlib
import importlib.util
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import skdeep
from skdeep.compat import checks

PACKAGE = Path(skdeep.__file__).parent
COMPAT = PACKAGE / "compat"
LIBRARIES = {"joblib": "joblib", "scipy": "scipy", "sklearn": "scikit-learn", "torch": "torch"}
#: Modules without an underscore that are private all the same: they are in no reference of the API.
UNDOCUMENTED = {"joblib.parallel.FallbackToBackend", "torch.ops.aten"}
OTHERS = {"numpy", "skorch", "matplotlib", "pandas", *LIBRARIES}


def is_private(name):
    """Whether a dotted name is private to another library."""
    first, *rest = name.split(".")
    if first not in OTHERS:
        return False
    hidden = any(part.startswith("_") and not part.startswith("__") for part in rest)
    return hidden or any(name == known or name.startswith(f"{known}.") for known in UNDOCUMENTED)


def dotted(node):
    """The dotted name of an attribute of a name; None of any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    above = dotted(node.value) if isinstance(node, ast.Attribute) else None
    return None if above is None else f"{above}.{node.attr}"


def private_names_in(source):
    """Private names that a file imports, or reaches through a module that it imports."""
    tree, known, found = ast.parse(source), {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            known |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names}
            found |= {alias.name for alias in node.names if is_private(alias.name)}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            known |= names
            found |= {name for name in names.values() if is_private(name)}
    for node in ast.walk(tree):
        name = dotted(node) if isinstance(node, ast.Attribute) else None
        if name is not None:
            first, *rest = name.split(".")
            found |= {whole for whole in [".".join([known.get(first, ""), *rest])] if is_private(whole)}
    return found


def test_the_reader_of_private_names():
    source = (
        "import torch\nimport sklearn.utils._tags\nfrom torch import nn\nfrom sklearn.base import _fit_context, clone\n"
        "from skdeep.display._axes import x\nfrom joblib.parallel import FallbackToBackend, delayed\n"
        "def f(x):\n    import numpy as np\n    torch._fused_adam_(x._version)\n    nn.modules.batchnorm._BatchNorm\n"
        "    torch.ops.aten.elu_backward(x)\n    np._core\n    return np.ndarray.__name__\n"
    )
    assert private_names_in(source) == {
        "sklearn.utils._tags", "sklearn.base._fit_context", "joblib.parallel.FallbackToBackend", "torch._fused_adam_",
        "torch.nn.modules.batchnorm._BatchNorm", "torch.ops.aten", "torch.ops.aten.elu_backward", "numpy._core",
    }  # fmt: skip


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != COMPAT]


def test_private_names_are_reached_in_one_place_only():
    for path in FILES:
        private = private_names_in(path.read_text(encoding="utf-8"))
        if path.parent.name == "callbacks" or path.name == "logs.py":
            private = {name for name in private if not name.startswith("skorch")}
        assert not private, path


def requirements():
    text = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    return {r.name: r for r in map(Requirement, tomllib.loads(text)["project"]["dependencies"])}


@pytest.mark.parametrize("library", [*LIBRARIES.values(), "skorch"])
def test_the_installed_version_is_within_bounds(library):
    bounds = requirements()[library].specifier
    assert {">=", "<"} <= {one.operator for one in bounds}
    assert bounds.contains(version(library))


@pytest.mark.parametrize(("file", "library"), [*LIBRARIES.items(), ("skorch", "skorch")])
def test_the_versions_that_are_known_to_work(file, library):
    """They begin where pyproject.toml does, and include the installed one."""
    known = importlib.import_module(f"skdeep.compat.{file}").KNOWN
    found = [Version(one) for one in re.findall(r"[\d.]+", known)]
    (least,) = (one for one in requirements()[library].specifier if one.operator == ">=")
    assert found[0] == Version(least.version)
    assert found[0].release <= Version(version(library)).release[:2] <= found[-1].release


NEEDED = [
    (file, name) for file in LIBRARIES for name in sorted(importlib.import_module(f"skdeep.compat.{file}").__all__)
]


def place_of(file, name):
    """The module and the attribute from which a file of `compat` gets a name."""
    for node in ast.walk(ast.parse((COMPAT / f"{file}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return node.module, name
        if isinstance(node, ast.Assign) and [dotted(target) for target in node.targets] == [name]:
            return tuple(dotted(node.value).removesuffix(".default").rsplit(".", 1))
    raise AssertionError(f"{file}.py does not get {name}")


def load_afresh(file):
    """Run a file of `compat` as a module of another name."""
    spec = importlib.util.spec_from_file_location("afresh", COMPAT / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("file", "name"), NEEDED, ids=".".join)
def test_a_name_that_is_gone_is_an_error_of_import(file, name, monkeypatch):
    load_afresh(file)
    module, attribute = place_of(file, name)
    if module == "torch.ops.aten":
        import torch

        class Gone:
            def __getattr__(self, other):
                if other == attribute:
                    raise AttributeError(f"'aten' has no attribute '{other}'")
                return getattr(aten, other)

        aten = torch.ops.aten
        monkeypatch.setattr(torch.ops, "aten", Gone())
    else:
        monkeypatch.delattr(f"{module}.{attribute}")
    library = LIBRARIES[file]
    with pytest.raises(ImportError, match=attribute) as raised:
        load_afresh(file)
    known = importlib.import_module(f"skdeep.compat.{file}").KNOWN
    for part in (library, version(library), known):
        assert part in str(raised.value)


def test_modes_whose_import_cannot_be_spared_are_an_error_of_import(monkeypatch):
    """Else the first fit of a module would import what torch.compile needs again, without a word."""
    mode = "torch.utils._python_dispatch.TorchDispatchMode"
    monkeypatch.setattr(f"{mode}.__init_subclass__", classmethod(lambda cls: None), raising=False)
    monkeypatch.delattr(f"{mode}._should_skip_dynamo", raising=False)
    with pytest.raises(ImportError, match="_should_skip_dynamo"):
        load_afresh("torch")


@pytest.mark.parametrize("file", LIBRARIES)
def test_the_checks_cover_every_private_name(file):
    found = private_names_in((COMPAT / f"{file}.py").read_text(encoding="utf-8")) - {"torch.ops.aten"}
    offered = set(importlib.import_module(f"skdeep.compat.{file}").__all__)
    names = {name.removesuffix(".default").rsplit(".", 1)[1] for name in found}
    assert names <= offered


def test_what_is_relied_on_and_not_so_is_an_error_of_import():
    checks.demand(True, "one is one", "scipy", "1.14 to 1.17")
    with pytest.raises(ImportError, match=r"scipy: one is two\. scipy .* with scipy 1\.14 to 1\.17") as raised:
        checks.demand(False, "one is two", "scipy", "1.14 to 1.17")
    with pytest.raises(ImportError) as again, checks.private_names("torch", "2.6"):
        raise raised.value
    assert again.value is raised.value
