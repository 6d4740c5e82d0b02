"""What is wrong with a given URL is said plainly, and never with the password."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shopfloor.errors import UserError
from shopfloor.services import connections, running_services
from shopfloor.services.connections import given_database, given_redis
from shopfloor.services.process import free_port

SECRET = "s3cr3t%2Fpath"


@pytest.fixture(scope="module")
def urls(made_state: Path) -> Iterator[tuple[str, str]]:
    with running_services(made_state) as services:
        yield services.database_url, services.redis_url


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_schemes_of_postgresql(urls: tuple[str, str], scheme: str) -> None:
    database_url, _ = urls
    assert given_database(database_url.replace("postgresql+psycopg", scheme)) == database_url


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_schemes_of_redis(urls: tuple[str, str], scheme: str) -> None:
    _, redis_url = urls
    assert given_redis(redis_url.replace("redis", scheme, 1)) == redis_url


def message(url: str) -> str:
    check = given_redis if url.startswith(("redis", "unix")) else given_database
    with pytest.raises(UserError) as raised:
        check(url)
    text = str(raised.value)
    for secret in (SECRET, "s3cr3t", "s3cr3t/path"):
        assert secret not in text
    return text


@pytest.mark.parametrize("scheme", ["postgresql", "redis"])
def test_nothing_listens_there(scheme: str) -> None:
    port = free_port()
    text = message(f"{scheme}://user:{SECRET}@127.0.0.1:{port}/0")
    assert f"127.0.0.1:{port}" in text
    assert "refused" in text
    assert "unset it" in text


@pytest.mark.parametrize("scheme", ["postgresql", "redis"])
def test_host_does_not_exist(scheme: str) -> None:
    assert "host.invalid" in message(f"{scheme}://user:{SECRET}@host.invalid/0")


def test_wrong_password_of_postgresql(urls: tuple[str, str]) -> None:
    head, tail = urls[0].split("@")
    text = message(f"{head.rsplit(':', 1)[0]}:{SECRET}@{tail}")
    assert "DATABASE_URL" in text
    assert "password authentication failed" in text


def test_wrong_password_of_redis(urls: tuple[str, str]) -> None:
    text = message(f"redis://:{SECRET}@{urls[1].split('@')[1]}")
    assert "REDIS_URL" in text
    assert "password" in text


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3cr3t/path@127.0.0.1:1/db",
        "postgresql://user:first@s3cr3t@127.0.0.1:1/db",
        "postgresql://user:s3cr3t%zz@127.0.0.1:1/db",
        "postgresql://user@127.0.0.1:1/db?password=s3cr3t%zz",
        "postgresql://user@127.0.0.1:s3cr3t/db",
        "redis://:s3cr3t/path@127.0.0.1:1/0",
        "redis://:s3cr3t@path@127.0.0.1:1/0",
        "redis://127.0.0.1:s3cr3t/0",
    ],
)
def test_password_that_is_not_encoded(url: str) -> None:
    message(url)


@pytest.mark.parametrize(
    ("url", "proper"),
    [
        (f"mysql://user:{SECRET}@127.0.0.1/db", "postgresql://"),
        (f"postgresql+asyncpg://user:{SECRET}@127.0.0.1/db", "postgresql://"),
        ("s3cr3t", "postgresql://"),
    ],
)
def test_other_schemes(url: str, proper: str) -> None:
    assert proper in message(url)


def test_too_old(urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "postgres_version", lambda _: "13.20")
    monkeypatch.setattr(connections, "redis_version", lambda _: ("redis", "6.2.7"))
    assert "PostgreSQL 13.20" in message("postgresql://host/db")
    assert "Redis 6.2.7" in message("redis://host/0")
