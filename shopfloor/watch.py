"""Check on save: the verdict of the file just saved, then of finished labs that may no longer pass.

The main thread alone prints. Saves, keys and verdicts come to it through a queue, each from a thread of its own.
"""

import queue
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Self

from shopfloor import verdicts
from shopfloor.console import complain, out
from shopfloor.desk import Checks, Desk, Judgement
from shopfloor.errors import UserError
from shopfloor.keys import END_OF_INPUT, keys
from shopfloor.labs import Lab
from shopfloor.paths import material
from shopfloor.progress import State, digest
from shopfloor.saves import Gone, Saved, Saves, events_arrive
from shopfloor.services.process import Child, start_child
from shopfloor.words import counted, shown, tell

PATIENCE_SECONDS = 1.0
"""After which it is said that a check still runs."""

KEYS = "Keys: h hint, n next lab, l list, o load, q quit"


class Why(Enum):
    """What a check is for."""

    SAVE = auto()
    AGAIN = auto()
    WARM = auto()


@dataclass(frozen=True)
class Request:
    """A check that is to be made."""

    lab: Lab
    why: Why


@dataclass(frozen=True)
class Judged:
    """What came of a request."""

    request: Request
    judgement: Judgement


@dataclass(frozen=True)
class Failed:
    """A check could not be made."""

    error: Exception


@dataclass(frozen=True)
class Key:
    """A key was pressed."""

    key: str


@dataclass(frozen=True)
class Said:
    """Something else has news for the learner."""

    text: str
    bad: bool = False


Event = Saved | Gone | Judged | Failed | Key | Said
Tell = Callable[[Event], None]


class Checker:
    """Makes checks one after another, in a thread, while the block runs: saved files first, each file once.

    Args:
        desk: whose files.
        answer: called in the thread with what came of each request.
    """

    def __init__(self, desk: Desk, answer: Tell) -> None:
        self._desk = desk
        self._answer = answer
        self._waiting: list[Request] = []
        self._ended = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.running: Request | None = None

    def start(self, checks: Checks) -> None:
        """Begin; requests may have been made before."""
        self._thread = threading.Thread(target=self._run, args=(checks,), name="checker", daemon=True)
        self._thread.start()

    def ask(self, lab: Lab, why: Why) -> None:
        """Have a lab checked: before all others when it was saved."""
        with self._changed:
            kept = [request for request in self._waiting if request.lab != lab]
            saved = why is Why.SAVE or any(request.why is Why.SAVE for request in self._waiting if request.lab == lab)
            request = Request(lab, Why.SAVE if saved else why)
            self._waiting = [request, *kept] if saved else [*kept, request]
            self._changed.notify()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        if self._thread:
            self._thread.join()

    def _run(self, checks: Checks) -> None:
        while request := self._next():
            try:
                if request.why is Why.WARM:
                    checks.check(request.lab, request.lab.starter)
                else:
                    self._answer(Judged(request, self._desk.judge(checks, request.lab)))
            except Exception as error:  # noqa: BLE001 - the main thread raises what it cannot put into words
                if not self._ended:
                    self._answer(Failed(error))

    def _next(self) -> Request | None:
        with self._changed:
            self.running = None
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if not self._ended:
                self.running = self._waiting.pop(0)
            return self.running


