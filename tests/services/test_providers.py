"""A provider fails as it is told to, in a thread or in a process, and tells what it has received."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest

from shopfloor.services.payments import Charges, start_payments
from shopfloor.services.process import ChildError
from shopfloor.services.providers import FULL, Plan, Provider, ProviderProcess, provider_process, running
from tests.helpers import wait_until
from tests.services.conftest import assert_gone

Either = Provider | ProviderProcess


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProviderProcess]:
    with start_payments(log=tmp_path_factory.mktemp("provider") / "log") as provider:
        yield provider


@pytest.fixture(params=["thread", "process"])
def provider(request: pytest.FixtureRequest) -> Iterator[Either]:
    """A payment provider in either variant; the one that is a process has charges of earlier tests."""
    if request.param == "thread":
        with running(Provider(Charges())) as provider:
            yield provider
    else:
        process: ProviderProcess = request.getfixturevalue("process")
        yield process
        process.plan = Plan()
        wait_until(lambda: process.counts().now == 0)
        process.forget()


@pytest.fixture
def reference(request: pytest.FixtureRequest) -> str:
    """Of this test's charges alone."""
    return str(request.node.name)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def charge(provider: Either, reference: str, key: str | None = None) -> httpx2.Response:
    return httpx2.post(
        f"{provider.url}/charges",
        json={"amount": 1999, "currency": "EUR", "reference": reference},
        headers={"Idempotency-Key": key or reference},
        timeout=20,
    )


def made(provider: Either, reference: str) -> int:
    return sum(each["reference"] == reference for each in provider.made())


