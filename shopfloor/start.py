"""The main job: services up, the book readable at once, then measured page by page until Ctrl-C."""

import time
from contextlib import ExitStack

from shopfloor import book
from shopfloor.console import complain, out, step
from shopfloor.databases import ensure_template
from shopfloor.errors import UserError
from shopfloor.execution import Page, Store, notebook_pages
from shopfloor.services import Services, running_services


def start() -> None:
    """Run the services and serve the book, measured on this machine, until the process is told to stop."""
    pages, store = notebook_pages(), Store()
    with ExitStack() as running:
        services = _start_services(running)
        with book.exclusive(out.print):
            with step("Book"):
                _draw(pages, store)
            address = running.enter_context(book.serve(book.site()))
            out.print(f"\nThe handbook is open at [bold]{address}[/bold]\n")
            _measure(pages, store, services)
        out.print("\nCtrl-C stops everything.")
        _wait()


def _start_services(running: ExitStack) -> Services:
    with step("Services") as say:
        services = running.enter_context(running_services())
        shared = "" if services.owned else ", those that already run for this copy"
        versions = services.versions
        say(f"PostgreSQL {versions['postgresql']} and Valkey {versions['valkey']} on loopback{shared}")
    return services


def _measure(pages: list[Page], store: Store, services: Services) -> None:
    """Execute what is not measured yet; the served book gains each page when it is done."""
    stale = [page for page in pages if store.get(page) is None]
    if not stale:
        out.print("Every figure in it was measured on this machine and is up to date.")
        return
    out.print(f"Until {len(stale)} of its pages are measured, notes stand in place of their figures.")
    with step("Seed data") as say:
        ensure_template(services, "medium", progress=say)
    done = 0
    with step("Measuring") as say:

        def page_is_done(_: Page) -> None:
            nonlocal done
            done += 1
            say(f"{done} of {len(stale)} pages")
            _draw(pages, store)

        failures = book.execute_stale(pages, store, say, on_done=page_is_done)
        say(f"{done} of {len(stale)} pages")
    for failure in failures:
        complain(failure)


def _draw(pages: list[Page], store: Store) -> None:
    """Draw the book; what is wrong with it is said, and what could be drawn is served all the same."""
    try:
        book.draw(pages, store)
    except UserError as error:
        complain(str(error))


def _wait() -> None:
    while True:
        time.sleep(0.5)  # not signal.pause, which misses a signal that comes just before it
