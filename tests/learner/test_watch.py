"""The loop from save to verdict, with checks that a test holds up and lets go."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shopfloor.checks.engine import Verdict
from shopfloor.desk import Desk
from shopfloor.errors import UserError
from shopfloor.labs import Lab
from shopfloor.paths import material
from shopfloor.progress import State
from shopfloor.watch import Key, Watch
from shopfloor.words import tell
from shopfloor.workspace import Workspace
from tests.helpers import wait_until

INDEXING, N_PLUS_ONE = "data/indexing", "data/n_plus_one"


class FakeChecks:
    """Passes what says `right`. While `gate` is closed, a check waits before it answers."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.seen: list[tuple[str, str]] = []
        self.error: Exception | None = None

    def check(self, lab: Lab, file: Path) -> Verdict:
        content = file.read_text() if file.exists() else ""
        self.seen.append((lab.address, content))
        assert file == lab.starter or self.gate.wait(30)
        if self.error:
            raise self.error
        passed = "right" in content
        return Verdict(lab.address, passed, 1, int(passed), diagnosis="" if passed else f"It says {content.strip()}.")


class Running:
    """A watch in a thread, and what it printed."""

    def __init__(self, desk: Desk, said: Callable[[], str]) -> None:
        self.desk = desk
        self.checks = FakeChecks()
        self._said = said
        self.text = ""
        self._watch: Watch | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._watch = Watch(self.desk)
        self._thread = threading.Thread(target=self._run, args=(self._watch,))
        self._thread.start()
        self.wait_for("Save the file")

    def _run(self, watch: Watch) -> None:
        with watch:
            watch.run(self.checks)

    def file(self, address: str) -> Path:
        return self.desk.workspace.file(f"{address}.py")

    def save(self, address: str, text: str) -> None:
        """Save at once, so that no half of it can be noticed."""
        new = self.desk.workspace.folder / "new"
        new.write_text(text)
        new.rename(self.file(address))

    def wait_for(self, words: str) -> None:
        def said() -> bool:
            self.text += self._said()
            return words in self.text

        wait_until(said, message=f"never said {words!r}, but:\n{self.text}")

    def press(self, key: str) -> None:
        assert self._watch
        self._watch._events.put(Key(key))

    def stop(self) -> None:
        self.checks.gate.set()
        if self._thread:
            self.press("q")
            self._thread.join(30)
            assert not self._thread.is_alive()


