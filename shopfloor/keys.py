"""Single keys from the terminal, while lines are printed on it."""

import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

END_OF_INPUT = "\x04"


@contextmanager
def keys(tell: Callable[[str], None]) -> Iterator[bool]:
    """Read keys without waiting for Enter while the block runs, when there is a terminal to read them from.

    Ctrl-C and Ctrl-Z work as ever; the terminal is put back at the end.

    Args:
        tell: called in a thread with each key.

    Yields:
        Whether keys are read.
    """
    if not _have_terminal():
        yield False
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    stopped, stop = os.pipe()
    reader = threading.Thread(target=_read, args=(terminal, stopped, tell), name="keys", daemon=True)
    # After Ctrl-Z the shell has its own settings; those of this program come back with it.
    continued = signal.signal(signal.SIGCONT, lambda *_: tty.setcbreak(terminal))
    try:
        tty.setcbreak(terminal)
        reader.start()
        yield True
    finally:
        signal.signal(signal.SIGCONT, continued)
        os.close(stop)
        reader.join()
        os.close(stopped)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _have_terminal() -> bool:
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        return False
    return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()  # one in the background would be stopped


def _read(terminal: int, stopped: int, tell: Callable[[str], None]) -> None:
    while True:
        ready, _, _ = select.select([terminal, stopped], [], [])
        if stopped in ready:
            return
        try:
            data = os.read(terminal, 64)
        except OSError:  # the terminal was closed; the signal for that ends the program
            return
        if not data:
            return
        if data.startswith(b"\x1b"):  # an arrow or a function key: its letters are not meant
            continue
        for key in data.decode(errors="ignore"):
            tell(key)
