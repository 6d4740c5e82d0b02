"""The commands of the kit. Each is thin: what it does is in the module that it calls.

The learner's are declared in `shopfloor.commands.declared`.
"""

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from shopfloor.commands.declared import Address, learner
from shopfloor.console import complain, out, step
from shopfloor.errors import UserError

app = typer.Typer(
    name="shopfloor",
    help="An executable handbook of backend engineering: every claim in it is measured on this machine.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

kit = typer.Typer()

INTERRUPTED = 130
"""The exit code that typer gives an interrupt."""

# Each command imports what it runs: the help must not wait for Sphinx and SQLAlchemy.


@app.command()
def start() -> None:
    """Start everything: services, book, your files watched.

    Example: shopfloor start
    """
    from shopfloor.start import start as run  # noqa: PLC0415

    run()


@kit.command()
def book() -> None:
    """Measure and build the whole book, and exit.

    It fails on a false claim, a warning or a broken link.

    Example: shopfloor book
    """
    from shopfloor.book import build  # noqa: PLC0415

    with step("Book") as say:
        folder = build(say)
        say("built and checked")
    out.print(f"Open {folder / 'index.html'} in a browser, or run: shopfloor start")


@kit.command()
def notebooks(
    page: Annotated[str, typer.Argument(help="The chapter to open, such as data/indexing.")] = "",
) -> None:
    """Open the chapters as notebooks in JupyterLab.

    It runs on the services that are up already, or on its own.

    Example: shopfloor notebooks data/indexing
    """
    from shopfloor.notebooks import run  # noqa: PLC0415

    run(page)


@kit.command()
def services() -> None:
    """Print where PostgreSQL and Valkey run.

    When they do not yet, they are run until Ctrl-C.

    Example: shopfloor services
    """
    from shopfloor.commands.running import services as run  # noqa: PLC0415

    run()


@kit.command()
def verify(
    address: Address = "",
    runs: Annotated[int, typer.Option(min=1, help="How many times each verdict must be the same.")] = 20,
    mutate: Annotated[bool, typer.Option("--mutate", help="Also change the solution and see what notices.")] = False,
) -> None:
    """Check the checks of one lab, or of all.

    The starter must fail, the solution pass, and each shipped mistake be known for what it is.

    Example: shopfloor verify data/indexing --runs 20
    """
    from shopfloor.gate import verify_command  # noqa: PLC0415

    raise typer.Exit(verify_command(address or None, runs, mutate))


@kit.command()
def doctor() -> None:
    """Look for what is wrong here, and say how to mend it.

    Example: shopfloor doctor
    """
    from shopfloor.doctor import run  # noqa: PLC0415

    raise typer.Exit(run())


app.add_typer(learner)  # in this order they are listed
app.add_typer(kit)


def main() -> None:
    """Run the command line: what a user can cause is said in words, and an interrupt ends cleanly."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        app(standalone_mode=True)
    except UserError as error:
        complain(str(error))
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            out.print("\nStopped.")
        raise


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
