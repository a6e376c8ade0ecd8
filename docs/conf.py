"""Configuration of the documentation site: ``sphinx-build -W --keep-going docs docs/_build/html``."""

import re
import warnings
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import skdeep

project = "skdeep"
author = "the skdeep developers"
copyright = author
version = release = skdeep.__version__

extensions = ["numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx_gallery.gen_gallery"]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
default_role = "py:obj"

html_theme = "furo"
html_title = f"skdeep {release}"
html_static_path = ["_static"]
html_css_files = ["skdeep.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_mock_imports = ["onnx", "skl2onnx"]  # of an extra, whose import the reference does not need
numpydoc_show_class_members = False  # the members that matter are documented in full

sphinx_gallery_conf = {
    "parallel": 2,  # each example is a process of its own
    "examples_dirs": str(Path(__file__).parents[1] / "examples"),
    "gallery_dirs": "auto_examples",
    "filename_pattern": "/plot_",
    "ignore_pattern": r"quickstart\.py|/benchmarks/",
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "api/backreferences",
    "doc_module": ("skdeep",),
    "download_all_examples": False,
    "show_signature": False,
    "remove_config_comments": True,
}

# What examples warn of is said in their text; the pages show what they print.
warnings.filterwarnings("ignore", message="Neither the shared data|A network error", category=UserWarning)


def mathml(tex: str, as_block: bool = False) -> str:
    """TeX as MathML, which browsers draw themselves: no scripts, no network."""
    tex = re.sub(r"(\\t?frac)(\w)(\w)", r"\1{\2}{\3}", tex)  # docutils takes 12 for one number,
    tex = re.sub(r"\\log (?=\w)", r"\\log\\, ", tex)  # sets log without a space,
    tex = re.sub(r"\\([bB]ig)(?=[(\[])", r"\\\1l", tex)  # and asks which of a pair this is
    tex = re.sub(r"\\([bB]ig)(?=[)\]])", r"\\\1r", tex)
    return tex2mathml(tex, as_block=as_block)


def inline_math(translator, node):
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def block_math(translator, node):
    translator.body.append(f'<div class="math">{mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def link_to_scikit_learn(app, env, node, content):
    """References into scikit-learn's documentation, in docstrings of its own too, without its inventory at hand."""
    kind, target = node["reftype"], node["reftarget"]
    site = "https://scikit-learn.org/stable/"
    if node["refdomain"] == "py" and target.startswith("sklearn."):
        uri = f"{site}modules/generated/{target}.html"
    elif kind == "term":
        uri = f"{site}glossary.html#term-{target.replace(' ', '-')}"
    elif kind == "ref":  # our own pages refer by :doc:
        uri = f"{site}search.html?q={target.removeprefix('sphx_glr_').removesuffix('.py')}"
    else:
        return None
    reference = nodes.reference("", "", internal=False, refuri=uri)
    reference += content
    return reference


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(inline_math, None), block_renderers=(block_math, None))
    app.connect("missing-reference", link_to_scikit_learn)
