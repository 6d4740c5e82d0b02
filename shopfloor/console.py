"""What the commands print: steps with their outcome, on a terminal or into a file, with or without colour."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

# rich itself honours NO_COLOR and a stream that is no terminal.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def step(name: str) -> Iterator[Callable[[str], None]]:
    """Show that `name` goes on, then one line with how it ended and how long it took.

    Yields:
        A function that says how far it is. On a terminal each text replaces the one before; the last
        one stays in the line that remains.
    """
    began = time.monotonic()
    detail = "done"
    with out.status(f"{escape(name)} ...") as status:

        def say(text: str) -> None:
            nonlocal detail
            detail = text
            status.update(f"{escape(name)}: {escape(text)} ...")

        yield say
    out.print(f"[bold]{escape(name)}[/bold]: {escape(detail)} ({time.monotonic() - began:.1f} s)")
    out.file.flush()  # a reader of a pipe sees each step when it is done, not when a buffer is full


def complain(message: str) -> None:
    """Print an error where errors go."""
    err.print(f"[bold red]Error:[/bold red] {escape(message)}")
