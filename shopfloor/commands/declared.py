"""The learner's commands, as the command line knows them."""

from difflib import get_close_matches
from typing import Annotated

import typer

from shopfloor.paths import material

learner = typer.Typer()


def addresses() -> list[str]:
    """The labs' addresses, found without reading the labs, which takes long to import."""
    labs = material().labs
    return sorted(path.parent.relative_to(labs).as_posix() for path in labs.glob("*/*/lab.toml"))


def _complete(typed: str) -> list[str]:
    return [address for address in addresses() if address.startswith(typed)]


def _known(address: str) -> str:
    """An address as typed, or the one that it is the end of, as `indexing` is of `data/indexing`.

    Raises:
        typer.BadParameter: there is no such lab; names the nearest.
    """
    known = addresses()
    if not address or address in known:
        return address
    ends = [one for one in known if one.endswith(f"/{address}")]
    if len(ends) == 1:
        return ends[0]
    near = get_close_matches(address, known, n=1) or [
        one for one in known if get_close_matches(address, [one.rpartition("/")[2]])
    ]
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known) or 'none'}."
    raise typer.BadParameter(f"No lab has the address {address!r}. {hint}")


Address = Annotated[
    str,
    typer.Argument(
        help="The lab, such as data/indexing; the current one when left out.",
        autocompletion=_complete,
        callback=_known,
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask whether you mean it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@learner.command()
def watch(address: Address = "") -> None:
    """Check a lab whenever you save its file.

    Example: shopfloor watch data/indexing
    """
    from shopfloor.watch import watch as run  # noqa: PLC0415

    run(address)


@learner.command()
def check(
    address: Address = "",
    as_json: Json = False,
    trace: Annotated[bool, typer.Option("--trace", help="With the trace of what failed.")] = False,
) -> None:
    """Check your answer to a lab, once.

    It exits with 0 when the answer is right, 1 when it is not yet, 2 when it could not be checked.

    Example: shopfloor check data/indexing --trace
    """
    from shopfloor.commands.checking import check as run  # noqa: PLC0415

    run(address, as_json=as_json, trace=trace)


@learner.command()
def hint(address: Address = "") -> None:
    """Show the next hint.

    Example: shopfloor hint
    """
    from shopfloor.commands.answers import hint as run  # noqa: PLC0415

    run(address)


@learner.command()
def diff(address: Address = "", yes: Yes = False) -> None:
    """Show your answer beside the kit's.

    It asks once whether you mean it if you have not passed yet.

    Example: shopfloor diff data/indexing
    """
    from shopfloor.commands.answers import diff as run  # noqa: PLC0415

    run(address, yes=yes)


@learner.command()
def solution(address: Address = "", yes: Yes = False) -> None:
    """Put the kit's answer into your file; yours is kept.

    It asks once whether you mean it if you have not passed yet.

    Example: shopfloor solution data/indexing --yes
    """
    from shopfloor.commands.answers import solution as run  # noqa: PLC0415

    run(address, yes=yes)


@learner.command()
def reset(address: Address = "") -> None:
    """Begin a lab's file again; yours is kept.

    Example: shopfloor reset data/indexing
    """
    from shopfloor.commands.answers import reset as run  # noqa: PLC0415

    run(address)


@learner.command()
def status(as_json: Json = False) -> None:
    """List the labs and where you stand with each.

    Example: shopfloor status --json
    """
    from shopfloor.commands.standing import status as run  # noqa: PLC0415

    run(as_json=as_json)


@learner.command()
def load(address: Address = "") -> None:
    """Let a crowd ask the naive shop, then yours.

    It draws what each could take, before and after.

    Example: shopfloor load data/indexing
    """
    from shopfloor.learner_load import run  # noqa: PLC0415

    run(address)


@learner.command()
def incident(
    number: Annotated[int | None, typer.Argument(help="Which; any one when left out.", show_default=False)] = None,
) -> None:
    """Find what is wrong with a shop that is under load.

    Only the cause counts, not how long it took.

    Example: shopfloor incident 3
    """
    from shopfloor.incident.drill import run  # noqa: PLC0415

    run(number)


@learner.command()
def update() -> None:
    """Merge a new version of the kit into your files.

    Nothing that you wrote is lost: copies are kept, and where the two meet yours stays.

    Example: shopfloor update
    """
    from shopfloor.commands.answers import update as run  # noqa: PLC0415

    run()
