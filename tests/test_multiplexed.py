"""A client of HTTP/2, against a server of a few lines that answers in an order of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

from shopfloor.multiplexed import Multiplexed, multiplexed

LARGE = b"x" * 16_000  # five of them are more than the window that a connection begins with


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """`/quick` at once; `/slow` after the next `/last`; `/reset` and `/gone` end the stream, and the connection."""
    state, waiting = H2Connection(H2Configuration(client_side=False)), []
    state.initiate_connection()

    def tell(stream: int) -> None:
        state.send_headers(stream, [(":status", "200")])
        state.send_data(stream, LARGE, end_stream=True)

    while data := await reader.read(65536):
        for event in state.receive_data(data):
            if not isinstance(event, RequestReceived):
                continue
            path = dict(event.headers)[b":path"]
            if path == b"/gone":
                writer.close()
                return
            if path == b"/slow":
                waiting.append(event.stream_id)
            elif path == b"/reset":
                state.reset_stream(event.stream_id)
            else:
                for stream in [event.stream_id, *(waiting if path == b"/last" else [])]:
                    tell(stream)
        writer.write(state.data_to_send())
    writer.close()


@asynccontextmanager
async def connected() -> AsyncIterator[Multiplexed]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, multiplexed(f"http://127.0.0.1:{port}/") as connection:
        yield connection


def test_an_answer_that_is_there_does_not_wait_for_one_that_is_not() -> None:
    async def ask() -> None:
        async with asyncio.timeout(30), connected() as connection:
            slow = asyncio.create_task(connection.get("/slow"))
            for _ in range(9):
                assert await connection.get("/quick") == 200
            assert not slow.done()
            assert await asyncio.gather(slow, connection.get("/last")) == [200, 200]

    asyncio.run(ask())


@pytest.mark.parametrize("path", ["/reset", "/gone"])
def test_what_the_server_ends_has_no_answer(path: str) -> None:
    async def ask() -> None:
        async with asyncio.timeout(30), connected() as connection:
            slow = asyncio.create_task(connection.get("/slow"))
            with pytest.raises(ConnectionError):
                await connection.get(path)
            if path == "/gone":
                with pytest.raises(ConnectionError):
                    await slow
            else:
                await connection.get("/last")
                assert await slow == 200

    asyncio.run(ask())
