"""What somebody has read off `/metrics` pages, again and again, and posts: given code, no lab changes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from pydantic import Field

from shop.foundations import validation


@dataclass(frozen=True)
class Reading:
    """One reading of one instance.

    Attributes:
        at: when, in seconds since the epoch.
        instance: of which process or machine.
        samples: its series, each with `name`, `labels` and `value`; None: there was no answer.
    """

    at: float
    instance: str
    samples: Sequence[Sample] | None


class _Page(validation.Strict):
    at: Annotated[float, Field(allow_inf_nan=False)]
    instance: str = "shop"
    text: str | None


class _Replay(validation.Strict):
    now: Annotated[float, Field(allow_inf_nan=False)]
    readings: list[_Page]


def posted() -> tuple[list[Reading], float]:
    """The readings that the request brings, the oldest first, and the moment at which they are to be judged.

    Raises:
        shop.foundations.validation.Invalid: they are not of that form (422).
    """
    replay = validation.body(_Replay)
    pages = sorted(enumerate(replay.readings), key=lambda page: page[1].at)
    return [Reading(page.at, page.instance, _samples(number, page.text)) for number, page in pages], replay.now


def _samples(number: int, text: str | None) -> list[Sample] | None:
    if text is None:
        return None
    try:
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except ValueError as error:
        detail = f"It is not in Prometheus's text format: {error}"
        raise validation.Invalid([{"field": f"readings.{number}.text", "detail": detail}]) from error
