"""Sphinx settings of the documentation; `make docs` builds it into docs/_build/html."""

from __future__ import annotations

import importlib.metadata

from mtf.distribution import DISTRIBUTION

project = "mtf"
author = "the authors of mtf"
release = importlib.metadata.version(DISTRIBUTION)
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}
nitpick_ignore: list[tuple[str, str]] = []

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = True
napoleon_use_ivar = True

html_theme = "furo"
html_title = "mtf"
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
