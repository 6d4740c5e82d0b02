"""The syllabus: every point that the five source documents make, read from `book/syllabus.yml`.

A point's id is its section's id and its number from 1: `P2.1.3` is the third point of section P2.1.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shopfloor.errors import UserError
from shopfloor.paths import material

_SECTION_ID = re.compile(r"([A-Z])\d+(\.\d+)*")
_CHAPTER = re.compile(r"[a-z0-9_]+/[a-z0-9_]+")


@dataclass(frozen=True)
class Point:
    """One thing that a document says.

    Attributes:
        id: such as `P2.1.3`.
        text: the point in short words.
        chapter: the address of the chapter that teaches it, such as `data/indexing`.
    """

    id: str
    text: str
    chapter: str


@dataclass(frozen=True)
class Section:
    """A section of a document, in the document's own order."""

    id: str
    title: str
    chapter: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Document:
    """One of the source documents. `sections` are keyed by their id, in order."""

    letter: str
    title: str
    subject: str
    sections: Mapping[str, Section]

    @property
    def points(self) -> tuple[Point, ...]:
        """Every point of the document, in order."""
        return tuple(point for section in self.sections.values() for point in section.points)


@dataclass(frozen=True)
class Syllabus:
    """All documents, keyed by their letter."""

    documents: Mapping[str, Document]

    @property
    def points(self) -> dict[str, Point]:
        """Every point of every document, by id."""
        return {point.id: point for document in self.documents.values() for point in document.points}

    def point(self, point_id: str) -> Point:
        """Find a point by its id.

        Raises:
            KeyError: there is none of that id.
        """
        return self.points[point_id]


def load(path: Path | None = None) -> Syllabus:
    """Read and check the syllabus.

    Args:
        path: the file; the book's own when left out.

    Raises:
        UserError: the file cannot be read or is not a well-formed syllabus.
    """
    source = path or material().book / "syllabus.yml"
    try:
        content = yaml.safe_load(source.read_text(encoding="utf8"))
    except OSError as error:
        raise UserError(f"The syllabus {source} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"The syllabus {source} is not YAML: {error}") from error
    try:
        documents = _mapping(content, "the file").get("documents")
        return Syllabus(
            {letter: _document(letter, entry) for letter, entry in _mapping(documents, "documents").items()}
        )
    except _Malformed as error:
        raise UserError(f"The syllabus {source} is not well formed: {error}") from error


class _Malformed(Exception):  # noqa: N818 - never leaves this module
    """What is wrong, and in which entry."""


def _document(letter: Any, entry: Any) -> Document:
    if not (isinstance(letter, str) and re.fullmatch(r"[A-Z]", letter)):
        raise _Malformed(f"a document's key is one capital letter, not {letter!r}.")
    fields = _mapping(entry, letter)
    sections = _mapping(fields.get("sections"), f"{letter}: sections")
    return Document(
        letter=letter,
        title=_text(fields, "title", letter),
        subject=_text(fields, "subject", letter),
        sections={section_id: _section(letter, section_id, section) for section_id, section in sections.items()},
    )


def _section(letter: str, section_id: Any, entry: Any) -> Section:
    match = _SECTION_ID.fullmatch(section_id) if isinstance(section_id, str) else None
    if not match or match[1] != letter:
        raise _Malformed(f"a section of document {letter} has an id like {letter}2.1, not {section_id!r}.")
    fields = _mapping(entry, section_id)
    chapter = _text(fields, "chapter", section_id)
    if not _CHAPTER.fullmatch(chapter):
        raise _Malformed(f"{section_id}: chapter is an address like data/indexing, not {chapter!r}.")
    points = fields.get("points")
    if not isinstance(points, list) or not points:
        raise _Malformed(f"{section_id}: points is a list of at least one point.")
    return Section(
        id=section_id,
        title=_text(fields, "title", section_id),
        chapter=chapter,
        points=tuple(_point(section_id, number, text, chapter) for number, text in enumerate(points, start=1)),
    )


def _point(section_id: str, number: int, text: Any, chapter: str) -> Point:
    if not isinstance(text, str) or not text.strip():
        raise _Malformed(f"{section_id}.{number} is a line of text, not {text!r}. (A colon in it needs quotes.)")
    return Point(f"{section_id}.{number}", text.strip(), chapter)


def _mapping(value: Any, where: str) -> dict[Any, Any]:
    if not isinstance(value, dict) or not value:
        raise _Malformed(f"{where} is a mapping with at least one entry.")
    return value


def _text(fields: Mapping[Any, Any], name: str, where: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _Malformed(f"{where}: {name} is missing or not text.")
    return value.strip()
