"""Small things that several tests need."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], timeout: float = 10.0, message: str = "") -> None:
    """Poll until `condition` is true; fail with `message` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(message or f"not so within {timeout} s")
        time.sleep(0.01)
