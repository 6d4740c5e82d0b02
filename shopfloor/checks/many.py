"""Check many files at once, on as many engines as there are processors."""

import os
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path

from shopfloor.checks.engine import Engine, Verdict
from shopfloor.labs import Lab
from shopfloor.services import Services

Job = tuple[Lab, Path]
"""A file, and the lab that it is to be the answer to."""


def check_many(services: Services, jobs: Sequence[Job], progress: Callable[[str], None]) -> list[Verdict]:
    """Check files side by side, each until a check fails: what it is told first is what matters of a wrong answer.

    Args:
        services: where the databases are made.
        jobs: what to check.
        progress: told how far it is.

    Returns:
        The verdicts, in the order of the jobs.
    """
    workers = max(1, min(os.cpu_count() or 1, len(jobs)))
    with ExitStack() as running:
        free: queue.SimpleQueue[Engine] = queue.SimpleQueue()
        for _ in range(workers):
            free.put(running.enter_context(Engine(services)))

        def check(job: Job) -> Verdict:
            engine = free.get()
            try:
                return engine.check(*job, to_first_failure=True)
            finally:
                free.put(engine)

        pool = ThreadPoolExecutor(workers)
        running.callback(pool.shutdown, cancel_futures=True)  # before the engines end: also when interrupted
        futures = [pool.submit(check, job) for job in jobs]
        for number, future in enumerate(as_completed(futures), 1):
            future.result()
            progress(f"{number} of {len(jobs)}")
        return [future.result() for future in futures]
