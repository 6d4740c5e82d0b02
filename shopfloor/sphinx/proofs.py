"""The proof of a point: where it is told, shown and practised."""

from collections.abc import Iterable
from dataclasses import dataclass

from sphinx.environment import BuildEnvironment

from shopfloor.sphinx.facts import Lab, RecordedClaim, facts_of
from shopfloor.sphinx.record import Telling, record_of
from shopfloor.syllabus import Point


@dataclass(frozen=True)
class Proof:
    """All that the book has on one point.

    Attributes:
        told: the sections that tell it.
        shown: the executed claims that cover it, each with its page.
        practised: the labs that cover it.
    """

    told: tuple[Telling, ...]
    shown: tuple[tuple[str, RecordedClaim], ...]
    practised: tuple[Lab, ...]

    @property
    def proved(self) -> bool:
        """Told, and shown by a claim that was executed here and holds, or practised in a lab."""
        return bool(self.told) and (bool(self.practised) or any(claim.passed for _, claim in self.shown))

    @property
    def begun(self) -> bool:
        """Whether there is anything on it yet."""
        return bool(self.told or self.shown or self.practised)


def proof_of(env: BuildEnvironment, point_id: str) -> Proof:
    """Gather the proof of a point."""
    facts = facts_of(env)
    return Proof(
        told=tuple(record_of(env).telling(point_id)),
        shown=tuple(
            (name, claim)
            for name, page in facts.pages.items()
            for claim in page.claims
            if page.executed and name in env.found_docs and point_id in claim.covers
        ),
        practised=tuple(lab for lab in facts.labs if point_id in lab.covers),
    )


def count_proved(env: BuildEnvironment, points: Iterable[Point]) -> int:
    """How many of `points` are proved."""
    return sum(proof_of(env, point.id).proved for point in points)
