"""Configure Sphinx: generated pages are written first, then read with those written by hand."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from _generate import site  # noqa: E402

import veldt  # noqa: E402

project = "veldt"
author = "the authors of veldt"
copyright = "the authors of veldt"
version = release = veldt.__version__

site.write_pages(HERE)

# MathJax is copied into the site by the last one, which needs the one before it.
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "_generate", "package.md"]

# Tests run the code blocks (`tests/docs`), so the build does not.
nb_execution_mode = "off"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3
myst_substitutions = site.substitutions()

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False

toc_object_entries = False
default_role = "code"

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["veldt.css"]
html_title = f"veldt {release}"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "home_page_in_toc": True,
}
