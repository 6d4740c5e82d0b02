"""Turns: who runs beside whom."""

import asyncio
from contextlib import AbstractAsyncContextManager

from shopfloor.turns import Turns


class Stage:
    """Notes who is inside at once."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        self.seen: list[set[str]] = []

    async def play(self, name: str, turn: AbstractAsyncContextManager[None]) -> None:
        async with turn:
            self.inside.add(name)
            self.seen.append(set(self.inside))
            for _ in range(5):
                await asyncio.sleep(0)
                assert name in self.inside
            self.inside.remove(name)


def played(*players: tuple[str, str]) -> list[set[str]]:
    async def play() -> list[set[str]]:
        turns, stage = Turns(), Stage()
        await asyncio.gather(*(stage.play(name, getattr(turns, kind)()) for name, kind in players))
        return stage.seen

    return asyncio.run(asyncio.wait_for(play(), timeout=30))


def test_those_side_by_side_are_inside_at_once() -> None:
    assert {"a", "b", "c"} in played(("a", "side_by_side"), ("b", "side_by_side"), ("c", "side_by_side"))


def test_one_alone_shares_with_nobody() -> None:
    seen = played(("a", "side_by_side"), ("x", "alone"), ("b", "side_by_side"), ("y", "alone"))
    assert {"x"} in seen
    assert {"y"} in seen
    assert not [inside for inside in seen if inside & {"x", "y"} and len(inside) > 1]


def test_who_waits_to_be_alone_goes_before_those_that_come_later() -> None:
    seen = played(("a", "side_by_side"), ("x", "alone"), ("b", "side_by_side"))
    assert seen == [{"a"}, {"x"}, {"b"}]


def test_who_gives_up_waiting_to_be_alone_holds_nobody_up() -> None:
    async def play() -> bool:
        turns = Turns()
        async with turns.side_by_side():
            impatient = asyncio.create_task(turns.alone().__aenter__())
            await asyncio.sleep(0)
            impatient.cancel()
            await asyncio.gather(impatient, return_exceptions=True)
            async with turns.side_by_side():
                return True

    assert asyncio.run(asyncio.wait_for(play(), timeout=30))
