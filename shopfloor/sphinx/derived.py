"""Nodes that stand in a page for what is not known until every page has been read."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxTranslator


class Derived(nodes.General, nodes.Element):
    """A placeholder that draws itself once all pages are known."""

    def draw(self, env: BuildEnvironment, page: str) -> list[nodes.Node]:
        """What takes the placeholder's place in `page`."""
        raise NotImplementedError


def draw_derived(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Put what they draw in the place of a page's placeholders."""
    for node in list(doctree.findall(Derived)):
        node.replace_self(node.draw(app.env, page))


def skip_node(_translator: SphinxTranslator, _node: nodes.Element) -> None:
    """Write nothing. Placeholders never reach a writer, but Sphinx asks how each node is written."""
    raise nodes.SkipNode


def link(env: BuildEnvironment, page: str, target: str, anchor: str, *children: nodes.Node) -> nodes.reference:
    """A link from `page` to `target`#`anchor`."""
    uri = env.app.builder.get_relative_uri(page, target) + (f"#{anchor}" if anchor else "")
    return nodes.reference("", "", *children, internal=True, refuri=uri)


def span(text: str, css_class: str) -> nodes.inline:
    """A run of text with a class."""
    return nodes.inline(text, text, classes=[css_class])
