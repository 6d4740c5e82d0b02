"""`{quiz}`: a question whose wrong answers are real misconceptions. Each answer unfolds to why it is right or wrong.

The body is YAML:

    question: Which column comes first in the index?
    options:
      - text: The one with most distinct values.
        why: Selectivity decides nothing when both columns are compared for equality.
      - text: The one compared for equality.
        right: true
        why: The rows wanted then lie side by side in the index.
"""

from typing import Any

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from shopfloor.sphinx.derived import span
from shopfloor.sphinx.disclosure import Details, fold

logger = logging.getLogger(__name__)

_FORM = "{quiz} wants YAML with question: and options:, a list of text:, why: and, on exactly one, right: true"


class QuizDirective(SphinxDirective):
    """The question and its options, in YAML. Text is MyST, so code and links work in it."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Draw the question and a folded explanation below each option."""
        try:
            quiz = yaml.safe_load("\n".join(self.content))
        except yaml.YAMLError as error:
            logger.warning("%s: %s", _FORM, error, location=self.get_location())
            return []
        if not _well_formed(quiz):
            logger.warning(_FORM, location=self.get_location())
            return []
        box = nodes.container(classes=["sf-quiz"])
        question = nodes.container(classes=["sf-quiz-question"])
        question += self._parse(quiz["question"])
        box += question
        box += [self._option(option) for option in quiz["options"]]
        self.set_source_info(box)
        return [box]

    def _option(self, option: dict[str, Any]) -> Details:
        right = option.get("right", False)
        answer = self._parse(option["text"])
        why = self._parse(option["why"])
        verdict = span("Right. " if right else "No. ", "sf-quiz-verdict")
        if why and isinstance(why[0], nodes.paragraph):
            why[0].insert(0, verdict)
        else:
            why.insert(0, nodes.paragraph("", "", verdict))
        inline = [part for block in answer for part in block.children]  # a summary holds text, not paragraphs
        return fold(inline, why, "sf-quiz-right" if right else "sf-quiz-wrong")

    def _parse(self, text: str) -> list[nodes.Node]:
        holder = nodes.container()
        self.state.nested_parse(StringList(str(text).splitlines(), self.env.docname), self.content_offset, holder)
        return list(holder.children)


def register(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("quiz", QuizDirective)


def _well_formed(quiz: object) -> bool:
    if not isinstance(quiz, dict) or set(quiz) != {"question", "options"} or not isinstance(quiz["options"], list):
        return False
    options = quiz["options"]
    return (
        len(options) >= 2
        and all(isinstance(option, dict) for option in options)
        and all({"text", "why"} <= set(option) <= {"text", "why", "right"} for option in options)
        and sum(option.get("right", False) is True for option in options) == 1
    )
