"""What every test may use: the working copy's services and databases with seed data."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shopfloor.errors import UserError
from shopfloor.paths import material
from shopfloor.services import Services, running_services
from tests.helpers import STATE

sys.path.insert(0, str(material().labs))

_running = pytest.StashKey[ExitStack]()


def state() -> Path:
    """The state folder of the tests' own servers: the working copy's, unless `tests/run.py` has made one."""
    return Path(os.environ.get(STATE, material().state))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Own the services for the whole run: a worker of xdist may end before another that uses them."""
    if not hasattr(session.config, "workerinput"):
        stack = session.config.stash.setdefault(_running, ExitStack())
        try:
            stack.enter_context(running_services())  # for the commands that tests run
            stack.enter_context(running_services(state()))
        except UserError as error:
            pytest.exit(str(error), returncode=1)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together on one worker, for what they share, unless they say otherwise.

    Those that do come first: they take longest, and at the end one worker would be left alone with them.
    """
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash.get(_running, ExitStack()).close()


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    """Real PostgreSQL and Valkey, shared by all tests; a test that breaks them starts its own elsewhere."""
    with running_services(state()) as running:
        yield running
