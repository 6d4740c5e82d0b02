"""The shop under its real server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from shopfloor.databases import Database
from shopfloor.paths import material
from shopfloor.services.process import start_child
from tests.helpers import wait_until

GUNICORN = [
    sys.executable,
    "-m",
    "gunicorn",
    "-k",
    "gthread",
    "--threads",
    "2",
    "--bind",
    "127.0.0.1:0",
    "shop:create_app()",
]


@pytest.mark.slow
def test_it_serves_under_gunicorn(database: Database, tmp_path: Path) -> None:
    log = tmp_path / "gunicorn.log"
    environment = os.environ | {"DATABASE_URL": database.url}
    with start_child(GUNICORN, log=log, env=environment, cwd=material().labs):
        address = re.compile(r"Listening at: (http://127\.0\.0\.1:\d+)")
        wait_until(lambda: address.search(log.read_text()), message="gunicorn does not listen")
        url = address.search(log.read_text())[1]
        assert httpx2.get(f"{url}/readyz", timeout=30).json() == {"status": "ok"}
        assert len(httpx2.get(f"{url}/v1/orders?limit=5", timeout=30).json()["data"]) == 5
        assert httpx2.get(f"{url}/v1/orders?limit=x", timeout=30).status_code == 422


def test_it_says_what_is_wrong_with_its_settings(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"} | {"POOL_SIZE": "0"}
    ended = subprocess.run(
        GUNICORN, cwd=material().labs, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert ended.returncode != 0
    assert "DATABASE_URL is not set: expected" in ended.stderr
    assert "POOL_SIZE is '0': expected" in ended.stderr
