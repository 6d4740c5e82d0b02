"""What a program asks Valkey, read off the wire between the two.

Source: Valkey's documentation, "Serialization protocol specification" (RESP): a client sends each command as an array
of bulk strings.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from shopfloor.checks.tap import Tap, tapping

# What a client library sends of its own accord: who it is, which protocol and database it wants.
HANDSHAKE = frozenset({"HELLO", "AUTH", "CLIENT", "SELECT", "COMMAND", "INFO", "PING"})


@dataclass(frozen=True)
class Command:
    """One command as it went over the wire.

    Attributes:
        name: in capitals.
        arguments: what follows it.
    """

    name: str
    arguments: tuple[bytes, ...]

    def __str__(self) -> str:
        words = (argument.decode(errors="replace") for argument in self.arguments)
        return " ".join([self.name, *(word if len(word) <= 40 else f"{word[:37]}..." for word in words)])


@dataclass
class Commands:
    """What Valkey was asked since the last `clear`, in order, and the tap it went through.

    Attributes:
        url: what the program under test must be given.
        tap: makes the server seem slow, silent or gone.
    """

    url: str
    tap: Tap
    _received: list[Command] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def received(self) -> list[Command]:
        """The commands so far, without a client library's own."""
        with self._lock:
            return list(self._received)

    def clear(self) -> None:
        """Forget them."""
        with self._lock:
            self._received.clear()

    def add(self, command: Command) -> None:
        """Record a command."""
        if command.name not in HANDSHAKE:
            with self._lock:
                self._received.append(command)


@contextmanager
def hearing_commands(url: str) -> Iterator[Commands]:
    """Put a tap in front of a Valkey server while the block runs.

    Args:
        url: of the server, `redis://...`.
    """
    parts = urlsplit(url)
    heard: list[Commands] = []
    with tapping((parts.hostname or "127.0.0.1", parts.port or 6379), lambda: _Conversation(heard[0])) as tap:
        credentials = parts.netloc.rpartition("@")[0]
        own = parts._replace(netloc=f"{credentials}@127.0.0.1:{tap.port}").geturl()
        heard.append(Commands(own, tap))
        yield heard[0]


class _Conversation:
    """One connection."""

    def __init__(self, heard: Commands) -> None:
        self._heard = heard
        self._rest = b""

    def begin(self, _client: socket.socket) -> bytes:
        """Nothing comes before the first command."""
        return b""

    def asked(self, data: bytes) -> None:
        """Hear what the program sends.

        Raises:
            ValueError: it is not made of commands.
        """
        self._rest += data
        place: int | None = 0
        while place is not None:
            self._rest = self._rest[place:]
            place = self._one()

    def answered(self, data: bytes) -> None:
        """What it was answered is not looked at."""

    def _one(self) -> int | None:
        """Record the first command, and return where it ends; None if not all of it is there."""
        count, place = self._number(b"*", 0)
        words = []
        for _ in range(count):
            size, place = self._number(b"$", place)
            if place < 0 or len(self._rest) < place + size + 2:
                return None
            words.append(self._rest[place : place + size])
            place += size + 2
        if place <= 0:
            return None
        if words:
            self._heard.add(Command(words[0].decode(errors="replace").upper(), tuple(words[1:])))
        return place

    def _number(self, kind: bytes, place: int) -> tuple[int, int]:
        """The number that follows a sign, and where its line ends; -1 when the line is not whole."""
        end = self._rest.find(b"\r\n", place) if place >= 0 else -1
        if end < 0:
            return 0, -1
        if self._rest[place : place + 1] != kind:
            raise ValueError(f"not a command: {self._rest[place:end]!r}")
        return int(self._rest[place + 1 : end]), end + 2
