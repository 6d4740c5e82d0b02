"""Saves are noticed, however an editor makes them, with events and without."""

import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shopfloor import saves
from shopfloor.saves import FORCE_POLLING, Gone, Saved, Saves, events_arrive


class Watched:
    """A watched folder with one file, and what was told of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: queue.Queue[Saved | Gone] = queue.Queue()
        self.file = folder / "data/indexing.py"

    def next(self) -> Saved | Gone:
        return self.told.get(timeout=30)

    def nothing_more(self) -> None:
        """A save of another file is the next thing told."""
        marker = self.folder / "marker.py"
        marker.write_text("now\n")
        while (event := self.next()) != Saved("marker.py"):
            assert event == Saved("data/indexing.py"), "one save may be told twice"


@pytest.fixture(params=["events", "polling"])
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path / "shop")
    made.file.parent.mkdir(parents=True)
    made.file.write_text("one\n")
    with Saves(made.folder, made.told.put, polling=request.param == "polling"):
        yield made


def in_place(path: Path) -> None:
    path.write_text("two\n")


def by_rename(path: Path) -> None:
    other = path.with_suffix(".tmp")
    other.write_text("two\n")
    other.rename(path)


def with_backup(path: Path) -> None:
    """As vim does with `backupcopy=no`."""
    path.rename(path.with_name(path.name + "~"))
    path.write_text("two\n")
    path.with_name(path.name + "~").unlink()


def unchanged(path: Path) -> None:
    path.write_text(path.read_text())


@pytest.mark.parametrize("save", [in_place, by_rename, with_backup, unchanged])
def test_a_save_is_told(watched: Watched, save: Callable[[Path], None]) -> None:
    save(watched.file)
    assert watched.next() == Saved("data/indexing.py")
    watched.nothing_more()


def test_a_deleted_file_is_told_and_so_is_its_return(watched: Watched) -> None:
    watched.file.unlink()
    assert watched.next() == Gone("data/indexing.py")
    watched.file.write_text("one\n")
    assert watched.next() == Saved("data/indexing.py")


def test_what_editors_leave_beside_it_is_not_told(watched: Watched) -> None:
    for name in (".indexing.py.swp", "indexing.py~", "4913", ".#indexing.py", "__pycache__/indexing.py", "notes.txt"):
        path = watched.file.parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    (watched.file.parent / "dangling.py").symlink_to("/nowhere")
    watched.nothing_more()


def test_a_folder_that_is_made_anew_is_still_watched(watched: Watched) -> None:
    watched.folder.rename(watched.folder.with_name("old"))
    assert watched.next() == Gone("data/indexing.py")
    watched.file.parent.mkdir(parents=True)
    watched.file.write_text("new\n")
    assert watched.next() == Saved("data/indexing.py")
    watched.file.write_text("newer\n")
    assert watched.next() == Saved("data/indexing.py")


def test_events_that_never_come_cost_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system may accept a watch and tell nothing: it is looked at all the same."""
    made = Watched(tmp_path)
    made.file.parent.mkdir()
    made.file.write_text("one\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    watch = saves.watchfiles.watch
    monkeypatch.setattr(saves.watchfiles, "watch", lambda _, **settings: watch(elsewhere, **settings))
    with Saves(tmp_path, made.told.put, polling=False):
        made.file.write_text("two\n")
        assert made.next() == Saved("data/indexing.py")


def test_where_the_limit_on_watches_is_reached_files_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "OS file watch limit reached")

    made = Watched(tmp_path)
    made.file.parent.mkdir()
    made.file.write_text("one\n")
    monkeypatch.setattr(saves.watchfiles, "watch", refuse)
    with Saves(tmp_path, made.told.put, polling=False):
        made.file.write_text("two\n")
        assert made.next() == Saved("data/indexing.py")


def test_whether_events_arrive_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert events_arrive(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not events_arrive(tmp_path / "missing")
    monkeypatch.setenv(FORCE_POLLING, "1")
    assert not events_arrive(tmp_path)


def test_a_system_that_tells_nothing_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a Windows disk under WSL: the watch is accepted, and the change is never told."""
    monkeypatch.setattr(saves, "PROBE_SECONDS", 0.1)
    real, elsewhere = saves.RustNotify, tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(saves, "RustNotify", lambda _, *settings: real([str(elsewhere)], *settings))
    assert not events_arrive(tmp_path)
