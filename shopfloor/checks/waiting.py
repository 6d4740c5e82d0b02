"""Waiting for what another process does: on a condition, never for a time."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

# Start something beside the check; its result comes with the future.
Run = Callable[..., Future[Any]]


def until(condition: Callable[[], object], *, patience: float, every: float = 0.002) -> bool:
    """Wait for a condition.

    Args:
        condition: asked again and again until what it returns is true.
        patience: seconds after which it is given up.
        every: seconds between two questions.

    Returns:
        Whether it came true in time.
    """
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


@contextmanager
def in_background() -> Iterator[Run]:
    """Run things in threads, up to eight at once, which are waited for at the end."""
    with ThreadPoolExecutor(8) as threads:
        yield threads.submit
