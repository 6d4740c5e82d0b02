"""Several slow things at once: given code, no lab changes it."""

import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def gather(*functions: Callable[[], T]) -> list[T]:
    """Call each function in a thread of its own, and return what they returned, in order.

    Each sees a copy of the caller's context variables, as if it had been called here; Flask's `current_app` is one.
    Thread-local data is not among them.

    Raises:
        Exception: what the first of them to fail, in their order, raised. All have ended by then.
    """
    with ThreadPoolExecutor(len(functions)) as threads:
        futures = [threads.submit(contextvars.copy_context().run, function) for function in functions]
    return [future.result() for future in futures]
