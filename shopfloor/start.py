"""The main job: services up, the book readable at once and measured page by page, the learner's files watched."""

from collections.abc import Iterator
from contextlib import ExitStack

from shopfloor.checks.engine import Engine
from shopfloor.console import complain, out, step
from shopfloor.desk import Desk
from shopfloor.measuring import Kind, News, follow, measuring
from shopfloor.services import Services, running_services
from shopfloor.serving import serve, site
from shopfloor.watch import Watch, make_workspace
from shopfloor.words import tell


def start() -> None:
    """Run the services, serve the book and watch the learner's files until the process is told to stop."""
    desk = Desk()
    make_workspace(desk)
    with ExitStack() as running:
        services = _start_services(running)
        news = running.enter_context(measuring())
        with step("Book"):
            standing = _wait_until_drawn(news)
        address = running.enter_context(serve(site()))
        out.print(f"\nThe handbook is open at [bold]{address}[/bold]\n")
        tell(standing)
        tell("Ctrl-C stops everything.")
        watch = running.enter_context(Watch(desk, book=address))
        engine = running.enter_context(Engine(services))
        follow(news, lambda piece: _pass_on(piece, watch))
        watch.run(engine)


def _start_services(running: ExitStack) -> Services:
    with step("Services") as say:
        services = running.enter_context(running_services())
        shared = "" if services.owned else ", those that already run for this copy"
        versions = services.versions
        say(f"PostgreSQL {versions['postgresql']} and Valkey {versions['valkey']} on loopback{shared}")
    return services


def _wait_until_drawn(news: Iterator[News]) -> str:
    """Wait until there is a book to serve; return how much of it is measured, in words."""
    for piece in news:
        if piece.kind is Kind.DRAWN:
            return piece.text
        if piece.kind is Kind.WRONG:
            complain(piece.text)
    return "It is not drawn anew: see above."


def _pass_on(piece: News, watch: Watch) -> None:
    """What is under way is not said: the terminal is the learner's."""
    if piece.kind is not Kind.PROGRESS:
        watch.say(piece.text, bad=piece.kind is Kind.WRONG)
