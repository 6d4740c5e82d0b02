"""The ledger of the built book: every point of the topics built so far is told, and shown or practised."""

import json
import re
import tomllib
from typing import Any

import pytest

from shopfloor import ledger
from shopfloor.claims import MIME_TYPE
from shopfloor.execution import notebook_pages
from shopfloor.paths import material
from shopfloor.syllabus import load

TELLS = re.compile(r"^```\{tells\} (.+)$", re.MULTILINE)

# How many points each document has had: ids never change and points are never removed.
LEAST_POINTS = {"U": 79, "M": 172, "P": 120, "C": 26, "D": 21}

# Points that a built chapter tells although their section belongs to a chapter that is not built yet.
AHEAD = {"data/indexing": {"U4.1.2"}, "data/n_plus_one": {"U7.2.3"}}


@pytest.fixture(scope="module")
def pages() -> dict[str, Any]:
    """The ledger of the book as it was built last; `make test` builds it first."""
    return dict(json.loads(ledger.ledger_path().read_text())["pages"])


def built_chapters() -> set[str]:
    chapters = {section.chapter for document in load().documents.values() for section in document.sections.values()}
    return chapters & {page.name.removeprefix("book/") for page in notebook_pages()}


def required_points(chapter: str) -> set[str]:
    own = {id_ for id_, point in load().points.items() if point.chapter == chapter}
    return own | AHEAD.get(chapter, set())


def told() -> set[str]:
    sources = [page.path.read_text() for page in notebook_pages()]
    return {point for source in sources for match in TELLS.findall(source) for point in match.split()}


def practised() -> set[str]:
    labs = [tomllib.loads(path.read_text()) for path in material().labs.glob("*/*/lab.toml")]
    return {point for lab in labs for point in lab["covers"]}


def test_the_first_two_chapters_are_built() -> None:
    assert {"data/indexing", "data/n_plus_one"} <= built_chapters()


@pytest.mark.book
@pytest.mark.parametrize("chapter", sorted(built_chapters()))
def test_every_point_of_a_built_chapter_is_told_and_shown_or_practised(chapter: str, pages: dict[str, Any]) -> None:
    shown = {point for page in pages.values() for claim in page["claims"] for point in claim["covers"]}
    required = required_points(chapter)
    assert required - told() == set(), "told nowhere"
    assert required - shown - practised() == set(), "neither shown by a claim nor practised in a lab"


@pytest.mark.book
def test_every_claim_covers_points_that_exist_and_has_where_it_was_measured(pages: dict[str, Any]) -> None:
    known = set(load().points)
    for name, page in pages.items():
        assert page["executed"], f"{name} was not executed"
        assert {"processor", "cores", "python", "versions", "commit", "date"} <= set(page["provenance"])
        for claim in page["claims"]:
            assert set(claim["covers"]) <= known, claim["text"]
            assert claim["passed"]
            assert claim["bounds"]


@pytest.mark.book
def test_every_claim_of_the_ledger_stands_in_its_page(pages: dict[str, Any]) -> None:
    assert sum(len(page["claims"]) for page in pages.values()) > 0, f"no output has the type {MIME_TYPE}"
    for name, page in pages.items():
        html = (material().build / "html" / f"{name}.html").read_text()
        for claim in page["claims"]:
            assert f'id="claim-{claim["id"]}"' in html


def test_the_syllabus_has_lost_no_point() -> None:
    counts = {letter: len(document.points) for letter, document in load().documents.items()}
    assert all(counts[letter] >= least for letter, least in LEAST_POINTS.items())
