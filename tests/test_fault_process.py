"""What leaves a link, in which order and when, on a clock that the test turns."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.fault_process import LARGEST_QUEUE, Link, Signal, Way
from shopfloor.faults import CALM, Faults


class Timer:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when, self.callback, self.cancelled = when, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """A loop whose time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(when, callback))
        return self.timers[-1]

    def advance(self, to: float) -> None:
        while due := [timer for timer in self.timers if timer.when <= to and not timer.cancelled]:
            first = min(due, key=lambda timer: timer.when)
            self.timers.remove(first)
            self.now = max(self.now, first.when)
            first.callback()
        self.now = max(self.now, to)


class Peer:
    """Both ends of a link: notes what it is sent and when, and whether it may send."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.sent: list[bytes | Signal] = []
        self.times: list[float] = []
        self.reading = True

    def send(self, what: bytes | Signal) -> None:
        self.sent.append(what)
        self.times.append(self.clock.now)

    def read(self, wanted: bool) -> None:
        self.reading = wanted


class Line:
    def __init__(self, faults: Faults = CALM, *, connected: bool = True) -> None:
        self.clock = Clock()
        self.peer = Peer(self.clock)
        self.way = Way(faults)
        self.link = Link(self.clock, self.way, Random(1))
        self.link.source = self.peer
        if connected:
            self.link.sink = self.peer

    def feed(self, at: float, what: bytes | Signal) -> None:
        self.clock.advance(at)
        self.link.feed(what)

    def change(self, faults: Faults) -> None:
        self.way.faults = faults
        self.link.resume()

    def sent(self, at: float) -> list[bytes | Signal]:
        self.clock.advance(at)
        return self.peer.sent


def test_each_chunk_leaves_after_half_the_latency_whatever_comes_behind_it() -> None:
    line = Line(Faults(latency_ms=2000))
    for at, chunk in ((0.0, b"a"), (0.1, b"b"), (0.9, b"c")):
        line.feed(at, chunk)
    assert line.sent(at=0.99) == []
    assert line.sent(at=1.0) == [b"a"]
    assert line.sent(at=1.1) == [b"a", b"b"]
    line.feed(2.5, Signal.END)
    assert line.sent(at=2.6) == [b"a", b"b", b"c"]
    assert line.sent(at=3.5) == [b"a", b"b", b"c", Signal.END]


def test_what_comes_before_the_other_end_is_connected_waits() -> None:
    line = Line(connected=False)
    line.feed(0, b"a")
    line.feed(0, b"b")
    assert line.sent(at=5) == []
    line.link.sink = line.peer
    line.link.resume()
    assert line.peer.sent == [b"a", b"b"]


def test_a_change_applies_to_what_is_under_way() -> None:
    line = Line(Faults(latency_ms=10_000))
    line.feed(0, b"a")
    assert line.sent(at=1) == []
    line.change(Faults(latency_ms=4000))
    assert line.sent(at=1.9) == []
    assert line.sent(at=2) == [b"a"]
    line.feed(2, b"b")
    line.change(CALM)
    assert line.peer.sent == [b"a", b"b"]


def test_a_chunk_is_cut_up_to_keep_within_the_bandwidth() -> None:
    line = Line(Faults(bytes_per_second=1000))
    line.feed(0, b"x" * 500)
    for at in (0.1, 0.25, 0.4):
        arrived = b"".join(line.sent(at))
        assert 1000 * at - 10 < len(arrived) <= 1000 * at + 1e-6
    assert b"".join(line.sent(0.51)) == b"x" * 500


def test_less_than_a_byte_in_a_slice_passes_all_the_same() -> None:
    line = Line(Faults(bytes_per_second=0.5))
    line.feed(0, b"abc")
    assert line.sent(at=5.9) == [b"a", b"b"]
    assert line.sent(at=6) == [b"a", b"b", b"c"]


def test_an_idle_line_saves_no_bandwidth_up() -> None:
    line = Line(Faults(bytes_per_second=1000))
    line.feed(100, b"x" * 100)
    line.clock.advance(200)
    line.feed(200, b"y" * 100)
    assert b"".join(line.sent(200.05)).count(b"y") <= 50


def test_a_black_hole_saves_no_bandwidth_up() -> None:
    line = Line(Faults(bytes_per_second=1000, black_hole=True))
    line.feed(0, b"x" * 1000)
    assert line.sent(at=100) == []
    line.change(Faults(bytes_per_second=1000))
    assert len(b"".join(line.sent(at=100.5))) <= 501
    assert len(b"".join(line.sent(at=101.1))) == 1000


def test_a_black_hole_keeps_all_and_delivers_it_when_it_ends() -> None:
    line = Line()
    line.feed(0, b"a")
    line.change(Faults(black_hole=True))
    for what in (b"b", b"c", Signal.END):
        line.feed(1, what)
    assert line.sent(at=1000) == [b"a"]
    line.change(CALM)
    assert line.peer.sent == [b"a", b"b", b"c", Signal.END]


def test_a_sender_is_held_up_when_too_much_is_under_way() -> None:
    line = Line(Faults(black_hole=True))
    line.feed(0, b"x" * LARGEST_QUEUE)
    assert line.peer.reading
    line.feed(0, b"y")
    assert not line.peer.reading
    line.change(CALM)
    assert line.peer.reading


def test_a_sender_is_held_up_while_the_receiver_takes_no_more() -> None:
    line = Line()
    line.link.blocked = True
    line.link.regulate()
    assert not line.peer.reading
    line.feed(0, b"a")
    assert not line.peer.reading
    line.link.blocked = False
    line.link.regulate()
    assert line.peer.reading


milliseconds = st.sampled_from([0.0, 1.0, 40.0, 3000.0])
some_faults = st.builds(
    Faults,
    latency_ms=milliseconds,
    jitter_ms=milliseconds,
    bytes_per_second=st.sampled_from([None, 3.0, 1000.0, 1e9]),
    black_hole=st.booleans(),
)
steps = st.lists(st.tuples(st.sampled_from([0.0, 0.001, 0.3, 5.0]), st.binary(max_size=20) | some_faults), max_size=60)


@given(some_faults, steps)
def test_bytes_keep_their_order_and_none_is_lost_whatever_changes(first: Faults, plan: list) -> None:
    line = Line(first)
    fed = b""
    for pause, step in plan:
        line.clock.advance(line.clock.now + pause)
        if isinstance(step, Faults):
            line.change(step)
        elif step:
            line.link.feed(step)
            fed += step
        arrived = b"".join(line.peer.sent)
        assert fed.startswith(arrived)
        assert sum(not timer.cancelled for timer in line.clock.timers) <= 1
    line.link.feed(Signal.END)
    line.change(CALM)
    assert line.peer.sent[-1] is Signal.END
    assert b"".join(line.peer.sent[:-1]) == fed
    assert line.way.bytes == len(fed)


@given(st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.2]), min_size=1, max_size=200))
def test_jitter_only_adds_and_keeps_the_order(pauses: list[float]) -> None:
    line = Line(Faults(latency_ms=20, jitter_ms=100))
    came = []
    for number, pause in enumerate(pauses):
        line.clock.advance(line.clock.now + pause)
        came.append(line.clock.now)
        line.link.feed(number.to_bytes(2, "big"))
    latest = came[-1] + 0.010 + 0.050
    assert line.sent(at=latest) == [number.to_bytes(2, "big") for number in range(len(pauses))]
    for moment, left in zip(came, line.peer.times, strict=True):
        assert moment + 0.010 <= left <= moment + 0.060 + 1e-9


def test_jitter_differs_from_chunk_to_chunk_and_repeats_with_its_seed() -> None:
    def delays() -> list[float]:
        line = Line(Faults(jitter_ms=100))
        for number in range(50):
            line.feed(number, b"x")
        line.clock.advance(100)
        return [left - number for number, left in enumerate(line.peer.times)]

    assert len({round(delay, 6) for delay in delays()}) > 40
    assert delays() == delays()


@pytest.mark.parametrize("signal", list(Signal))
def test_the_end_does_not_overtake_what_came_before_it(signal: Signal) -> None:
    line = Line(Faults(latency_ms=100, bytes_per_second=1000))
    line.feed(0, b"x" * 20)
    line.feed(0, signal)
    *before, last = line.sent(at=1)
    assert b"".join(before) == b"x" * 20
    assert last is signal
