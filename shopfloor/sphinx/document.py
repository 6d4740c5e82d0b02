"""`{document} P`: the outline of a source document, section by section, each point with its proof."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from shopfloor.sphinx.derived import Derived, link, span
from shopfloor.sphinx.facts import Lab, facts_of
from shopfloor.sphinx.proofs import Proof, count_proved, proof_of
from shopfloor.sphinx.record import Telling, record_of
from shopfloor.syllabus import Point, Section

logger = logging.getLogger(__name__)


class DocumentCount(Derived):
    """How much of a document is proved; attribute `letter` names it."""

    def draw(self, env: BuildEnvironment, page: str) -> list[nodes.Node]:  # noqa: ARG002 - the same on any page
        """Count told and proved points of the whole document."""
        points = facts_of(env).syllabus.documents[self["letter"]].points
        proved = count_proved(env, points)
        told = sum(bool(proof_of(env, point.id).told) for point in points)
        line = nodes.paragraph(classes=["sf-count", "sf-count-document"])
        line += nodes.strong("", f"{proved} of {len(points)} points proved")
        line += nodes.Text(f" on this machine; {told} told so far, {len(points) - told} not told yet.")
        return [line]


class SectionCount(Derived):
    """How much of a section is proved; attribute `section` is its id."""

    def draw(self, env: BuildEnvironment, page: str) -> list[nodes.Node]:
        """Count the section's proved points, and name the chapter they belong to."""
        section = _section(env, self["section"])
        count = f"{count_proved(env, section.points)} of {len(section.points)} points proved"
        line = nodes.paragraph(classes=["sf-count"])
        line += [nodes.Text(f"{count} · chapter "), _chapter(env, page, section.chapter)]
        return [line]


class PointProof(Derived):
    """A point's proof; attribute `point` is its id."""

    def draw(self, env: BuildEnvironment, page: str) -> list[nodes.Node]:
        """Say where the point is told, shown and practised, or that it is not built."""
        point = facts_of(env).syllabus.point(self["point"])
        proof = proof_of(env, point.id)
        if not proof.begun:
            line = nodes.paragraph(classes=["sf-unbuilt"])
            line += [nodes.Text("Not built yet. It belongs to "), _chapter(env, page, point.chapter), nodes.Text(".")]
            return [line]
        return [_proofs(env, page, proof)]


class DocumentDirective(SphinxDirective):
    """One letter of a document in the syllabus."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Write the document's sections, with placeholders for what is proved."""
        self.env.note_dependency(self.env.app.srcdir / self.config.shopfloor_syllabus)
        letter = self.arguments[0]
        document = facts_of(self.env).syllabus.documents.get(letter)
        if document is None:
            logger.warning("{document}: the syllabus has no document %s", letter, location=self.get_location())
            return []
        record_of(self.env).of(self.env.docname).documents.append(letter)
        return [DocumentCount(letter=letter), *(self._section(section) for section in document.sections.values())]

    def _section(self, section: Section) -> nodes.section:
        node = nodes.section(ids=[nodes.make_id(section.id)], classes=["sf-document-section"])
        node += nodes.title("", "", span(section.id, "sf-section-id"), nodes.Text(f" {section.title}"))
        node += SectionCount(section=section.id)
        node += [_point(point) for point in section.points]
        self.set_source_info(node)
        self.state.document.note_implicit_target(node)
        return node


def register(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("document", DocumentDirective)


def _point(point: Point) -> nodes.container:
    node = nodes.container(ids=[nodes.make_id(point.id)], classes=["sf-point"])
    node += nodes.paragraph("", "", span(point.id, "sf-point-id"), nodes.Text(f" {point.text.replace(' - ', ' – ')}"))
    node += PointProof(point=point.id)
    return node


def _section(env: BuildEnvironment, section_id: str) -> Section:
    return facts_of(env).syllabus.documents[section_id[0]].sections[section_id]


def _chapter(env: BuildEnvironment, page: str, address: str) -> nodes.Node:
    name = f"book/{address}"
    label = nodes.literal("", address)
    return link(env, page, name, "", label) if name in env.found_docs else label


def _proofs(env: BuildEnvironment, page: str, proof: Proof) -> nodes.bullet_list:
    entries = [_entry("Told", _telling(env, page, telling)) for telling in proof.told]
    for name, claim in proof.shown:
        sentence = link(env, page, name, f"claim-{claim.id}", nodes.Text(claim.text))
        entries.append(_entry("Shown", sentence, span(claim.display, "sf-figure-value")))
    entries += [_entry("Practised", _lab(env, page, lab)) for lab in proof.practised]
    return nodes.bullet_list("", *entries, classes=["sf-proofs"])


def _entry(kind: str, *content: nodes.Node) -> nodes.list_item:
    line = nodes.paragraph("", "", span(kind, "sf-proof-kind"))
    for node in content:
        line += [nodes.Text(" "), node]
    return nodes.list_item("", line)


def _telling(env: BuildEnvironment, page: str, telling: Telling) -> nodes.Node:
    title = env.titles[telling.page].astext()
    words = title if title == telling.title else f"{title}: {telling.title}"
    return link(env, page, telling.page, telling.anchor, nodes.Text(words))


def _lab(env: BuildEnvironment, page: str, lab: Lab) -> nodes.Node:
    if lab.page in env.found_docs:
        return link(env, page, lab.page, "", nodes.Text(lab.title))
    return nodes.Text(f"{lab.title} (labs/{lab.address})")
