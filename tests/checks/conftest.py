"""An engine for all tests of a worker, and answers to a lab of the tests' own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from shopfloor.checks.engine import Engine, Verdict
from shopfloor.services import Services
from tests.checks.tiny import TinyLab, indexes_lab, orders_lab
from tests.helpers import wait_until


@pytest.fixture(scope="session")
def engine(services: Services) -> Iterator[Engine]:
    with Engine(services) as running:
        yield running


@pytest.fixture
def lab(tmp_path: Path) -> TinyLab:
    return orders_lab(tmp_path / "labs")


@pytest.fixture
def indexes(tmp_path: Path) -> TinyLab:
    return indexes_lab(tmp_path / "labs")


Check = Callable[..., Verdict]


@pytest.fixture
def check(engine: Engine, tmp_path: Path) -> Check:
    """Check a text as the answer to a lab; afterwards nothing of it may run, and the solution must pass."""

    def run(lab: TinyLab, answer: str) -> Verdict:
        file = tmp_path / "answer.py"
        file.write_text(answer)
        verdict = engine.check(lab, file)
        assert_gone(engine)
        after = engine.check(lab, lab.solution)
        assert after.passed, after
        assert_gone(engine)
        return verdict

    return run


def assert_gone(engine: Engine) -> None:
    """No process of a check is left, not even as a zombie."""
    if engine.warm_pid is not None:
        assert psutil.Process(engine.warm_pid).children(recursive=True) == []


def assert_ends(process: psutil.Process) -> None:
    """A process is gone, or goes at once."""
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 5, f"{process} runs")
