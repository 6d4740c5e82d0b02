"""A claim: a sentence, the figure measured for it, and the bound that makes it true or false.

A false claim raises, so the notebook that makes it fails, and with it the build of the book.
"""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MIME_TYPE = "application/vnd.shopfloor.claim+json"
ATTEMPTS = 3
POINT_ID = re.compile(r"[A-Z]\d+(\.\d+)+")

_ids_taken: dict[str, int] = {}


class ClaimFailed(AssertionError):  # noqa: N818 - reads as what happened, in a notebook's traceback
    """A claim's figure lies outside its bound."""


@dataclass(frozen=True)
class Bound:
    """What a figure is held to.

    Attributes:
        relation: `exactly`, `at least` or `at most`.
        limit: the value on the other side of it.
    """

    relation: str
    limit: Any

    def holds(self, value: Any) -> bool:
        """Whether `value` is within the bound."""
        if self.relation == "exactly":
            return bool(value == self.limit)
        return bool(value >= self.limit) if self.relation == "at least" else bool(value <= self.limit)


@dataclass(frozen=True)
class Claim:
    """A claim that was measured and holds. In a notebook it shows itself as one line.

    Attributes:
        id: unique in its page; the page's anchor is `claim-<id>`.
        value: the measured figure.
        unit: what the figure counts, as it is written behind it.
        covers: ids of the syllabus points that it shows.
        attempts: how often it was measured until it held.
    """

    id: str
    text: str
    value: Any
    bounds: tuple[Bound, ...]
    unit: str
    covers: tuple[str, ...]
    attempts: int

    @property
    def display(self) -> str:
        """The figure as it is read: `8,012 blocks`, `41×`."""
        return with_unit(self.value, self.unit)

    @property
    def bound_display(self) -> str:
        """The bounds as they are read: `at least 20×`."""
        return " and ".join(f"{bound.relation} {with_unit(bound.limit, self.unit)}" for bound in self.bounds)

    def __repr__(self) -> str:
        return f"[holds] {self.text}: {self.display} ({self.bound_display})"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": repr(self), "text/html": self._html(), MIME_TYPE: self._record()}

    def _html(self) -> str:
        text, display, bound = (html.escape(part) for part in (self.text, self.display, self.bound_display))
        return (
            f'<div class="sf-claim" id="claim-{self.id}">'
            '<span class="sf-claim-mark" role="img" aria-label="Measured and true:">✓</span> '
            f'<span class="sf-claim-text">{text}</span> '
            f'<span class="sf-claim-value">{display}</span> '
            f'<span class="sf-claim-bound">{bound}</span></div>'
        )

    def _record(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "text": self.text,
            "value": self.value,
            "display": self.display,
            "unit": self.unit,
            "bounds": [{"relation": bound.relation, "limit": bound.limit} for bound in self.bounds],
            "covers": list(self.covers),
            "passed": True,
        }


def claim(
    text: str,
    value: Any,
    *,
    equals: Any = None,
    at_least: float | None = None,
    at_most: float | None = None,
    unit: str = "",
    covers: str | Sequence[str] = (),
) -> Claim:
    """Hold a measured figure to its bound.

    Args:
        text: the claim, one sentence without the figure.
        value: the figure; or a function that measures it, for a ratio of times: it is called again,
            up to three times in all, before the claim fails, since one busy moment refutes nothing.
        equals: the figure must be this.
        at_least: the figure must not be less.
        at_most: the figure must not be more.
        unit: written behind the figure: `blocks`, `×`.
        covers: the syllabus points that the claim shows.

    Raises:
        ClaimFailed: the figure is out of bounds.
        ValueError: no bound is given, `equals` with another, or `covers` holds what is no point's id.
    """
    bounds = _bounds(equals, at_least, at_most)
    points = (covers,) if isinstance(covers, str) else tuple(covers)
    for point in points:
        if not POINT_ID.fullmatch(point):
            raise ValueError(f"{point!r} is not the id of a syllabus point, such as P2.1.1")
    figure: Any = None
    for attempt in range(1, ATTEMPTS + 1):
        figure = _plain(value() if callable(value) else value)
        if all(bound.holds(figure) for bound in bounds):
            return Claim(_unique_id(text), text, figure, bounds, unit, points, attempt)
        if not callable(value):
            break
    wanted = " and ".join(f"{bound.relation} {with_unit(bound.limit, unit)}" for bound in bounds)
    raise ClaimFailed(f"{text}: measured {with_unit(figure, unit)}, claimed {wanted}")


def with_unit(value: Any, unit: str) -> str:
    """Write a figure for a reader: thousands separated, three digits where it is not whole; a fact is a yes or a no."""
    if isinstance(value, bool):
        number = "yes" if value else "no"
    elif isinstance(value, int):
        number = f"{value:,}"
    elif isinstance(value, float):
        number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    else:
        number = str(value)
    return f"{number}{unit}" if unit in {"", "×", "%"} else f"{number} {unit}"


def _bounds(equals: Any, at_least: float | None, at_most: float | None) -> tuple[Bound, ...]:
    given = {"exactly": equals, "at least": at_least, "at most": at_most}
    bounds = tuple(Bound(relation, _plain(limit)) for relation, limit in given.items() if limit is not None)
    if not bounds or (equals is not None and len(bounds) > 1):
        raise ValueError("a claim needs equals=, or at_least= and at_most= or one of them: else it cannot be false")
    return bounds


def _plain(value: Any) -> Any:
    """NumPy's and SQL's numbers as Python's own, which JSON can write."""
    to_python: Callable[[], Any] | None = getattr(value, "item", None)
    return to_python() if to_python else value


def _unique_id(text: str) -> str:
    slug = "-".join(re.findall(r"[a-z0-9]+", text.lower())[:8])
    _ids_taken[slug] = _ids_taken.get(slug, 0) + 1
    return slug if _ids_taken[slug] == 1 else f"{slug}-{_ids_taken[slug]}"
