"""The page around the content: what the templates need, and what every page's markup needs to fit a small screen."""

from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from shopfloor.sphinx import disclosure

# Scripts of Sphinx that only its search page needs. Everything else works without a script, or with our own.
_SEARCH_ONLY = ("documentation_options.js", "doctools.js", "sphinx_highlight.js")


def connect(app: Sphinx) -> None:
    """Take part in the writing of pages."""
    disclosure.connect(app)
    app.add_js_file("shopfloor.js", loading_method="defer")
    app.connect("doctree-resolved", _let_tables_scroll)
    app.connect("html-page-context", _fit_context)
    app.connect("html-collect-pages", _front_door)


def _let_tables_scroll(_app: Sphinx, doctree: nodes.document, _page: str) -> None:
    """Put each table in a box of its own, so that a wide one scrolls and the page does not."""
    for table in list(doctree.findall(nodes.table)):
        box = nodes.container(classes=["sf-scroll"])
        table.replace_self(box)
        box += table


def _fit_context(
    _app: Sphinx, page: str, _template: str, context: dict[str, Any], _doctree: nodes.document | None
) -> None:
    """Leave out what the theme does not use: MyST-NB's styles and, off the search page, Sphinx's scripts."""
    context["css_files"] = [file for file in context["css_files"] if _wanted_style(str(file.filename))]
    if page != "search":
        context["script_files"] = [
            file for file in context["script_files"] if not str(file.filename).endswith(_SEARCH_ONLY)
        ]


def _wanted_style(name: str) -> bool:
    return "mystnb" not in name and not name.endswith(("pygments.css", "basic.css"))


def _front_door(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """`index.html` at the top of the built book leads to the welcome page."""
    if app.config.root_doc != "index":
        yield "index", {"title": app.config.html_title}, "front_door.html"
