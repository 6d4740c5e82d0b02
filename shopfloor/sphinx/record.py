"""What the pages say of themselves, kept in Sphinx's environment from one build to the next."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import cast

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


@dataclass(frozen=True)
class Telling:
    """A section of a page that tells a point.

    Attributes:
        anchor: the section's id; empty when it is the page's title.
        title: the section's heading.
    """

    page: str
    anchor: str
    title: str


@dataclass
class PageRecord:
    """What one page holds of our directives.

    Attributes:
        tellings: by the id of the point.
        documents: letters of the documents that it mirrors.
        quotes: whether it shows figures of other pages.
    """

    tellings: dict[str, list[Telling]] = field(default_factory=dict)
    documents: list[str] = field(default_factory=list)
    quotes: bool = False

    @property
    def derived(self) -> bool:
        """Whether the page shows what other pages or the ledger say."""
        return self.quotes or bool(self.documents)


class Record(dict[str, PageRecord]):
    """The page records by page name."""

    def of(self, page: str) -> PageRecord:
        """A page's record, to be written to."""
        return self.setdefault(page, PageRecord())

    def telling(self, point_id: str) -> list[Telling]:
        """The sections that tell a point, in the order of their pages' names."""
        return [telling for page in sorted(self) for telling in self[page].tellings.get(point_id, ())]

    def page_of_document(self, letter: str) -> str | None:
        """The page that mirrors a document."""
        return next((page for page in sorted(self) if letter in self[page].documents), None)


def record_of(env: BuildEnvironment) -> Record:
    """The record in `env`."""
    if not hasattr(env, "shopfloor_record"):
        env.shopfloor_record = Record()  # type: ignore[attr-defined]  # Sphinx's way for extensions to keep data
    return cast("Record", env.shopfloor_record)  # type: ignore[attr-defined]


def heading_of(node: nodes.Node, page: str) -> tuple[str, str]:
    """The anchor and the text of the heading that `node` stands under."""
    section = node.parent
    while section is not None and not isinstance(section, nodes.section):
        section = section.parent
    if section is None:
        return "", page
    title = section.next_node(nodes.title)
    anchor = "" if isinstance(section.parent, nodes.document) else section["ids"][0]
    return anchor, title.astext() if title is not None else page


def connect(app: Sphinx) -> None:
    """Keep the record right when pages go, and when Sphinx reads pages in several processes."""
    app.connect("env-purge-doc", _purge)
    app.connect("env-merge-info", _merge)


def _purge(_app: Sphinx, env: BuildEnvironment, page: str) -> None:
    record_of(env).pop(page, None)


def _merge(_app: Sphinx, env: BuildEnvironment, pages: Collection[str], other: BuildEnvironment) -> None:
    read = record_of(other)
    record_of(env).update({page: read[page] for page in pages if page in read})
