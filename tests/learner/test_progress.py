"""How far a learner is: by address and content, and whatever happens to the file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from shopfloor.labs import Lab
from shopfloor.progress import ProgressFile, State
from shopfloor.workspace import Workspace


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    (tmp_path / "kit/data").mkdir(parents=True)
    (tmp_path / "kit/data/indexing.py").write_text("starter\n")
    made = Workspace(tmp_path / "workspace", tmp_path / "kit")
    made.make()
    return made


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    folder = tmp_path / "labs/data/indexing"
    folder.mkdir(parents=True)
    (folder / "test_indexing.py").write_text("def test(): ...\n")
    return Lab("data/indexing", folder, "Indexes", 10, (), "small", ("1", "2", "3"), ())


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def file(place: Workspace, said: list[str]) -> ProgressFile:
    return ProgressFile(place, said.append)


def test_a_lab_counts_as_passed_only_with_the_content_and_the_checks_that_it_passed_with(
    file: ProgressFile, lab: Lab
) -> None:
    assert file.read().state(lab, b"right") is State.OPEN
    file.finish(lab, b"right")
    assert file.read().state(lab, b"right") is State.PASSED
    assert file.read().state(lab, b"edited") is State.CHANGED
    assert file.read().state(lab, None) is State.CHANGED
    assert file.read().state(lab, b"right") is State.PASSED, "edited back"
    lab.tests.write_text("def test_more(): ...\n")
    assert file.read().state(lab, b"right") is State.NEW_CHECKS
    assert file.read().state(lab, b"edited") is State.CHANGED
    file.finish(lab, b"right")
    assert file.read().state(lab, b"right") is State.PASSED


def test_another_size_of_data_is_a_new_version_of_the_checks(file: ProgressFile, lab: Lab) -> None:
    file.finish(lab, b"right")
    assert file.read().state(replace(lab, data="medium"), b"right") is State.NEW_CHECKS


def test_what_belongs_to_a_lab_that_is_no_more_stays(file: ProgressFile, lab: Lab) -> None:
    file.finish(replace(lab, address="data/former"), b"right")
    file.finish(lab, b"right")
    assert set(file.read().finished) == {"data/former", "data/indexing"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b'{"format": 1}',
        b'{"format": 99, "current": "", "finished": {}, "hints": {}, "opened": [], "complete": true}',
        b'{"format": 1, "current": 7, "finished": {}, "hints": {}, "opened": [], "complete": true}',
        b'{"format": 1, "current": "", "finished": {"a": {"file": 1}}, "hints": {}, "opened": [], "complete": true}',
        b'{"format": 1, "current": "", "finished": {"a": 3}, "hints": {}, "opened": [], "complete": true}',
        b'{"format": 1, "current": "", "finished": [], "hints": {}, "opened": [], "complete": true}',
        b"[" * 100_000,
    ],
)
def test_a_file_that_makes_no_sense_is_set_aside_and_said(
    place: Workspace, file: ProgressFile, said: list[str], content: bytes
) -> None:
    path = place.state / "progress.json"
    path.write_bytes(content)
    progress = file.read()
    assert not progress.complete
    assert progress.finished == {}
    (aside,) = place.state.glob("progress.unreadable.*")
    assert aside.read_bytes() == content
    assert len(said) == 1
    assert str(aside) in said[0]
    with file.change() as changed:
        changed.complete = True
    assert file.read().complete
    assert json.loads(path.read_text())["complete"] is True


def test_two_that_cannot_be_read_are_both_kept(place: Workspace, file: ProgressFile) -> None:
    for _ in range(2):
        (place.state / "progress.json").write_text("{")
        file.read()
    assert len(list(place.state.glob("progress.unreadable.*"))) == 2


def test_a_lost_file_is_found_out_again_from_checks(place: Workspace, file: ProgressFile, lab: Lab) -> None:
    file.finish(lab, b"right")
    (place.state / "progress.json").unlink()
    assert not file.read().complete
