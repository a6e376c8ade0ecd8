"""What the documents promise: their code runs, their commands are those of the gate, their lists are complete.

Each Python block of README.md, CONTRIBUTING.md and the site's pages stands on its own: it runs in a fresh namespace, in
an empty directory, without network.
"""

import pydoc
import re
import socket
import textwrap
import tomllib
from pathlib import Path

import pytest
import sklearn
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import skdeep
from skdeep.engine.activations import ACTIVATIONS
from skdeep.engine.losses import LOSSES
from skdeep.engine.optimizers import OPTIMIZERS
from skdeep.engine.penalties import PENALTIES
from skdeep.engine.schedules import SCHEDULES
from skdeep.fitting.settings import SOLVERS

ROOT = Path(__file__).parents[1]
TABLES = (ACTIVATIONS, LOSSES, OPTIMIZERS, PENALTIES, SCHEDULES, SOLVERS)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


#: Written by hand; the gallery and the reference are made by the build of the site.
PAGES = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("index.rst", "inside.rst", "lectures.rst", "guide/*.rst", "decisions/*.rst")
    for path in sorted((ROOT / "docs").glob(pattern))
]
#: Blocks of code, by the suffix of the document.
BLOCKS = {".md": r"^```{}\n((?:.*\n)*?)^```$", ".rst": r"^\.\. code-block:: {}\n\n((?: {{4}}.*\n|\n)+)"}


def blocks(document, language):
    """Blocks of code in that language, as (first line's number, text) pairs."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.finditer(BLOCKS[Path(document).suffix].format(language), text, re.MULTILINE)
    return [(text.count("\n", 0, match.start(1)) + 1, textwrap.dedent(match.group(1)).rstrip()) for match in found]


#: Packages that blocks may ask for, where they are installed.
OPTIONAL = ("onnxruntime", "skl2onnx", "skops")
PYTHON_BLOCKS = [
    pytest.param(document, line, code, id=f"{document}:{line}")
    for document in ("README.md", "CONTRIBUTING.md", *PAGES)
    for line, code in blocks(document, "python")
]


@pytest.fixture
def sealed(tmp_path, monkeypatch):
    """An empty directory to run in, and no network; the package's tables and scikit-learn's settings are put back."""
    monkeypatch.chdir(tmp_path)
    connect = socket.socket.connect

    def connect_locally(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a documented block reaches for the network: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)
    before = [dict(table) for table in TABLES]
    with sklearn.config_context():
        yield
    for table, entries in zip(TABLES, before, strict=True):
        table.clear()
        table.update(entries)


@pytest.mark.parametrize(("document", "line", "code"), PYTHON_BLOCKS)
@pytest.mark.filterwarnings(
    "error",
    "default::DeprecationWarning",
    "default::PendingDeprecationWarning",
    "ignore:.isinstance.treespec",  # of torch, when it exports, about itself
)
def test_python_blocks_run(document, line, code, sealed):
    for package in OPTIONAL:
        if re.search(rf"^(import|from) {package}\b", code, re.MULTILINE):
            pytest.importorskip(package)
    padding = "\n" * (line - 1)  # tracebacks then point into the document
    exec(compile(padding + code, str(ROOT / document), "exec"), {"__name__": "__main__"})


def test_readme_is_short_and_has_a_block_and_two_commands():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160
    ((_, code),) = blocks("README.md", "python")
    assert "skdeep.model_selection" in code
    assert len(blocks("README.md", "sh")) == 2


def test_the_guide_has_blocks():
    assert sum(len(blocks(page, "python")) for page in PAGES) >= 11


def test_lines_are_short():
    """Tables aside, and images."""
    for document in ("README.md", *PAGES):
        for line in (ROOT / document).read_text(encoding="utf-8").splitlines():
            is_table = "|" in line or "  " in line.strip() or set(line) <= {"=", " "}
            assert len(line) <= 120 or is_table or line.startswith("!["), f"{document}: {line}"


@pytest.mark.parametrize("command", [code.strip() for _, code in blocks("README.md", "sh")])
def test_the_gate_runs_the_commands_of_the_readme(command):
    assert "\n" not in command
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_constraints_pin_every_dependency():
    groups = PROJECT["project"]["optional-dependencies"].values()
    named = [PROJECT["project"]["dependencies"], *groups, PROJECT["build-system"]["requires"]]
    requirements = [Requirement(text) for group in named for text in group]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {canonicalize_name(pin.name): pin for pin in pins}
    assert len(pinned) == len(pins)
    for requirement in requirements:
        if requirement.name == PROJECT["project"]["name"]:
            continue
        (pin,) = pinned[canonicalize_name(requirement.name)].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), requirement


def test_version_is_stated_once_and_the_same():
    assert PROJECT["project"]["version"] == skdeep.__version__


def test_links_lead_somewhere():
    for document in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = re.sub(r"```.*?```", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{document}: {target}"


def test_files_that_are_named_exist():
    folders = ("skdeep", "tests", "examples", "docs")
    files = [*ROOT.glob("*.py"), *(path for name in folders for path in (ROOT / name).rglob("*.py"))]
    known = ["/" + path.relative_to(ROOT).as_posix() for path in files]
    for document in ("README.md", "CONTRIBUTING.md", *PAGES):
        for name in re.findall(r"`([\w/]+\.py)\b", (ROOT / document).read_text(encoding="utf-8")):
            assert "NN" in name or any(path.endswith("/" + name) for path in known), f"{document}: {name}"


def test_the_page_about_the_inside_names_what_there_is():
    text = (ROOT / "docs" / "inside.rst").read_text(encoding="utf-8")
    paths, names = re.findall(r"``(skdeep/[^`]*)``", text), re.findall(r"``(skdeep\.[^`]*)``", text)
    assert len(paths) > 10 and len(names) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for name in names:
        assert pydoc.locate(name) is not None, name
