"""The services alone."""

import time
from contextlib import ExitStack

from shopfloor.console import step
from shopfloor.services import running_services
from shopfloor.words import tell


def services() -> None:
    """Print where the services are; when none run yet, run them until Ctrl-C."""
    with ExitStack() as running:
        with step("Services") as say:
            found = running.enter_context(running_services(progress=say))
            say(", ".join(f"{name} {version}" for name, version in found.versions.items()))
        tell(f"DATABASE_URL={found.database_url}")
        tell(f"REDIS_URL={found.redis_url}")
        if not found.owned:
            tell("Another Shopfloor process runs them.")
            return
        tell("They run until Ctrl-C.")
        while True:
            time.sleep(0.5)  # not for ever: a signal that comes just before the system call would wait for its end
