"""The commands. Each is thin: what it does is in the module that it calls."""

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from shopfloor.console import complain, out, step
from shopfloor.errors import UserError

app = typer.Typer(
    name="shopfloor",
    help="An executable handbook of backend engineering: every claim in it is measured on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Each command imports what it runs: the help must not wait for Sphinx and SQLAlchemy.


@app.command()
def start() -> None:
    """Start the services, serve the book and measure what is not measured yet; Ctrl-C ends it all.

    Example: shopfloor start
    """
    from shopfloor.start import start as run  # noqa: PLC0415

    run()


@app.command()
def book() -> None:
    """Measure and build the whole book, and exit; fails on a false claim, a warning or a broken link.

    Example: shopfloor book
    """
    from shopfloor.book import build  # noqa: PLC0415

    with step("Book") as say:
        folder = build(say)
        say("built and checked")
    out.print(f"Open {folder / 'index.html'} in a browser, or run: shopfloor start")


@app.command()
def notebooks(
    page: Annotated[str, typer.Argument(help="The chapter to open, such as data/indexing.")] = "",
) -> None:
    """Open the chapters as notebooks in JupyterLab, on the services that already run or on its own.

    Example: shopfloor notebooks data/indexing
    """
    from shopfloor.notebooks import run  # noqa: PLC0415

    run(page)


class Interrupted(BaseException):
    """The process was told to stop. It is no KeyboardInterrupt, which the command-line library would keep to itself."""


def main() -> None:
    """Run the command line: what a user can cause is said in words, and an interrupt ends cleanly."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        app()
    except UserError as error:
        complain(str(error))
        sys.exit(1)
    except Interrupted:
        out.print("\nStopped.")
        sys.exit(130)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise Interrupted
