"""Which servers would be used, found out without starting them."""

import os
import re
import subprocess
from functools import cache

from shopfloor.services.connections import given_database, given_redis, postgres_version, redis_version
from shopfloor.services.postgres import find_installation
from shopfloor.services.valkey import find_server


@cache
def server_versions() -> dict[str, str]:
    """The versions of the servers that `running_services` attaches to or starts, such as {"postgresql": "18.6"}.

    Raises:
        UserError: DATABASE_URL or REDIS_URL is set but cannot be used, or a server's programs are not to be found.
    """
    return {"postgresql": _postgresql(), "valkey": _valkey()}


def _postgresql() -> str:
    if url := os.environ.get("DATABASE_URL"):
        return postgres_version(given_database(url))
    return ".".join(str(number) for number in find_installation().version)


def _valkey() -> str:
    if url := os.environ.get("REDIS_URL"):
        return redis_version(given_redis(url))[1]
    said = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\S+)", said)
    return found[1] if found else said.strip()