@pytest.fixture
def running(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr("shopfloor.keys._have_terminal", lambda: False)  # it is watched in a thread
    desk = Desk(Workspace(tmp_path / "workspace", material().labs / "shop"))
    desk.workspace.make()
    folder = tmp_path / "labs"
    labs = [
        Lab(address, folder / address, address, 5, (), "small", ("1", "2", "3"), ())
        for address in (INDEXING, N_PLUS_ONE)
    ]
    for lab in labs:
        lab.folder.mkdir(parents=True)
        lab.tests.write_text("")
    desk.labs = {lab.address: lab for lab in labs}
    made = Running(desk, lambda: "".join(capsys.readouterr()))
    yield made
    made.stop()


def test_a_save_gets_its_verdict(running: Running) -> None:
    running.start()
    running.save(INDEXING, "wrong one\n")
    running.wait_for("It says wrong one.")
    running.save(INDEXING, "right\n")
    running.wait_for("data/indexing: passed.")
    assert running.desk.state(running.desk.labs[INDEXING]) is State.PASSED


def test_of_two_saves_in_a_row_the_later_one_is_shown_last_and_the_outdated_one_not_at_all(running: Running) -> None:
    running.start()
    running.checks.gate.clear()
    running.save(INDEXING, "first\n")
    wait_until(lambda: (INDEXING, "first\n") in running.checks.seen)
    running.save(INDEXING, "second\n")  # while the first is being checked
    running.wait_for("Checking data/indexing ...")
    running.checks.gate.set()
    running.wait_for("It says second.")
    assert "It says first." not in running.text


def test_what_passed_while_it_was_edited_counts_for_what_passed_only(running: Running) -> None:
    running.start()
    running.checks.gate.clear()
    running.save(INDEXING, "right\n")
    wait_until(lambda: (INDEXING, "right\n") in running.checks.seen)
    running.save(INDEXING, "wrong\n")
    running.checks.gate.set()
    running.wait_for("It says wrong.")
    assert running.desk.state(running.desk.labs[INDEXING]) is State.CHANGED


def test_a_finished_lab_that_was_changed_is_checked_after_the_current_one_and_a_regression_is_said(
    running: Running,
) -> None:
    lab = running.desk.labs[INDEXING]
    running.save(INDEXING, "right\n")
    running.desk.progress.finish(lab, b"right\n")
    running.desk.make_current(running.desk.labs[N_PLUS_ONE])
    running.start()
    running.save(INDEXING, "spoilt\n")
    running.wait_for("data/indexing passed before, and does not any more")
    running.save(N_PLUS_ONE, "attempt\n")
    running.wait_for("It says attempt.")
    running.wait_for("data/indexing, which passed before, still does not")
    assert running.text.count("It says spoilt.") == 1
    assert running.desk.lab().address == N_PLUS_ONE, "mending a finished lab does not make it the current one"


@pytest.mark.parametrize(("saved", "other"), [(INDEXING, N_PLUS_ONE), (N_PLUS_ONE, INDEXING)])
def test_what_is_saved_at_the_invitation_is_told_of_once(
    running: Running, monkeypatch: pytest.MonkeyPatch, saved: str, other: str
) -> None:
    running.save(INDEXING, "right\n")
    running.desk.progress.finish(running.desk.labs[INDEXING], b"right\n")
    running.desk.make_current(running.desk.labs[N_PLUS_ONE])

    def tell_and_save(text: str = "") -> None:
        tell(text)
        if text.startswith("Save the file"):
            running.save(saved, "spoilt\n")

    monkeypatch.setattr("shopfloor.watch.tell", tell_and_save)
    running.start()
    running.wait_for("It says spoilt.")
    running.save(other, "attempt\n")
    running.wait_for("It says attempt.")
    assert running.text.count("It says spoilt.") == 1


def test_a_finished_lab_with_new_checks_is_run_again_at_the_start(running: Running) -> None:
    lab = running.desk.labs[INDEXING]
    running.save(INDEXING, "no longer enough\n")
    running.desk.progress.finish(lab, b"no longer enough\n")
    lab.tests.write_text("# new\n")
    running.desk.make_current(running.desk.labs[N_PLUS_ONE])
    running.start()
    running.wait_for("data/indexing passed before, and does not any more")


def test_the_next_day_it_goes_on_where_it_was(running: Running) -> None:
    running.desk.make_current(running.desk.labs[N_PLUS_ONE])
    running.save(N_PLUS_ONE, "yesterday's\n")
    running.start()
    running.wait_for("Lab data/n_plus_one")
    running.wait_for("It says yesterday's.")


def test_saving_the_file_of_a_lab_that_is_not_begun_makes_it_the_current_one(running: Running) -> None:
    running.start()
    running.save(N_PLUS_ONE, "attempt\n")
    running.wait_for("data/n_plus_one is the current lab now")
    running.wait_for("It says attempt.")


def test_a_deleted_file_is_said_with_how_to_bring_it_back(running: Running) -> None:
    running.desk.workspace.put(f"{INDEXING}.py", b"mine\n")
    running.desk.workspace.reset(f"{INDEXING}.py")
    running.start()
    running.file(INDEXING).unlink()
    running.wait_for("shopfloor reset data/indexing")
    running.wait_for("The latest copy kept of yours")


def test_a_file_of_no_lab_is_said_once(running: Running) -> None:
    running.start()
    for _ in range(2):
        running.desk.workspace.file("models.py").write_text("# mine\n")
        running.wait_for("belongs to no lab")
    running.save(INDEXING, "attempt\n")
    running.wait_for("It says attempt.")
    assert running.text.count("belongs to no lab") == 1


def test_keys(running: Running) -> None:
    running.start()
    running.press("h")
    running.wait_for("Hint 1 of 3 for data/indexing")
    running.press("n")
    running.wait_for("Lab data/n_plus_one")
    running.press("h")
    running.wait_for("Hint 1 of 3 for data/n_plus_one")
    running.press("l")
    running.wait_for("data/n_plus_one  not begun (the current lab)")
    running.press("x")
    running.wait_for("Keys: h hint")


def test_services_that_fail_are_said_and_watching_goes_on(running: Running) -> None:
    running.checks.error = UserError("PostgreSQL has gone.")
    running.start()
    running.save(INDEXING, "attempt\n")
    running.wait_for("Error: PostgreSQL has gone.")
    running.checks.error = None
    running.save(INDEXING, "attempt again\n")
    running.wait_for("It says attempt again.")


def test_news_from_elsewhere_are_printed(running: Running) -> None:
    running.start()
    assert running._watch
    running._watch.say("The book is measured.")
    running.wait_for("The book is measured.")
    running._watch.say("A claim is false.", bad=True)
    running.wait_for("Error: A claim is false.")


def test_what_was_finished_is_found_out_from_checks_when_it_is_not_known(running: Running) -> None:
    running.save(INDEXING, "right\n")
    (running.desk.workspace.state / "progress.json").write_text("{")
    running.start()
    running.wait_for("It was set aside as")
    assert running.desk.state(running.desk.labs[INDEXING]) is State.PASSED
    assert running.desk.progress.read().complete
