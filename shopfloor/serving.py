"""Serves the built book, without what builds it: whoever serves it stays small."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from shopfloor.paths import material


def site() -> Path:
    """The folder of the built book."""
    return material().build / "html"


class _Handler(SimpleHTTPRequestHandler):
    """Serves the built pages, which change while they are being measured, so nothing may be kept."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing: the terminal shows the build."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A browser that hangs up early is no news."""


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve `folder` on a free loopback port, the last one if it is still free; yield its address."""
    memory = material().state / "book.port"
    handler = partial(_Handler, directory=str(folder))
    try:
        server = _Server(("127.0.0.1", int(memory.read_text())), handler)
    except (OSError, ValueError, OverflowError):  # no last time, or its port is taken
        server = _Server(("127.0.0.1", 0), handler)
    port = server.server_address[1]
    memory.write_text(str(port))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
