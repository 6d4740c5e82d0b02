"""The backing services: real servers, each a child process that ends with its owner."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shopfloor.paths import material
from shopfloor.services.sharing import Services, share

__all__ = ["Services", "running_services"]


@contextmanager
def running_services(state: Path | None = None, *, progress: Callable[[str], None] | None = None) -> Iterator[Services]:
    """Attach to the running services of a working copy, or start them and end them afterwards.

    The first process that asks owns them; they end with it, whoever else is attached. Its own threads, and nested
    calls, share them: they end with the last of these. DATABASE_URL and REDIS_URL take precedence: what they name is
    checked and used, and only the other one is started.

    Args:
        state: the state folder; that of this working copy when None.
        progress: told what takes long, and what was mended. When None, only the latter is said, on standard error.

    Raises:
        UserError: a server cannot be found, started or reached; the message says which, and what to do.
    """
    shared = share(state or material().state)
    services = shared.enter(progress)
    try:
        yield services
    finally:
        if services.owned:
            shared.leave()
