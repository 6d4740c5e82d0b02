"""`{tells}`: which points of the syllabus the section above it tells."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from shopfloor.sphinx.derived import Derived, link, span
from shopfloor.sphinx.facts import facts_of
from shopfloor.sphinx.record import Telling, heading_of, record_of

logger = logging.getLogger(__name__)


class Tells(Derived):
    """The line of links; attribute `points` lists the ids."""

    def draw(self, env: BuildEnvironment, page: str) -> list[nodes.Node]:
        """Link each point to its place in the page of its document."""
        line = nodes.paragraph(classes=["sf-tells"])
        line += span("Tells ", "sf-tells-word")
        for number, point in enumerate(facts_of(env).syllabus.point(point_id) for point_id in self["points"]):
            if number:
                line += nodes.Text(" ")
            document = record_of(env).page_of_document(point.id[0])
            label = span(point.id, "sf-point-id")
            if document is None:
                line += label
                continue
            reference = link(env, page, document, nodes.make_id(point.id), label)
            reference["reftitle"] = point.text
            line += reference
        return [line]


class TellsDirective(SphinxDirective):
    """One or more ids of points, under the heading of the section that tells them."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Leave the placeholder; complain about ids that the syllabus does not have."""
        self.env.note_dependency(self.env.app.srcdir / self.config.shopfloor_syllabus)
        known = facts_of(self.env).syllabus.points
        named = self.arguments[0].replace(",", " ").split()
        for point_id in named:
            if point_id not in known:
                logger.warning("{tells}: the syllabus has no point %s", point_id, location=self.get_location())
        node = Tells(points=[point_id for point_id in named if point_id in known])
        self.set_source_info(node)
        return [node] if node["points"] else []


def register(app: Sphinx) -> None:
    """Register the directive and the collection of what it says."""
    app.add_directive("tells", TellsDirective)
    app.connect("doctree-read", _collect)


def _collect(app: Sphinx, doctree: nodes.document) -> None:
    page = app.env.docname
    for node in doctree.findall(Tells):
        anchor, title = heading_of(node, page)
        tellings = record_of(app.env).of(page).tellings
        for point_id in node["points"]:
            tellings.setdefault(point_id, []).append(Telling(page, anchor, title))
