"""What is heard between a client and a real Valkey, and what a tap does to the connection."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
import redis

from shopfloor.checks.commands import Commands, hearing_commands
from shopfloor.services import Services
from tests.helpers import wait_until


@pytest.fixture
def heard(services: Services) -> Iterator[Commands]:
    with hearing_commands(services.redis_url) as running:
        yield running


@pytest.fixture
def client(heard: Commands) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(heard.url, retry=None, socket_timeout=30) as connected:
        yield connected


def names(heard: Commands) -> list[str]:
    return [command.name for command in heard.received]


def test_commands_and_arguments(heard: Commands, client: redis.Redis) -> None:
    client.set("commands:a", b"\r\n*1\r\n$4\r\nPING", px=1000)
    assert client.get("commands:a") == b"\r\n*1\r\n$4\r\nPING"
    assert names(heard) == ["SET", "GET"]
    assert heard.received[0].arguments == (b"commands:a", b"\r\n*1\r\n$4\r\nPING", b"PX", b"1000")
    assert str(heard.received[1]) == "GET commands:a"
    heard.clear()
    assert heard.received == []


def test_a_pipeline_and_a_value_in_many_pieces(heard: Commands, client: redis.Redis) -> None:
    large = b"x" * 1_000_000
    pipeline = client.pipeline(transaction=True)
    pipeline.set("commands:b", large, px=1000)
    pipeline.get("commands:b")
    assert pipeline.execute()[1] == large
    assert names(heard) == ["MULTI", "SET", "GET", "EXEC"]


def test_gone_and_back(heard: Commands, client: redis.Redis) -> None:
    client.get("commands:c")
    with heard.tap.being("gone"):
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                client.get("commands:c")
    assert client.get("commands:c") is None


def test_silent_and_back(heard: Commands, client: redis.Redis) -> None:
    with redis.Redis.from_url(heard.url, retry=None, socket_timeout=0.1) as impatient:
        wait_until(lambda: answered(impatient), message="it never had a connection")
        with heard.tap.being("silent"):
            for _ in ("on the connection that it has", "on a new one"):
                with pytest.raises(redis.TimeoutError):
                    impatient.get("commands:c")
    assert client.get("commands:c") is None


def answered(impatient: redis.Redis) -> bool:
    with suppress(redis.TimeoutError):
        return impatient.get("commands:c") is None
    return False


def test_what_was_sent_into_the_silence_arrives_late(heard: Commands) -> None:
    with redis.Redis.from_url(heard.url, retry=None) as patient:
        patient.get("commands:d")
        asked = threading.Thread(target=patient.set, args=("commands:d", "1", None, 60_000))
        with heard.tap.being("silent"):
            asked.start()
            wait_until(lambda: "SET" in names(heard))
            assert asked.is_alive()
        asked.join(30)
        assert patient.get("commands:d") == b"1"


def test_it_stops_while_silent(services: Services) -> None:
    with hearing_commands(services.redis_url) as heard:
        silence = heard.tap.being("silent")
        silence.__enter__()
        client = redis.Redis.from_url(heard.url, retry=None)
        failed: list[bool] = []

        def ask() -> None:
            with pytest.raises(redis.ConnectionError):
                client.get("x")
            failed.append(True)

        asking = threading.Thread(target=ask)
        asking.start()
    asking.join(30)
    assert failed == [True]
    client.close()


def test_who_does_not_speak_the_protocol_is_hung_up_on(heard: Commands) -> None:
    port = heard.tap.port
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionResetError):
            assert client.recv(100) == b""
