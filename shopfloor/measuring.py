"""Draws the book and measures its pages in a process of its own, beside whoever serves it.

So neither waits for the other's interpreter, and what stays in memory afterwards is small. The process is run as
`python -m shopfloor.measuring DESCRIPTOR`, and tells on that pipe, in lines of JSON, what happens.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from shopfloor.errors import UserError
from shopfloor.paths import material
from shopfloor.services.process import Child, log_tail, start_child

if TYPE_CHECKING:
    from shopfloor.execution import Page, Store

END_SECONDS = 10.0
"""How long the process may take to end after its last word."""


class Kind(StrEnum):
    """What a piece of news is about: DRAWN, the book for the first time; END, that there will be no more."""

    DRAWN = "drawn"
    PROGRESS = "progress"
    DONE = "done"
    WRONG = "wrong"
    END = "end"


@dataclass(frozen=True)
class News:
    """What happens in the process.

    Attributes:
        kind: what it is about.
        text: in words.
    """

    kind: Kind
    text: str


Tell = Callable[[News], None]


@contextmanager
def measuring() -> Iterator[Iterator[News]]:
    """Draw and measure the book while the block runs; its services must run already.

    Yields:
        The news, as it comes; it ends when there is nothing left to measure.
    """
    heard, told = os.pipe()
    log = material().state / "logs" / "measuring.log"
    command = [sys.executable, "-m", "shopfloor.measuring", str(told)]
    try:
        child = start_child(command, log=log, pass_fds=[told])
    finally:
        os.close(told)
    with os.fdopen(heard) as stream, child:
        yield _news(stream, child)


def follow(news: Iterator[News], tell: Tell) -> threading.Thread:
    """Pass news on from a thread of its own, which ends with the news."""

    def pass_on() -> None:
        for piece in news:
            tell(piece)

    thread = threading.Thread(target=pass_on, name="news", daemon=True)
    thread.start()
    return thread


def _news(stream: TextIO, child: Child) -> Iterator[News]:
    ended = False
    for line in stream:
        told = json.loads(line)
        ended = told["kind"] == Kind.END
        if not ended:
            yield News(Kind(told["kind"]), told["text"])
    code = child.wait(END_SECONDS)
    if not ended:
        yield News(Kind.WRONG, f"Measuring broke off ({code}). The end of its log:\n{log_tail(child.log)}")


def measure(tell: Tell) -> None:
    """Draw the book, and execute what is not measured yet; the drawn book gains each page when it is done."""
    from shopfloor import book  # noqa: PLC0415 - loaded in the process alone, not by whoever starts it
    from shopfloor.databases import ensure_template  # noqa: PLC0415 - as above
    from shopfloor.execution import Store, notebook_pages  # noqa: PLC0415 - as above
    from shopfloor.services import running_services  # noqa: PLC0415 - as above

    def say(text: str) -> None:
        tell(News(Kind.PROGRESS, text))

    with running_services() as services, book.exclusive(say):
        pages, store = notebook_pages(), Store()
        _draw(pages, store, tell)
        stale = [page for page in pages if store.get(page) is None]
        tell(News(Kind.DRAWN, _standing(len(stale))))
        if not stale:
            return
        began = time.monotonic()
        ensure_template(services, "medium", progress=say)
        tell(News(Kind.DONE, f"Seed data: ready ({time.monotonic() - began:.0f} s)"))
        began, measured = time.monotonic(), 0

        def page_is_done(_: "Page") -> None:
            nonlocal measured
            measured += 1
            _draw(pages, store, tell)

        failures = book.execute_stale(pages, store, say, on_done=page_is_done)
        for failure in failures:
            tell(News(Kind.WRONG, failure))
        took = time.monotonic() - began
        tell(News(Kind.DONE, f"Measuring: {measured} of {len(stale)} pages of the book are done ({took:.0f} s)"))


def _standing(stale: int) -> str:
    if stale:
        return f"Until {stale} of its pages are measured, notes stand in place of their figures."
    return "Every figure in it was measured on this machine and is up to date."


def _draw(pages: "list[Page]", store: "Store", tell: Tell) -> None:
    """Draw the book; what is wrong with it is said, and what could be drawn is served all the same."""
    from shopfloor import book  # noqa: PLC0415 - as above

    try:
        book.draw(pages, store)
    except UserError as error:
        tell(News(Kind.WRONG, str(error)))


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(descriptor: int) -> None:
    """Measure, and tell on a pipe."""
    signal.signal(signal.SIGTERM, _interrupt)  # ends the kernels in their orderly way
    with os.fdopen(descriptor, "w") as stream:

        def tell(news: News) -> None:
            stream.write(json.dumps(asdict(news)) + "\n")
            stream.flush()

        try:
            measure(tell)
        except UserError as error:
            tell(News(Kind.WRONG, str(error)))
        except KeyboardInterrupt:
            pass
        tell(News(Kind.END, ""))


if __name__ == "__main__":
    main(int(sys.argv[1]))
