"""Small things that several tests need."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

STATE = "SHOPFLOOR_TESTS_STATE"
"""The environment variable that names the state folder of the tests' own servers."""


def wait_until(condition: Callable[[], object], timeout: float = 30.0, message: str = "") -> None:
    """Poll until `condition` is true; fail with `message` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(message or f"not so within {timeout} s")
        time.sleep(0.01)


def memory(room: int) -> Path | None:
    """Where files are kept in memory, if this system has such a place and so many bytes are free there."""
    place = Path("/dev/shm")
    return place if place.is_dir() and shutil.disk_usage(place).free > room else None
