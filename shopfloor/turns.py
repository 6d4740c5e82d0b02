"""Turns: many side by side, or one alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Lets tasks of one event loop run side by side, and each that asks for it run alone.

    Whoever waits to be alone goes before those that would run side by side, which could keep it waiting for ever.
    """

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._running = 0
        self._waiting_to_be_alone = 0
        self._is_alone = False

    @asynccontextmanager
    async def side_by_side(self) -> AsyncIterator[None]:
        """Run while nobody runs alone."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_alone and not self._waiting_to_be_alone)
            self._running += 1
        try:
            yield
        finally:
            async with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Run while nobody else runs."""
        async with self._changed:
            self._waiting_to_be_alone += 1
            try:
                await self._changed.wait_for(lambda: not self._is_alone and not self._running)
                self._is_alone = True
            finally:
                self._waiting_to_be_alone -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            async with self._changed:
                self._is_alone = False
                self._changed.notify_all()
