"""What unfolds when asked: HTML's `details` and `summary`, which need no script and no explanation to a keyboard."""

from collections.abc import Callable

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

Visitor = Callable[[HTML5Translator, nodes.Element], None]


class Details(nodes.General, nodes.Element):
    """A folded part of the page. Its first child is the `Summary`."""


class Summary(nodes.General, nodes.TextElement):
    """The line of a folded part that is always seen."""


def fold(summary: list[nodes.Node], content: list[nodes.Node], css_class: str) -> Details:
    """Fold `content` behind `summary`."""
    return Details("", Summary("", "", *summary), *content, classes=[css_class])


def connect(app: Sphinx) -> None:
    """Teach the HTML writer both elements."""
    app.add_node(Details, html=(_open("details"), _close("details")))
    app.add_node(Summary, html=(_open("summary"), _close("summary")))


def _open(tag: str) -> Visitor:
    def visit(translator: HTML5Translator, node: nodes.Element) -> None:
        translator.body.append(translator.starttag(node, tag))

    return visit


def _close(tag: str) -> Visitor:
    def depart(translator: HTML5Translator, _node: nodes.Element) -> None:
        translator.body.append(f"</{tag}>\n")

    return depart
