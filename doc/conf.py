"""Configuration of Sphinx."""

import os
import re
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import sknoisy

sys.path.insert(0, str(Path(__file__).parent))

# Without a display matplotlib warns about `plt.show`, which does not concern the reader.
os.environ.setdefault("MPLBACKEND", "agg")
warnings.filterwarnings("ignore", message=".*non-interactive.*", category=UserWarning)

project = "sknoisy"
author = "The sknoisy developers"
copyright = author
release = version = sknoisy.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx_design",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = [
    "_build",
    "_templates",
    "auto_examples/**/*.ipynb",
    "auto_examples/**/*.py",
]
nitpicky = True
default_role = "code"

templates_path = ["_templates"]
autosummary_generate = True
autodoc_typehints = "none"
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"
numpydoc_xref_aliases = {
    "Axes": "matplotlib.axes.Axes",
    "Series": "pandas.Series",
    "array-like": ":term:`sklearn:array-like`",
}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"(launch|paper|study)/",
    "doc_module": ("sknoisy",),
    "reference_url": {"sknoisy": None},
    "backreferences_dir": "generated/backreferences",
    "subsection_order": ["../examples/tutorials", "../examples/background"],
    "within_subsection_order": "reading_order.reading_order",
    "abort_on_example_error": True,
    "show_memory": False,
    "capture_repr": (),
    "min_reported_time": 1,
    "parallel": 2,
}

# The names of other projects that this documentation links to. They are listed in
# `doc/inventories`, so that the documentation builds without a network.
INVENTORIES = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "matplotlib": "https://matplotlib.org/stable/",
    "sklearn": "https://scikit-learn.org/stable/",
    "skorch": "https://skorch.readthedocs.io/en/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}


def _inventory(name):
    """Write a list of names in the format of intersphinx and return where."""
    lines = Path(__file__).with_name("inventories").joinpath(f"{name}.txt").read_text("utf-8")
    head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    path = Path(tempfile.mkdtemp()) / "objects.inv"
    path.write_bytes(head.encode() + zlib.compress(lines.encode()))
    return str(path)


intersphinx_mapping = {name: (url, _inventory(name)) for name, url in INVENTORIES.items()}

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "sknoisy"
html_static_path = ["_static"]
html_css_files = ["sknoisy.css"]
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_nav_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 6,
}
html_show_sourcelink = False
html_sidebars = {
    page: []
    for page in (
        "index", "install", "quickstart", "decision_chart", "faq", "benchmarks", "paper",
        "glossary", "trust", "whats_new",
    )
}  # fmt: skip


def _as_mathml(translator, node):
    block = isinstance(node, nodes.math_block)
    translator.body.append(tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def _keep_numbers_together(app, doctree):
    """Replace the spaces in ".97 ± .01" and "40 %" by spaces that no line is broken at."""
    for text in list(doctree.findall(nodes.Text)):
        if isinstance(text.parent, nodes.literal_block | nodes.literal | nodes.math):
            continue
        joined = re.sub(r"(?<=[\d)]) (?=[%±])|(?<=±) ", "\N{NO-BREAK SPACE}", text)
        if joined != text:
            text.parent.replace(text, nodes.Text(joined))


def setup(app):
    """Write formulas in MathML, which browsers show without a script from elsewhere."""
    app.add_html_math_renderer("mathml", (_as_mathml, None), (_as_mathml, None))
    app.connect("doctree-read", _keep_numbers_together)
