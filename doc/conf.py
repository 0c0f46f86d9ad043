"""Configuration of Sphinx."""

import os
import warnings

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import sknoisy

# Warnings of matplotlib without a display are none of the reader's.
os.environ.setdefault("MPLBACKEND", "agg")
warnings.filterwarnings("ignore", message=".*non-interactive.*", category=UserWarning)

project = "sknoisy"
author = "The sknoisy developers"
copyright = author
release = version = sknoisy.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "auto_examples/*.ipynb", "auto_examples/*.py"]
nitpicky = False
default_role = "code"

templates_path = ["_templates"]
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(paper|study)/",
    "doc_module": ("sknoisy",),
    "reference_url": {"sknoisy": None},
    "backreferences_dir": "generated/backreferences",
    "within_subsection_order": "ExampleTitleSortKey",
    "abort_on_example_error": True,
    "show_memory": False,
    "capture_repr": (),
    "min_reported_time": 1,
    "parallel": 2,
}

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "sknoisy"
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 6,
}
html_show_sourcelink = False
html_sidebars = {
    page: []
    for page in (
        "index", "install", "quickstart", "paper", "habits", "expectations", "glossary",
        "whats_new",
    )
}  # fmt: skip


def _as_mathml(translator, node):
    block = isinstance(node, nodes.math_block)
    translator.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def setup(app):
    """Write formulas in MathML, which browsers show without a script from elsewhere."""
    app.add_html_math_renderer("mathml", (_as_mathml, None), (_as_mathml, None))
