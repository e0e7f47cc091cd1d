"""Sphinx: `make docs`. Warnings are errors."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project, author = "st_l0", "The st_l0 developers"
version = release = version_of("st-l0")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated_pages"]
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = f"st_l0 {version}"
html_theme_options = {"navigation_with_keys": True}

nb_execution_mode = "off"  # the tests run it
nb_execution_cache_path = str(Path(__file__).parent / "_build" / "notebooks")
myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_use_legacy_class_based = False
python_maximum_signature_line_length = 80
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True
default_role = "py:obj"
