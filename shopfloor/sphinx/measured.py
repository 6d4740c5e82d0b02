"""`` {measured}`book/data/n_plus_one#the-claims-id` ``: a claim's figure within a sentence of another page."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from shopfloor.sphinx.derived import Derived, link, span
from shopfloor.sphinx.facts import facts_of
from shopfloor.sphinx.record import record_of

logger = logging.getLogger(__name__)


class Measured(Derived):
    """The figure; attributes `target`, the page, and `claim`, the claim's id."""

    def draw(self, env: BuildEnvironment, page: str) -> list[nodes.Node]:
        """Quote the figure and link to the claim, or say that it is still being measured."""
        entry = facts_of(env).pages.get(self["target"])
        if entry is None or not entry.executed:
            return [nodes.emphasis("", "(being measured)")]
        claim = next((claim for claim in entry.claims if claim.id == self["claim"]), None)
        if claim is None:
            known = ", ".join(claim.id for claim in entry.claims)
            message = "{measured}: %s has no claim %s. It has: %s"
            logger.warning(message, self["target"], self["claim"], known, location=page)
            return []
        figure = span(claim.display, "sf-figure-value")
        return [link(env, page, self["target"], f"claim-{claim.id}", figure)]


class MeasuredRole(SphinxRole):
    """A page's name and a claim's id, with a hash between them."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Leave the placeholder."""
        target, _, claim = self.text.partition("#")
        if target not in self.env.found_docs:
            logger.warning("{measured}: there is no page %s", target, location=self.get_location())
            return [], []
        record_of(self.env).of(self.env.docname).quotes = True
        return [Measured(target=target, claim=claim)], []


def register(app: Sphinx) -> None:
    """Register the role."""
    app.add_role("measured", MeasuredRole())
