"""A pool of threads for each dependency, and in front of it the queue that ThreadPoolExecutor has: one without an end.

The provider is spared, as there are never more than `bulkhead_size` calls at once. The shop is not. Whoever comes
next is put into the queue, and `future.result()` waits there: each waiting request holds its thread of the server and
its connection to the database, as if there were no bulkhead at all. When payments hang, the catalogue is down after
the same number of requests. And when they are well again, the pool works through a queue of customers who have long
gone.

A pool bounds who works. Bound who waits, too: count everybody who is inside, and refuse whoever is beyond that.

Read: "The bound that is missing" in the chapter Bulkheads.
"""

import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from flask import Flask, current_app

from shop.settings import settings_of

T = TypeVar("T")


def init_app(app: Flask) -> None:
    """Make a pool of threads for each dependency of the application."""
    size = settings_of(app).bulkhead_size
    app.extensions["bulkheads"] = {
        dependency: ThreadPoolExecutor(size, thread_name_prefix=dependency) for dependency in ("payments", "delivery")
    }


def run(dependency: str, function: Callable[[], T]) -> T:
    """Make a call to a dependency when there is room for it.

    Args:
        dependency: `payments` or `delivery`.
        function: makes the call.

    Raises:
        shop.reliability.failures.NotAsked: there was no room.
        Exception: whatever `function` raises.
    """
    threads: ThreadPoolExecutor = current_app.extensions["bulkheads"][dependency]
    return threads.submit(contextvars.copy_context().run, function).result()
