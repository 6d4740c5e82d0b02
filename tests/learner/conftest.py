"""A tiny kit whose services run, and a clean workspace in it for each test."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import running
from tests.learner.tiny import Kit, tiny_kit


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kit, with services that outlive its commands."""
    folder = tmp_path_factory.mktemp("tiny")
    root = tiny_kit(folder / "kit")
    with running(root, "services", output=folder / "services") as services:
        services.wait_for("They run until Ctrl-C.")
        yield root
        services.end(signal.SIGTERM)


@pytest.fixture
def kit(tiny_root: Path) -> Kit:
    """The kit as it is on the first day."""
    shutil.rmtree(tiny_root / "workspace", ignore_errors=True)
    return Kit(tiny_root)
