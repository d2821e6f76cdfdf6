"""How Sphinx makes the site: ``make docs``. Its source is the whole repository, so every link is checked."""

from typing import Any

from pygments.lexers.special import TextLexer

project = "ssastore"
author = copyright = "the ssastore contributors"
master_doc = "docs/index"
include_patterns = ["docs/*.md", "docs/**/*.md", "*.md", "bench/README.md"]
exclude_patterns = ["build/**", "tests/**", ".venv*/**"]
extensions = ["myst_parser"]
myst_heading_anchors = 4
nitpicky = True
html_theme = "furo"
html_title = "ssastore"
html_copy_source = False
html_show_sphinx = False
# Blocks with the output of commands are no language; and what is none is no fault.
highlight_language = "text"


def setup(app: Any) -> None:
    """Vectors in hexadecimal are marked so for the tests that read them; they have no colours."""
    app.add_lexer("hex", TextLexer)