class Watch:
    """Watches the learner's files until they quit.

    Args:
        desk: whose files.
        book: the address where the book is served; empty when it is not.
    """

    def __init__(self, desk: Desk, *, book: str = "") -> None:
        self._desk = desk
        self._book = book
        self._events: queue.Queue[Event] = queue.Queue()
        self._checker = Checker(desk, self._events.put)
        self._failing: dict[str, str] = {}
        self._no_labs_file: set[str] = set()
        self._announced: Request | None = None
        self._load: Child | None = None
        self._running = ExitStack()
        self._has_keys = False
        self._quit = False

    def say(self, text: str, *, bad: bool = False) -> None:
        """Have something printed, from any thread."""
        self._events.put(Said(text, bad))

    def run(self, checks: Checks) -> None:
        """Watch until the learner quits.

        Args:
            checks: what checks files. It is used in one other thread, which ends when it fails.
        """
        with self._running:
            polling = not events_arrive(self._desk.workspace.state)
            self._desk.find_out_again(checks, lambda text: tell(f"Finding out what is finished: {text}"))
            self._running.enter_context(Saves(self._desk.workspace.shop, self._events.put, polling=polling))
            self._has_keys = self._running.enter_context(keys(lambda key: self._events.put(Key(key))))
            self._begin(polling)
            self._checker.start(checks)
            while not self._quit:
                self._handle(self._next())

    def __enter__(self) -> Self:
        self._checker.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the thread that checks; what it uses must have ended before, or it may take long."""
        self._checker.__exit__()

    def _begin(self, polling: bool) -> None:
        lab = self._desk.lab()
        self._desk.make_current(lab)
        if polling:
            tell("The system does not tell of changes here: the files are looked at five times a second.")
        if outdated := self._desk.workspace.outdated():
            tell(f"The kit has changed {counted(len(outdated), 'file')} of the shop. To merge: shopfloor update")
        for other in self._desk.to_check_again():
            self._checker.ask(other, Why.AGAIN)
        if not self._introduce(lab):
            self._checker.ask(lab, Why.WARM)

    def _introduce(self, lab: Lab) -> bool:
        """Say what the lab is about, and check what was begun before; return whether there was anything.

        Only then the learner is told to save: what is saved sooner would be found begun and noticed, and told twice.
        """
        tell()
        tell(self._desk.introduction(lab, self._book))
        begun = self._resume(lab)
        tell("Save the file, and its checks run.")
        if self._has_keys:
            tell(KEYS)
        return begun

    def _resume(self, lab: Lab) -> bool:
        state = self._desk.state(lab)
        if state is State.PASSED:
            tell("It passes. Press n for the next lab." if self._has_keys else "It passes.")
        elif self._desk.content(lab) is None:
            tell(self._desk.gone(lab))
        elif self._desk.is_begun(lab):
            self._checker.ask(lab, Why.SAVE)
            return True
        return False

    def _next(self) -> Event:
        """The next event; meanwhile look after what takes long."""
        while True:
            try:
                return self._events.get(timeout=PATIENCE_SECONDS)
            except queue.Empty:
                self._say_what_takes_long()
                self._look_after_load()

    def _handle(self, event: Event) -> None:
        if isinstance(event, Saved):
            self._on_save(event.name)
        elif isinstance(event, Gone):
            if lab := self._desk.lab_of(event.name):
                tell()
                tell(self._desk.gone(lab))
        elif isinstance(event, Judged):
            self._on_verdict(event.request, event.judgement)
        elif isinstance(event, Failed):
            if not isinstance(event.error, UserError):
                raise event.error
            complain(str(event.error))
        elif isinstance(event, Key):
            self._on_key(event.key)
        elif event.bad:
            complain(event.text)
        else:
            tell(event.text)

    def _on_save(self, name: str) -> None:
        lab = self._desk.lab_of(name)
        if lab is None:
            if name not in self._no_labs_file:
                self._no_labs_file.add(name)
                path = shown(self._desk.workspace.file(name))
                tell(f"{path} belongs to no lab: the checks use the kit's own. You may change it all the same.")
            return
        if self._desk.work_on(lab):
            tell(f"{lab.address} is the current lab now.")
        self._checker.ask(lab, Why.SAVE)
        for other in self._desk.to_check_again():
            if other != lab:
                self._checker.ask(other, Why.AGAIN)

    def _on_verdict(self, request: Request, judgement: Judgement) -> None:
        lab, verdict = judgement.lab, judgement.verdict
        content = self._desk.content(lab)
        if judgement.digest != (digest(content) if content is not None else ""):
            self._checker.ask(lab, request.why)  # saved since: this verdict is of the past
            return
        known = self._failing.get(lab.address) == judgement.digest
        if verdict.passed:
            self._failing.pop(lab.address, None)
        else:
            self._failing[lab.address] = judgement.digest
        if request.why is Why.AGAIN and known and not verdict.passed:
            tell(f"{lab.address}, which passed before, still does not.")
            return
        tell(f"\nChecked at {datetime.now().astimezone():%H:%M:%S}.")
        out.print(verdicts.render(verdict, following=self._following(lab)), markup=False)
        self._comment(judgement)

    def _following(self, lab: Lab) -> Lab | None:
        """The lab to go on with after this one; None when it is not the one being worked on, or was the last."""
        following = self._desk.next_lab()
        is_next = lab == self._desk.lab() and self._desk.state(following) is not State.PASSED
        return following if is_next and following != lab else None

    def _comment(self, judgement: Judgement) -> None:
        """What the verdict means for what to do next."""
        lab = judgement.lab
        if not judgement.verdict.passed:
            if judgement.was is not State.OPEN:
                tell(f"\n{lab.address} passed before, and does not any more.")
        elif following := self._following(lab):
            tell("Press n to go on." if self._has_keys else f"To go on: shopfloor watch {following.address}")
        elif all(self._desk.state(other) is State.PASSED for other in self._desk.labs.values()):
            tell("\nYou have finished every lab.")

    def _on_key(self, key: str) -> None:
        if key in {"q", END_OF_INPUT}:
            self._quit = True
        elif key == "h":
            tell()
            out.print(self._desk.next_hint(self._desk.lab()), markup=False)
        elif key == "n":
            lab = self._desk.next_lab()
            self._desk.make_current(lab)
            self._introduce(lab)
        elif key == "l":
            tell()
            tell(self._desk.overview())
        elif key == "o":
            self._start_load()
        else:
            tell(KEYS)

    def _say_what_takes_long(self) -> None:
        running = self._checker.running
        if running and running.why is Why.SAVE and running is not self._announced:
            self._announced = running
            tell(f"Checking {running.lab.address} ...")

    def _start_load(self) -> None:
        """Run Locust in a process of its own: a save meanwhile is answered as ever."""
        if self._load:
            tell("The load still runs.")
            return
        address = self._desk.lab().address
        log = material().state / "logs" / "load.log"
        self._load = start_child([sys.executable, "-m", "shopfloor", "load", address], log=log)
        self._running.callback(self._load.stop)
        tell(f"Loading the naive shop, then yours, with {address}: about half a minute.")

    def _look_after_load(self) -> None:
        if self._load and self._load.poll() is not None:
            out.print("\n" + self._load.log.read_text(errors="replace").rstrip(), markup=False)
            self._load = None


def watch(address: str = "") -> None:
    """Start what checks need, and watch the learner's files until they quit.

    Args:
        address: of the lab to work on; the current one when empty.
    """
    from shopfloor.checks.engine import Engine  # noqa: PLC0415 - it loads SQLAlchemy; the tests' watch needs none
    from shopfloor.services import running_services  # noqa: PLC0415 - as above

    desk = Desk()
    if address:
        desk.make_current(desk.lab(address))
    make_workspace(desk)
    tell("Ctrl-C stops everything.")
    with running_services() as services, Watch(desk) as watching, Engine(services) as engine:
        watching.run(engine)


def make_workspace(desk: Desk) -> None:
    """Make the learner's folder, unless there is one, and say where it is."""
    if desk.workspace.make():
        tell(f"Your copy of the shop is in {shown(desk.workspace.shop)}.")
