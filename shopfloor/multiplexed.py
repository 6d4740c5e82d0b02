"""A client of HTTP/2 that asks for several things over one connection, and notes each answer when it has come.

httpx's requests take turns to read from the connection that they share. One that has its turn before another waits
there for an answer that is not ready, though the other's has been read; so what comes over the wire cannot be seen
with it. Here one task reads for all.

Source: RFC 9113, with prior knowledge (section 3.3).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset


class Multiplexed:
    """One connection."""

    def __init__(self, authority: str, writer: asyncio.StreamWriter) -> None:
        self._authority, self._writer = authority, writer
        self._state = H2Connection(H2Configuration(client_side=True))
        self._statuses: dict[int, int] = {}
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._state.initiate_connection()
        self._flush()

    async def get(self, path: str) -> int:
        """Ask for something; its status, when the whole of the answer is there.

        Raises:
            ConnectionError: the server has ended the stream or the connection before that.
        """
        stream = self._state.get_next_available_stream_id()
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._ended[stream] = ended
        asked = {":method": "GET", ":path": path, ":scheme": "http", ":authority": self._authority}
        self._state.send_headers(stream, list(asked.items()), end_stream=True)
        self._flush()
        return await ended

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Note what comes, until nothing more does."""
        while data := await reader.read(65536):
            for event in self._state.receive_data(data):
                self._note(event)
            self._flush()
        self._fail(self._ended)

    def _note(self, event: Event) -> None:
        if isinstance(event, ResponseReceived):
            self._statuses[event.stream_id] = int(dict(event.headers)[b":status"])
        elif isinstance(event, DataReceived):
            self._state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self._ended.pop(event.stream_id).set_result(self._statuses.pop(event.stream_id))
        elif isinstance(event, StreamReset):
            self._fail([event.stream_id])
        elif isinstance(event, ConnectionTerminated):
            self._fail(self._ended)

    def _fail(self, streams: "dict[int, asyncio.Future[int]] | list[int]") -> None:
        for stream in list(streams):
            self._ended.pop(stream).set_exception(ConnectionError(f"stream {stream} was ended"))

    def _flush(self) -> None:
        self._writer.write(self._state.data_to_send())


@asynccontextmanager
async def multiplexed(url: str) -> AsyncIterator[Multiplexed]:
    """Connect to a server that speaks HTTP/2 without TLS while the block runs.

    Args:
        url: such as `http://127.0.0.1:8000`; a path in it is not minded.
    """
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    connection = Multiplexed(place.netloc, writer)
    reading = asyncio.create_task(connection.read(reader))
    try:
        yield connection
    finally:
        writer.close()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
