"""`{summary}`: what of the book has been measured on this machine, for the welcome page."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from shopfloor.sphinx import provenance
from shopfloor.sphinx.derived import Derived
from shopfloor.sphinx.facts import facts_of
from shopfloor.sphinx.proofs import count_proved
from shopfloor.sphinx.record import record_of


class Summary(Derived):
    """The live figures."""

    def draw(self, env: BuildEnvironment, page: str) -> list[nodes.Node]:  # noqa: ARG002 - the same on any page
        """Count what has been executed, and say where and when."""
        facts = facts_of(env)
        notebooks = [entry for name, entry in facts.pages.items() if name in env.found_docs]
        measured = [entry for entry in notebooks if entry.executed]
        claims = [claim for entry in measured for claim in entry.claims]
        points = facts.syllabus.points
        rows = [
            ("Claims executed", f"{len(claims)}"),
            ("Claims that hold", f"{sum(claim.passed for claim in claims)}"),
            ("Points proved", f"{count_proved(env, points.values())} of {len(points)}"),
            ("Pages measured", f"{len(measured)} of {len(notebooks)}"),
        ]
        origins = sorted(
            (entry.provenance for entry in measured if entry.provenance), key=lambda origin: origin["date"]
        )
        if origins:
            rows += [("Machine", provenance.machine(origins[-1])), ("Last measured", provenance.day(origins[-1]))]
        drawn: list[nodes.Node] = [_definitions(rows)]
        if len(measured) < len(notebooks):
            drawn.append(
                _note("The other pages are being measured on your machine; their figures appear as that ends.")
            )
        elif not notebooks:
            drawn.append(_note("Nothing has been measured on this machine yet."))
        if any(origin["busy"] for origin in origins):
            drawn.append(_note("The machine was busy with other work during some of the measurements."))
        return drawn


class SummaryDirective(SphinxDirective):
    """No arguments."""

    def run(self) -> list[nodes.Node]:
        """Leave the placeholder."""
        record_of(self.env).of(self.env.docname).quotes = True
        return [Summary()]


def register(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("summary", SummaryDirective)


def _definitions(rows: list[tuple[str, str]]) -> nodes.definition_list:
    items = (
        nodes.definition_list_item("", nodes.term("", term), nodes.definition("", nodes.paragraph("", value)))
        for term, value in rows
    )
    return nodes.definition_list("", *items, classes=["sf-summary"])


def _note(text: str) -> nodes.paragraph:
    return nodes.paragraph("", text, classes=["sf-summary-note"])
