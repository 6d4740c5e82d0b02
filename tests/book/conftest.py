"""The built book, a browser to look at it with, and tiny books for the extension's tests."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.book.tiny import TinyBook

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def tiny_book(tmp_path: Path) -> TinyBook:
    """A book of a few lines whose parts a test writes, changes and builds again."""
    return TinyBook(tmp_path)


@pytest.fixture(scope="session")
def built_book() -> Path:
    """The whole book, built; what has been measured already is not measured again."""
    from shopfloor import book  # the extension's own tests do not need what executes and builds

    return book.build()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A browser that leaves a page early is no news."""


@pytest.fixture(scope="session")
def address(built_book: Path) -> Iterator[str]:
    """Where the built book is served."""
    server = _Server(("127.0.0.1", 0), partial(_Quiet, directory=str(built_book)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


def find_browser(which: Callable[[str], str | None] = shutil.which) -> str:
    """The system's Chromium; without one the test is skipped, but in CI it fails."""
    found = next((path for name in BROWSERS if (path := which(name))), None)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"CI needs a browser, one of {', '.join(BROWSERS)}; install the package chromium.")
    if found is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)} is installed")
    return found


@pytest.fixture(scope="module")  # not longer: Playwright's event loop runs in this thread, and others need their own
def browser() -> Iterator[Browser]:
    """A headless Chromium that makes no requests of its own."""
    executable = find_browser()
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=[*quiet, *sandbox])
        yield chromium
        chromium.close()
