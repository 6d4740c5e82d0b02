"""Chapters and checks run at the same time, in databases of one server whose copies have the same object ids."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shopfloor.paths import material

SERVER_WIDE_VIEW = re.compile(r"FROM pg_(?:locks|stat_activity|stat_progress_\w+)")
NARROWED = re.compile(r"current_database\(\)|pg_backend_pid\(\)|\{HERE\}")
LONGEST_STATEMENT_IN_CHARACTERS = 250

CHAPTERS = [path for path in material().book.rglob("*.md") if "_build" not in path.parts]
CHECKS = list(material().labs.rglob("test_*.py"))


def questions(files: list[Path]) -> Iterator[tuple[str, str]]:
    for file in files:
        text = file.read_text()
        for view in SERVER_WIDE_VIEW.finditer(text):
            yield file.name, text[view.start() : view.start() + LONGEST_STATEMENT_IN_CHARACTERS]


@pytest.mark.parametrize("files", [CHAPTERS, CHECKS], ids=["chapters", "checks"])
def test_nobody_asks_what_other_databases_are_doing(files: list[Path]) -> None:
    asked = list(questions(files))
    assert asked
    assert [(name, question) for name, question in asked if not NARROWED.search(question)] == []