@contextmanager
def asking(provider: Either, reference: str) -> Iterator[socket.socket]:
    """A connection on which a charge has been asked for."""
    body = json.dumps({"amount": 1999, "currency": "EUR", "reference": reference})
    address = urlsplit(provider.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        head = f"POST /charges HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {reference}\r\nContent-Length: {len(body)}"
        connection.sendall(f"{head}\r\n\r\n{body}".encode())
        yield connection


def test_nothing_goes_wrong_at_first(provider: Either, reference: str) -> None:
    assert charge(provider, reference).status_code == 201
    assert provider.plan == Plan()


@pytest.mark.parametrize(("fault", "status"), [("error", 503), ("error 500", 500), ("error 402", 402)])
def test_error(provider: Either, reference: str, fault: str, status: int) -> None:
    provider.plan = Plan(script=(fault,))
    answer = charge(provider, reference)
    assert answer.status_code == answer.json()["status"] == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert made(provider, reference) == 0
    assert charge(provider, reference).status_code == 201


def test_limited(provider: Either, reference: str) -> None:
    provider.plan = Plan(script=("limited 7", "limited 7 date", "limited"))
    seconds, date, default = (charge(provider, reference) for _ in range(3))
    assert [answer.status_code for answer in (seconds, date, default)] == [429, 429, 429]
    assert seconds.headers["Retry-After"] == "7"
    assert default.headers["Retry-After"] == "1"
    wait = parsedate_to_datetime(date.headers["Retry-After"]) - parsedate_to_datetime(date.headers["Date"])
    assert 7 <= wait.total_seconds() <= 8
    assert date.headers["Retry-After"].endswith(" GMT")
    assert made(provider, reference) == 0


def test_reset(provider: Either, reference: str) -> None:
    provider.plan = Plan(script=("reset", "reset"))
    with pytest.raises(ConnectionResetError), asking(provider, reference) as connection:
        connection.recv(100)
    with pytest.raises(httpx2.ReadError):
        charge(provider, reference)
    assert made(provider, reference) == 0
    assert [(each.fault, each.status, each.done) for each in provider.received()] == [("reset", None, False)] * 2


def test_lost_is_charged_once_and_replayed(provider: Either, reference: str) -> None:
    provider.plan = Plan(script=("lost", "lost"))
    with asking(provider, reference) as connection:
        assert connection.recv(100) == b""
    with pytest.raises(httpx2.RemoteProtocolError):
        charge(provider, reference)
    assert made(provider, reference) == 1
    answer = charge(provider, reference)
    assert (answer.status_code, answer.headers["Idempotent-Replayed"]) == (201, "true")
    found = httpx2.get(f"{provider.url}/charges", params={"reference": reference}).json()
    assert found == {"data": [answer.json()]}
    assert [(each.done, each.status, each.gone) for each in provider.received()[:2]] == [(True, None, False)] * 2


def test_malformed(provider: Either, reference: str) -> None:
    provider.plan = Plan(script=("malformed",))
    answer = charge(provider, reference)
    assert answer.status_code == 201
    assert answer.text.startswith('{"id"')
    with pytest.raises(ValueError, match="JSON|delimiter|string"):
        answer.json()
    assert made(provider, reference) == 1


def test_slow(provider: Either, reference: str) -> None:
    provider.plan = Plan(script=("slow 0.1",), latency=0.05)
    assert charge(provider, reference).status_code == 201
    assert charge(provider, reference).status_code == 201
    slow, ok = provider.received()
    assert slow.ended is not None
    assert ok.ended is not None
    assert slow.ended - slow.at >= 0.149  # a timer may fire a millisecond early
    assert ok.ended - ok.at >= 0.049


def test_hang_is_answered_after_a_change(provider: Either, reference: str, pool: ThreadPoolExecutor) -> None:
    provider.plan = Plan(rates={"hang": 1})
    answer = pool.submit(charge, provider, reference)
    wait_until(lambda: provider.counts().now == 1)
    assert made(provider, reference) == 0
    assert provider.received()[0].ended is None
    provider.plan = Plan()
    assert answer.result(timeout=30).status_code == 201
    (received,) = provider.received()
    assert (received.fault, received.done, received.status) == ("hang", True, 201)


def test_hang_ends_when_the_client_leaves(provider: Either, reference: str) -> None:
    provider.plan = Plan(rates={"hang": 1})
    with asking(provider, reference):
        wait_until(lambda: provider.counts().now == 1)
    wait_until(lambda: provider.counts().now == 0)
    counts = provider.counts()
    assert (counts.gone, counts.wasted, counts.done, counts.statuses) == (1, 0, 0, {})
    assert provider.received()[0].gone
    assert made(provider, reference) == 0


def test_script_then_rates_and_again_with_the_plan(provider: Either, reference: str) -> None:
    plan = Plan(script=("error 500", "ok"), rates={"error 502": 1})
    for _ in range(2):
        provider.plan = plan
        assert [charge(provider, reference).status_code for _ in range(4)] == [500, 201, 502, 502]
    assert provider.plan == plan


@pytest.mark.slow
def test_same_plan_same_faults(provider: Either, reference: str) -> None:
    plan = Plan(rates={"error 500": 0.3, "limited": 0.3}, seed=7)
    sequences = []
    for _ in range(2):
        provider.plan = plan
        sequences.append([charge(provider, reference).status_code for _ in range(20)])
    assert sequences[0] == sequences[1]
    assert set(sequences[0]) == {201, 429, 500}


def test_outage_for_a_span(provider: Either, reference: str) -> None:
    provider.plan = Plan(rates={"reset": 1})
    for _ in range(3):
        with pytest.raises(httpx2.TransportError):
            charge(provider, reference)
    provider.plan = Plan()
    assert charge(provider, reference).status_code == 201
    assert provider.counts().faults == {"reset": 3, "ok": 1}
    assert provider.counts().statuses == {201: 1}


def test_capacity_and_queue(provider: Either, reference: str, pool: ThreadPoolExecutor) -> None:
    provider.plan = Plan(script=("hang",), capacity=1, queue=1)
    working = submit_and_wait(pool, provider, lambda: charge(provider, reference, "first" + reference), now=1)
    waiting = submit_and_wait(pool, provider, lambda: charge(provider, reference, "second" + reference), now=2)
    refused = charge(provider, reference, "third" + reference)
    assert refused.status_code == 503
    assert provider.received()[2].fault == FULL
    assert not waiting.done()
    provider.plan = Plan(capacity=1)
    assert [working.result(timeout=30).status_code, waiting.result(timeout=30).status_code] == [201, 201]
    assert provider.counts().most == 3
    assert provider.counts().faults == {"hang": 1, "ok": 1, FULL: 1}
    assert made(provider, reference) == 2


def submit_and_wait(
    pool: ThreadPoolExecutor, provider: Either, call: Callable[[], httpx2.Response], *, now: int
) -> "Future[httpx2.Response]":
    """Begin a call that is not answered yet; it has arrived when this returns."""
    answer = pool.submit(call)
    wait_until(lambda: provider.counts().now == now)
    return answer


def test_capacity_takes_turns(provider: Either, reference: str, pool: ThreadPoolExecutor) -> None:
    provider.plan = Plan(latency=0.02, capacity=1)
    answers = list(pool.map(lambda number: charge(provider, reference, f"{reference} {number}"), range(6)))
    assert {answer.status_code for answer in answers} == {201}
    ends = [received.ended or 0.0 for received in provider.received()]
    assert ends == sorted(ends)
    assert ends[-1] - ends[0] >= 5 * 0.019


def test_more_capacity_lets_in_who_waits(reference: str, pool: ThreadPoolExecutor) -> None:
    with running(Provider(Charges(), Plan(script=("slow 300",), capacity=1))) as provider, asking(provider, "slow"):
        wait_until(lambda: provider.counts().now == 1)
        waiting = submit_and_wait(pool, provider, lambda: charge(provider, reference), now=2)
        provider.plan = Plan(capacity=2)
        assert waiting.result(timeout=30).status_code == 201
        assert provider.counts().now == 1


def test_work_for_nobody_is_counted(provider: Either, reference: str, pool: ThreadPoolExecutor) -> None:
    provider.plan = Plan(script=("hang",), capacity=1)
    working = submit_and_wait(pool, provider, lambda: charge(provider, reference, "first" + reference), now=1)
    with asking(provider, reference):
        wait_until(lambda: provider.counts().now == 2)
    httpx2.get(f"{provider.url}/stats")  # it came after the client's leaving, which is noticed by now
    provider.plan = Plan(capacity=1)
    assert working.result(timeout=30).status_code == 201
    wait_until(lambda: provider.counts().now == 0)
    assert (provider.counts().done, provider.counts().gone, provider.counts().wasted) == (2, 1, 1)
    assert provider.counts().statuses == {201: 1}
    assert made(provider, reference) == 2


def test_what_is_recorded(provider: Either, reference: str) -> None:
    wanted = {"X-Request-ID": "r-1", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "User-Agent": "shop/1"}
    began = monotonic()
    httpx2.get(
        f"{provider.url}/charges", params={"reference": reference}, headers={**wanted, "Authorization": "Bearer secret"}
    )
    charge(provider, reference, "key-7" + reference)
    asked, charged = provider.received()
    assert asked.headers == {name.lower(): value for name, value in wanted.items()}
    assert (asked.method, asked.path, asked.query) == ("GET", "/charges", {"reference": reference})
    assert (asked.fault, asked.status, asked.idempotency_key, asked.body) == ("ok", 200, None, b"")
    assert charged.idempotency_key == "key-7" + reference
    assert json.loads(charged.body)["reference"] == reference
    assert asked.ended is not None
    assert began <= asked.at <= asked.ended <= charged.at <= monotonic()


def test_forgetting(provider: Either, reference: str, pool: ThreadPoolExecutor) -> None:
    provider.plan = Plan(rates={"hang": 1})
    answer = submit_and_wait(pool, provider, lambda: charge(provider, reference), now=1)
    provider.forget()
    assert provider.received() == []
    provider.plan = Plan()
    assert answer.result(timeout=30).status_code == 201
    counts = provider.counts()
    assert (counts.requests, counts.now, counts.most, counts.done, counts.faults) == (0, 0, 0, 0, {})
    assert made(provider, reference) == 1


def test_stats_are_never_faulty_and_not_counted(provider: Either) -> None:
    provider.plan = Plan(rates={"reset": 1})
    assert httpx2.get(f"{provider.url}/stats").json()["requests"] == 0
    assert provider.counts().requests == 0


def test_control_is_not_on_the_port(provider: Either) -> None:
    provider.plan = Plan(rates={"error 502": 1})
    for path in ("/plan", "/control", "/received"):
        assert httpx2.put(provider.url + path, json={"rates": {}}).status_code == 502
    assert provider.plan == Plan(rates={"error 502": 1})


def test_hundreds_may_hang(process: ProviderProcess, reference: str) -> None:
    process.plan = Plan(script=("hang",) * 300)
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(asking(process, reference))
        wait_until(lambda: process.counts().now == 300)
        assert charge(process, reference).status_code == 201
    wait_until(lambda: process.counts().gone == 300)
    process.plan = Plan()
    process.forget()


@pytest.mark.slow
def test_control_from_many_threads(provider: Either, reference: str, pool: ThreadPoolExecutor) -> None:
    def use(number: int) -> int:
        provider.plan = Plan(seed=number)
        assert provider.plan.rates == {}
        received = provider.received()
        assert provider.counts().requests >= len(received)
        return charge(provider, reference).status_code

    assert set(pool.map(use, range(64))) == {201}
    assert provider.counts().requests == 64
    assert made(provider, reference) == 1


def test_end_while_requests_hang_and_wait(
    reference: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    provider = Provider(Charges(), Plan(rates={"hang": 1}, capacity=1))
    with ExitStack() as clients, ExitStack() as service:
        service.enter_context(running(provider))
        connections = [clients.enter_context(asking(provider, reference)) for _ in range(3)]
        wait_until(lambda: provider.counts().now == 3)
        end = threading.Thread(target=service.close, daemon=True)
        end.start()
        wait_until(lambda: not end.is_alive())
        assert all(map(was_cut, connections))
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []
    assert len(provider.received()) == 3  # and it still tells


def was_cut(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def test_it_runs_again(reference: str) -> None:
    provider = Provider(Charges())
    for _ in range(2):
        with running(provider):
            assert charge(provider, reference).status_code == 201
        with pytest.raises(httpx2.ConnectError):
            charge(provider, reference)
        provider.plan = Plan(latency=0.001)
    assert made(provider, reference) == 1


def test_it_runs_where_an_event_loop_does(reference: str) -> None:
    async def as_in_a_notebook() -> int:
        with running(Provider(Charges())) as provider:
            return charge(provider, reference).status_code

    assert asyncio.run(as_in_a_notebook()) == 201


def test_process_ends_at_once_while_requests_hang(tmp_path: Path, reference: str) -> None:
    with start_payments(log=tmp_path / "log") as provider:
        provider.plan = Plan(rates={"hang": 1})
        with asking(provider, reference) as connection:
            wait_until(lambda: provider.counts().now == 1)
            provider.child.stop()
            assert was_cut(connection)
    assert provider.child.poll() == -signal.SIGTERM  # it needed no killing
    assert (tmp_path / "log").read_text() == ""


def test_process_that_was_killed_is_said_to_be(tmp_path: Path) -> None:
    with start_payments(log=tmp_path / "log") as provider:
        os.kill(provider.child.pid, signal.SIGKILL)
        wait_until(lambda: provider.child.poll() is not None)
        for _ in range(2):
            with pytest.raises(ChildError, match="has ended"):
                provider.counts()


def test_process_that_cannot_start(tmp_path: Path) -> None:
    with (
        pytest.raises(ChildError, match=r"(?s)ended.*No module named shopfloor.services.nothing"),
        provider_process("shopfloor.services.nothing", log=tmp_path / "log"),
    ):
        pass


OWNER = """
import sys, time
from pathlib import Path
from shopfloor.services.payments import start_payments
from shopfloor.services.providers import Plan
with start_payments(log=Path(sys.argv[1])) as provider:
    provider.plan = Plan(rates={"hang": 1})
    print(provider.child.pid, provider.url, flush=True)
    time.sleep(300)
"""


def test_process_dies_with_its_owner(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        pid, url = owner.stdout.readline().split()
        provider = psutil.Process(int(pid))
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as connection:
            connection.sendall(b"GET /charges HTTP/1.1\r\nHost: x\r\n\r\n")
            owner.kill()
            assert_gone([provider])
