"""Chapters and checks run at the same time, in databases of one server whose copies have the same object ids."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shopfloor.paths import material

# To the end of the statement, which is the end of the text that holds it.
SERVER_WIDE_VIEW = re.compile(r"FROM pg_(?:locks|stat_activity|stat_progress_\w+)[^\"]*")
NARROWED = re.compile(r"current_database\(\)|pg_backend_pid\(\)")

CHAPTERS = [path for path in material().book.rglob("*.md") if "_build" not in path.parts]
CHECKS = list(material().labs.rglob("test_*.py"))


def questions(files: list[Path]) -> Iterator[tuple[str, str]]:
    for file in files:
        for question in SERVER_WIDE_VIEW.findall(file.read_text()):
            yield file.name, question


@pytest.mark.parametrize("files", [CHAPTERS, CHECKS], ids=["chapters", "checks"])
def test_nobody_asks_what_other_databases_are_doing(files: list[Path]) -> None:
    asked = list(questions(files))
    assert asked
    assert [(name, question) for name, question in asked if not NARROWED.search(question)] == []
