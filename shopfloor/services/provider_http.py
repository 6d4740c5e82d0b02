"""HTTP/1.1 as an outside provider speaks it: many connections in one thread, each kept, each able to fail.

h11 knows the protocol; what it cannot do is here: to end a connection badly, and to notice that a client has left.
"""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http import HTTPStatus
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import h11

LARGEST_BODY = 16 * 1024
MOST_AHEAD = 64 * 1024


@dataclass(frozen=True)
class Request:
    """A whole request.

    Attributes:
        path: without the query.
        query: its parameters; of those with the same name the last.
        headers: by their names in small letters; of those with the same name the last.
        at: when all of it had come, on the monotonic clock.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    at: float


@dataclass(frozen=True)
class Answer:
    """An answer: its content becomes JSON, of which it may be that only the first half is sent."""

    status: int
    content: object
    headers: Mapping[str, str] = field(default_factory=dict)
    half: bool = False


def problem(status: int, detail: str, **headers: str) -> Answer:
    """An answer that is a problem details object (RFC 9457)."""
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return Answer(status, content, {"Content-Type": "application/problem+json", **headers})


class Client(asyncio.Protocol):
    """One connection.

    Args:
        take: is given a request; an answer or an end must follow before the next one is.

    Attributes:
        gone: done when the client has closed the connection, or its side of it, or it was ended here.
    """

    def __init__(self, take: Callable[[Request, "Client"], None]) -> None:
        self.gone = asyncio.get_running_loop().create_future()
        self._take = take
        self._http = h11.Connection(h11.SERVER)
        self._head: h11.Request | None = None
        self._body = b""
        self._answering = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; asyncio has set TCP_NODELAY."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take what came. During an answer it is kept for later: reading on is how a client's leaving is noticed."""
        self._http.receive_data(data)
        if not self._answering:
            self._read()
        elif len(self._http.trailing_data[0]) > MOST_AHEAD:
            self.end()

    def eof_received(self) -> None:
        """The client will send no more: as clients of this protocol behave, it has left."""
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name and arguments are asyncio's
        """The connection is over."""
        self._leave()

    def send(self, answer: Answer) -> None:
        """Answer the request; to a client that has left this does nothing."""
        if self.gone.done():
            return
        body = json.dumps(answer.content).encode()
        body = body[: len(body) // 2] if answer.half else body
        headers = {
            "Content-Type": "application/json",
            "Date": formatdate(usegmt=True),
            **answer.headers,
            "Content-Length": str(len(body)),
        }
        events = [
            h11.Response(
                status_code=answer.status, headers=list(headers.items()), reason=HTTPStatus(answer.status).phrase
            ),
            h11.Data(data=b"" if self._head and self._head.method == b"HEAD" else body),
            h11.EndOfMessage(),
        ]
        self._transport.write(b"".join(self._http.send(event) or b"" for event in events))
        self._answering = False
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
            self._read()
        else:
            self._transport.close()

    def end(self, *, reset: bool = False) -> None:
        """End the connection without an answer: in the usual way (FIN), or with a reset (RST)."""
        if reset and not self._transport.is_closing():
            # To linger for zero seconds is to throw away what is unsent, and to say so: socket(7), tcp(7).
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _read(self) -> None:
        try:
            while not self._answering:
                event = self._http.next_event()
                if isinstance(event, h11.Request):
                    self._head, self._body = event, b""
                    self._limit(int(dict(event.headers).get(b"content-length", 0)))
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    self._limit(len(self._body))
                elif isinstance(event, h11.EndOfMessage):
                    self._answering = True
                    self._take(self._request(), self)
                else:
                    return
        except h11.RemoteProtocolError as error:
            self._answering = True
            answer = problem(HTTPStatus.BAD_REQUEST, f"This is not HTTP as it should be: {error}")
            # What follows cannot be told from the next request.
            self.send(replace(answer, headers={**answer.headers, "Connection": "close"}))

    def _limit(self, size: int) -> None:
        if size > LARGEST_BODY:
            raise h11.RemoteProtocolError(f"the body may have {LARGEST_BODY} bytes at most")

    def _request(self) -> Request:
        assert self._head is not None
        try:
            target = urlsplit(self._head.target.decode("ascii"))
            query = dict(parse_qsl(target.query, keep_blank_values=True))
        except ValueError as error:
            raise h11.RemoteProtocolError(str(error)) from None
        return Request(
            method=self._head.method.decode("ascii"),
            path=target.path,
            query=query,
            headers={name.decode("ascii"): value.decode("latin-1") for name, value in self._head.headers},
            body=self._body,
            at=time.monotonic(),
        )

    def _leave(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)
