"""A WSGI application served from within a notebook, and a relay that hears all that passes on the way to a server."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from werkzeug.serving import WSGIRequestHandler, make_server

from shopfloor.checks.tap import tapping

if TYPE_CHECKING:
    import socket

    from _typeshed.wsgi import WSGIApplication


class _Quiet(WSGIRequestHandler):
    """Prints nothing."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


@contextmanager
def over_http(app: "WSGIApplication", *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve an application in threads of this process while the block runs; yield its address.

    What the application does can be counted here, such as the statements of its engine. Each request has a connection
    of its own.

    Args:
        app: what to serve.
        tls: how to encrypt; none: not at all.
    """
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet, ssl_context=tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Overheard:
    """What passed through a relay.

    Attributes:
        url: what the client must be given in the server's place.
        asked: all bytes that clients sent.
        answered: all bytes that the server sent.
        connections: how many were opened, and used.
    """

    url: str
    asked: bytes = b""
    answered: bytes = b""
    connections: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def size(self) -> int:
        """All bytes, both ways."""
        return len(self.asked) + len(self.answered)

    def clear(self) -> None:
        """Forget what has passed; a connection that is open stays so."""
        with self._lock:
            self.asked = self.answered = b""
            self.connections = 0


@contextmanager
def overhearing(url: str) -> Iterator[Overheard]:
    """Put a relay in front of a server while the block runs, as whoever owns a router on the way could.

    Args:
        url: of the server: `http://127.0.0.1:8080`, or `127.0.0.1:8080` where a client wants no scheme.
    """
    parts = urlsplit(url if "//" in url else f"//{url}")
    heard: list[Overheard] = []
    with tapping((parts.hostname or "127.0.0.1", parts.port or 80), lambda: _Conversation(heard[0])) as tap:
        here = f"127.0.0.1:{tap.port}"
        heard.append(Overheard(f"{parts.scheme}://{here}" if parts.scheme else here))
        yield heard[0]


class _Conversation:
    """One connection."""

    def __init__(self, heard: Overheard) -> None:
        self._heard = heard
        self._begun = False

    def begin(self, _client: "socket.socket") -> bytes:
        """Nothing comes before the first bytes."""
        return b""

    def asked(self, data: bytes) -> None:
        """Hear what the client sends."""
        with self._heard._lock:  # noqa: SLF001 - its own
            self._heard.asked += data
            self._heard.connections += not self._begun
        self._begun = True

    def answered(self, data: bytes) -> None:
        """Hear what the server sends."""
        with self._heard._lock:  # noqa: SLF001 - its own
            self._heard.answered += data
