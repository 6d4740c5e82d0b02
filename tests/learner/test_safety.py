"""No sequence of commands, edits, updates and kills loses a line that the learner wrote."""

import io
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from shopfloor.labs import Lab
from shopfloor.progress import ProgressFile
from shopfloor.workspace import Workspace, compiles
from tests.helpers import wait_until

NAMES = ("data/indexing.py", "data/n_plus_one.py", "models.py")
STARTER = "".join(f"NUMBER_{number} = {number}\n" for number in range(12))
SYSTEM_CALLS = ("rename", "replace", "fsync", "unlink", "mkdir", "rmdir")


class Killed(BaseException):
    """The process ended here."""


@contextmanager
def killed_after(calls: int) -> Iterator[None]:
    """Let the process 'die' at a system call: that one and all later ones, those of clean-up too, do nothing.

    An even number dies before its call, an odd one just after it.
    """
    left = calls

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal left
            left -= 2
            if left < -1:
                raise Killed
            result = real(*arguments, **named)
            if left == -1:
                left -= 1
                raise Killed
            return result

        return call

    replaced = {name: dying(getattr(os, name)) for name in SYSTEM_CALLS}
    with mock.patch.multiple("os", **replaced), suppress(Killed):
        yield


class Learning(RuleBasedStateMachine):
    """A learner, their kit, and a machine that may be switched off at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        root = Path(self.folder.name)
        self.kit = root / "kit"
        self.place = Workspace(root / "workspace", self.kit)
        self.count = 0
        self.written: dict[str, set[str]] = {name: set() for name in NAMES}
        self.kept: dict[Path, bytes] = {}
        self.ran: dict[str, bool] = {}

    @initialize()
    def begin(self) -> None:
        for name in NAMES:
            path = self.kit / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(STARTER)
        self.place.make()

    def teardown(self) -> None:
        self.folder.cleanup()

    def command(self, calls: int | None, run: Callable[[], object]) -> None:
        """Run a command, to its end or to the death of its process; in the latter case run it once more."""
        self.ran = {name: compiles(path.read_bytes()) for name in NAMES if (path := self.place.file(name)).is_file()}
        if calls is not None:
            with killed_after(calls):
                run()
            self.check_nothing_is_lost()
        run()

    kills = st.none() | st.integers(0, 60)

    @rule(name=st.sampled_from(NAMES), at=st.integers(0, 12), replaces=st.booleans(), broken=st.booleans())
    def edit(self, name: str, at: int, replaces: bool, broken: bool) -> None:
        path = self.place.file(name)
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        self.count += 1
        line = f"def mine_{self.count}(:\n" if broken else f"MINE_{self.count} = {self.count}\n"
        own = self.written[name]
        removes = replaces and at < len(lines) and lines[at] not in own
        lines[at : at + removes] = [line]
        own.add(line)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines))

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        """What the learner deletes is theirs to delete."""
        path = self.place.file(name)
        if path.exists():
            self.written[name] -= set(path.read_text().splitlines(keepends=True))
            path.unlink()

    @rule(name=st.sampled_from(NAMES), at=st.integers(0, 12), gone=st.booleans())
    def new_kit(self, name: str, at: int, gone: bool) -> None:
        path = self.kit / name
        if gone:
            path.unlink(missing_ok=True)
            return
        self.count += 1
        lines = path.read_text().splitlines(keepends=True) if path.exists() else STARTER.splitlines(keepends=True)
        lines[at : at + 1] = [f"KIT_{self.count} = {self.count}\n"]
        path.write_text("".join(lines))

    @rule(calls=kills)
    def make(self, calls: int | None) -> None:
        self.command(calls, self.place.make)

    @rule(calls=kills)
    def update(self, calls: int | None) -> None:
        self.command(calls, self.place.update)
        assert self.place.outdated() == []

    @rule(calls=kills, name=st.sampled_from(NAMES))
    def reset(self, calls: int | None, name: str) -> None:
        if (self.kit / name).exists():
            self.command(calls, lambda: self.place.reset(name))
            assert self.place.file(name).read_bytes() == (self.kit / name).read_bytes()

    @rule(calls=kills, name=st.sampled_from(NAMES))
    def solution(self, calls: int | None, name: str) -> None:
        self.command(calls, lambda: self.place.put(name, b"SOLVED = True\n"))

    @rule(calls=kills)
    def finish(self, calls: int | None) -> None:
        said: list[str] = []
        progress = ProgressFile(self.place, said.append)
        lab = Lab("data/indexing", self.kit, "", 1, (), "small", ("", "", ""), ())
        self.command(calls, lambda: progress.finish(lab, b"passed"))
        assert "data/indexing" in progress.read().finished
        assert said == [], "a killed process left a progress file that cannot be read"

    @invariant()
    def check_nothing_is_lost(self) -> None:
        for name in NAMES:
            path = self.place.file(name)
            texts = [copy.read_text() for copy in self.place.copies(name)]
            if path.is_file():
                texts.append(path.read_text())
            there = {line for text in texts for line in text.splitlines(keepends=True)}
            assert self.written[name] <= there, f"lost: {self.written[name] - there}"

    @invariant()
    def check_kept_copies_never_change(self) -> None:
        for path, content in self.kept.items():
            assert path.read_bytes() == content
        for name in NAMES:
            self.kept |= {path: path.read_bytes() for path in self.place.copies(name)}

    @invariant()
    def check_files_that_ran_still_run(self) -> None:
        for name, ran in self.ran.items():
            path = self.place.file(name)
            if path.is_file():
                assert "<<<<<<<" not in path.read_text()
                assert compiles(path.read_bytes()) or not ran
        self.ran = {}


@pytest.mark.slow
def test_no_sequence_of_commands_edits_updates_and_kills_loses_a_line() -> None:
    run_state_machine_as_test(
        Learning,
        settings=settings(
            max_examples=int(os.environ.get("SHOPFLOOR_EXAMPLES", "60")),
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
def test_the_machine_finds_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: without the copies it does."""
    monkeypatch.setattr("shopfloor.workspace._Dated.write", lambda *_: Path())
    with pytest.raises(AssertionError, match="lost"), mock.patch("sys.stdout", io.StringIO()):
        run_state_machine_as_test(
            Learning,
            settings=settings(
                max_examples=60,
                stateful_step_count=20,
                deadline=None,
                derandomize=True,
                database=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )


VICTIM = """
import sys
from pathlib import Path
from shopfloor.workspace import Workspace

place = Workspace(Path(sys.argv[1], "workspace"), Path(sys.argv[1], "kit"))
print("begun", flush=True)
number = 0
while True:
    number += 1
    place.make()
    kit = Path(sys.argv[1], "kit", "models.py")
    new = kit.with_suffix(".new")
    new.write_text(f"KIT = {number}\\n" + kit.read_text().split("\\n", 1)[1])
    new.rename(kit)
    place.update()
    place.put("models.py", f"SOLVED = {number}\\n".encode())
    place.reset("models.py")
"""


@pytest.mark.slow
def test_a_process_that_is_really_killed_loses_nothing_either(tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit/models.py").write_text(STARTER)
    place = Workspace(tmp_path / "workspace", tmp_path / "kit")
    place.make()
    written, chance = set(), random.Random(3)
    for number in range(12):
        with subprocess.Popen([sys.executable, "-c", VICTIM, str(tmp_path)], stdout=subprocess.PIPE) as victim:
            assert victim.stdout
            victim.stdout.readline()
            before = len(place.copies("models.py"))
            after = before + chance.randrange(1, 8)
            wait_until(lambda goal=after: len(place.copies("models.py")) >= goal)  # type: ignore[misc]
            victim.send_signal(signal.SIGKILL)
        place.make()
        place.update()
        file = place.file("models.py")
        line = f"MINE_{number} = 1"
        file.write_text(file.read_text() + line + "\n")
        written.add(line)
        texts = [file.read_text(), *(copy.read_text() for copy in place.copies("models.py"))]
        assert written <= {found for text in texts for found in text.splitlines()}
        assert all(text.startswith(("KIT", "NUMBER", "SOLVED")) for text in texts), "a file was left half written"
    assert not list(place.folder.rglob("*partial*"))
