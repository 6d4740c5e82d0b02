"""What every test may use: services of the test run's own, and databases with seed data."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shopfloor.paths import material
from shopfloor.services import Services, running_services

sys.path.insert(0, str(material().labs))


@pytest.fixture(scope="session")
def run_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder that all workers of one test run share; the working copy's own is not touched."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "state"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def services(run_state: Path) -> Iterator[Services]:
    """Real PostgreSQL and Valkey; the first worker starts them, the others attach."""
    with running_services(run_state) as running:
        yield running
