"""What every test may use: the working copy's services and databases with seed data."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from shopfloor.errors import UserError
from shopfloor.paths import material
from shopfloor.services import Services, running_services
from tests.helpers import memory

sys.path.insert(0, str(material().labs))

ROOM = 6 * 2**30
STATE = "SHOPFLOOR_TESTS_STATE"
"""Names the state folder of the tests' own servers, for the workers of xdist."""

_running = pytest.StashKey[ExitStack]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Own the services for the whole run: a worker of xdist may end before another that uses them."""
    if not hasattr(session.config, "workerinput"):
        stack = session.config.stash.setdefault(_running, ExitStack())
        os.environ[STATE] = str(_in_memory(stack) or material().state)
        try:
            stack.enter_context(running_services())  # for the commands that tests run
            stack.enter_context(running_services(Path(os.environ[STATE])))
        except UserError as error:
            pytest.exit(str(error), returncode=1)


def _in_memory(stack: ExitStack) -> Path | None:
    """A folder in memory, if there is room, which is removed when the stack is closed.

    Tests make and remove half a million files. ext4 without a journal, as on some virtual machines, looks at each that
    was removed in the last minutes before it makes another: half of the processor time was spent on that.
    """
    parent = memory(ROOM)
    if parent is None:
        return None
    for left in parent.glob("shopfloor-tests-*"):
        if left.stat().st_uid == os.geteuid() and not psutil.pid_exists(int(left.name.split("-")[2])):
            shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=f"shopfloor-tests-{os.getpid()}-", dir=parent))
    stack.callback(shutil.rmtree, folder)
    folder.chmod(0o755)  # the servers may be another user's: see `shopfloor.services.place`
    return folder


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
    with running_services(Path(os.environ[STATE])) as running:
        yield running
