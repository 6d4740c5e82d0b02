import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy import text

from shopfloor import databases, stages
from shopfloor.errors import UserError
from shopfloor.load import LoadResult, Outage, Request, Second, Span, _seconds, load
from shopfloor.paths import material
from shopfloor.services import Services
from shopfloor.stages import Server, Stage

USERS = """
import json, os
from pathlib import Path
from locust import FastHttpUser, task

DATA = json.loads(Path(os.environ["SHOPFLOOR_LOAD_DATA"]).read_text())

class Visitor(FastHttpUser):
    @task
    def visit(self):
        self.client.get(f"/{DATA}")
"""

SHOPPERS = """
from locust import FastHttpUser, task

class Visitor(FastHttpUser):
    @task
    def look(self):
        self.client.get("/products")

class Buyer(FastHttpUser):
    network_timeout = 0.3

    @task
    def pay(self):
        self.client.post("/payments", name="/payments")
"""


class Target:
    """A server of the test's own, which can be made to hang.

    Attributes:
        paths: what it was asked for.
        hangs: whether requests for a path are to wait.
    """

    def __init__(self, status: Callable[[int], int], hangs: Callable[[str], bool]) -> None:
        self.paths: list[str] = []
        self.status = status
        self.hangs = hangs
        self.calls: Counter[str] = Counter()
        self._well = threading.Event()
        self._well.set()

    def answer(self, path: str) -> bytes:
        self.paths.append(path)
        if self.hangs(path):
            self._well.wait()
        return f"HTTP/1.1 {self.status(len(self.paths))} X\r\nContent-Length: 2\r\n\r\n[]".encode()

    def outage(self, start: float, end: float) -> Outage:
        return Outage("outage", start, end, self.begin, self.finish)

    def begin(self) -> None:
        self.calls["begin"] += 1
        self._well.clear()

    def finish(self) -> None:
        self.calls["finish"] += 1
        self._well.set()


@contextmanager
def target(
    status: Callable[[int], int] = lambda _number: HTTPStatus.OK, hangs: Callable[[str], bool] = lambda _path: True
) -> Iterator[tuple[Server, Target]]:
    """Serve one: `status` gives the statuses of its answers, one after the other, `hangs` the paths an outage is of."""
    served = Target(status, hangs)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with suppress(ConnectionError):  # a user who waited for too long has left
                self.wfile.write(served.answer(self.path))  # in one write: two would wait for an acknowledgement

        def do_POST(self) -> None:
            self.do_GET()

        def handle(self) -> None:
            with suppress(ConnectionError):
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{http.server_port}", Stage("none", Path(), ()), 0, Path()), served
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "load.py"
    path.write_text(USERS)
    return path


def result(**runs: list[Second]) -> LoadResult:
    return LoadResult(runs, users=16, busy=False)


NAIVE = [
    Second(0, 10, 0, 900.0, 1500.0, 1600.0),
    Second(1, 12, 2, 1000.0, 1400.0, 1800.0),
    Second(2, 10, 0, None, None, None),
]
SOLVED = [
    Second(0, 300, 0, 20.0, 41.0, 50.0),
    Second(1, 310, 0, 22.0, 40.0, 51.0),
    Second(2, 290, 0, 21.0, 45.0, 52.0),
]


def test_figures_are_of_what_succeeded() -> None:
    both = result(naive=NAIVE, solved=SOLVED)
    assert both.throughput == {"naive": 10, "solved": 300}
    assert both.failures == {"naive": 2, "solved": 0}
    assert both.p50 == {"naive": 950, "solved": 21}
    assert both.p95 == {"naive": 1450, "solved": 41}
    assert both.p99 == {"naive": 1700, "solved": 51}
    assert both.ratio("solved", "naive") == pytest.approx(30)


def test_it_reads_as_text_and_as_a_table() -> None:
    both = result(naive=NAIVE, solved=SOLVED)
    assert " ".join(repr(both).split()) == (
        "16 users at once. naive: 10 requests a second, median 950 ms, 95th percentile 1,450 ms, 2 failed. "
        "solved: 300 requests a second, median 21 ms, 95th percentile 41 ms, 0 failed."
    )
    html = both._repr_html_()
    assert "<th>naive</th><td>10</td><td>950 ms</td><td>1,450 ms</td><td>2</td>" in html
    assert "busy" not in html
    assert "busy" in LoadResult(both.runs, 16, busy=True)._repr_html_()


def test_the_figure_names_each_server_in_both_drawings() -> None:
    figure = result(naive=NAIVE, solved=SOLVED).plot("What <16> users got")
    assert figure.svg.count(">naive</text>") == figure.svg.count(">solved</text>") == 2
    assert "300 requests a second" in figure.alt
    assert "&lt;16&gt;" in figure._repr_html_()


def around_an_outage(counts: list[int], failures: int = 4) -> LoadResult:
    """A run of ten seconds with an outage from 3 to 6, in which nothing of one kind of request was answered."""
    run = [
        Second(at, count + failures, failures, 5000.0, 5001.0, 5002.0)
        if 3 <= at < 6
        else Second(at, count, 0, 20.0, 40.0, 60.0)
        for at, count in enumerate(counts)
    ]
    silent = [Second(at, 0, 0, None, None, None) for at in range(len(counts))]
    looks = [Second(at, 7, 0, 5.0, 6.0, 7.0) for at in range(len(counts))]
    requests = {"shop": {"POST /payments": run, "GET /silence": silent}, "other": {"GET /products": looks}}
    spans = {name: {"outage": Span("outage", 3.004, 6.002)} for name in requests}
    return LoadResult({"shop": run, "other": looks}, 16, busy=False, requests=requests, spans=spans)


def test_figures_before_during_and_after_an_outage() -> None:
    whole = around_an_outage([100, 102, 98, 0, 0, 0, 50, 96, 99, 101])
    assert whole.before("outage").throughput["shop"] == 100
    during = whole.during("outage")
    assert [second.at for second in during.runs["shop"]] == [3, 4, 5]
    assert during.throughput["shop"] == 0
    assert during.failures["shop"] == 12
    assert during.p99["shop"] == 5002
    assert [second.at for second in whole.after("outage").runs["shop"]] == [6, 7, 8, 9]
    assert during.ratio("other", "shop") == pytest.approx(7 * 3), "as though one request in three seconds had succeeded"
    with pytest.raises(KeyError):
        whole.during("another")


def test_a_second_of_which_the_outage_took_a_part_is_on_no_side() -> None:
    late = Span("outage", 3.4, 6.4)
    assert (late.before, late.seconds, late.after(9)) == (range(3), range(4, 6), range(7, 9))
    on_time = Span("outage", 3.02, 6.02)
    assert (on_time.before, on_time.seconds, on_time.after(9)) == (range(3), range(3, 6), range(6, 9))


def test_an_outage_without_a_second_on_one_side_is_an_error_that_says_so() -> None:
    run = [Second(at, 9, 0, 1.0, 2.0, 3.0) for at in range(4)]
    spans = {"shop": {"all": Span("all", 0.0, 4.0), "blink": Span("blink", 1.3, 1.6)}}
    always = LoadResult({"shop": run}, 16, busy=False, spans=spans)
    with pytest.raises(ValueError, match="no whole second of shop is before 'all'"):
        always.before("all")
    with pytest.raises(ValueError, match="no whole second of shop is after 'all'"):
        always.after("all")
    with pytest.raises(ValueError, match="no whole second of shop is during 'blink'"):
        always.during("blink")


def test_figures_of_one_request() -> None:
    whole = around_an_outage([100] * 10)
    assert list(whole.named) == ["GET /products", "GET /silence", "POST /payments"]
    assert whole.named["GET /products"].throughput == {"shop": 0, "other": 7}, "shop was never asked for it"
    assert whole.named["POST /payments"].during("outage").failures == {"shop": 12, "other": 0}
    assert whole.during("outage").named["GET /products"].throughput["other"] == 7
    assert "GET /silence" in whole.named
    assert "unknown" in repr(whole.named["GET /silence"])


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([95, 97, 101, 99], 0),
        ([0, 0, 81, 90], 2),
        ([100, 100, 60, 100], 0),  # one bad second is no relapse
        ([0, 100, 100, 30, 20], None),  # it fell again
        ([100, 0, 100, 0, 0], None),
        ([79, 79, 79, 79], None),
    ],
)
def test_back_is_when_throughput_is_and_stays(after: list[int], expected: int | None) -> None:
    whole = around_an_outage([100, 140, 90, 0, 0, 0, *after])
    assert whole.recovered_after("outage") == {"shop": expected, "other": 0}


def test_what_never_worked_cannot_recover() -> None:
    with pytest.raises(ValueError, match="shop had no success before 'outage'"):
        around_an_outage([0] * 10).recovered_after("outage")


def test_a_timeline_shows_each_server_and_shades_the_outage() -> None:
    figure = around_an_outage([100, 102, 98, 0, 0, 0, 50, 96, 99, 101]).timeline("What <16> users got")
    for words, times in {
        "shop: requests a second": 1,
        "other: requests a second": 1,
        "shop: milliseconds they took": 1,
        "other: milliseconds they took": 1,
        "outage": 2,
        "answered": 2,
        "failed": 2,
        "p50": 2,
        "p95": 2,
        "p99": 2,
    }.items():
        assert figure.svg.count(f">{words}</text>") == times, words
    assert (
        "outage: before 100 a second succeeded and 0 failed, median 20 ms, "
        "while it lasted, from second 3 to 6, 0 a second succeeded and 4.0 failed, median 5,000 ms, "
        "after 86 a second succeeded and 0 failed, median 20 ms."
    ) in figure.alt
    assert "&lt;16&gt;" in figure._repr_html_()


def test_a_timeline_of_a_request_that_nobody_answered_can_be_drawn() -> None:
    silent = around_an_outage([100] * 10).named["GET /silence"]
    assert "p50" not in silent.timeline().svg
    assert silent.plot().svg


def test_seconds_are_made_of_the_requests_that_ended_in_them() -> None:
    requests = [
        Request(99.9, "GET /a", 9.0, None),  # warming up
        Request(100.0, "GET /a", 3.0, None),
        Request(100.5, "GET /b", 1.0, "503"),
        Request(100.9, "GET /a", 2.0, None),
        *(Request(102.0 + number / 1000, "GET /a", float(number), None) for number in range(1, 201)),
        Request(103.0, "GET /a", 9.0, None),  # the second too many
    ]
    assert _seconds(requests, 100.0, 3) == [
        Second(0, 3, 1, 2.0, 3.0, 3.0),
        Second(1, 0, 0, None, None, None),
        Second(2, 200, 0, 100.0, 190.0, 198.0),
    ]


@pytest.mark.slow
def test_users_ask_each_server_in_turn(users: Path) -> None:
    with target() as (one, first), target() as (other, second):
        both = load({"one": one, "other": other}, users, users=2, seconds=2, data="some-id")
    assert set(first.paths) == set(second.paths) == {"/some-id"}
    assert both.users == 2
    assert list(both.named) == ["GET /some-id"]
    assert both.named["GET /some-id"].runs == both.runs
    for name, paths in (("one", first.paths), ("other", second.paths)):
        run = both.runs[name]
        assert [second.at for second in run] == [0, 1]
        # What the server saw includes the warm-up and the parts of seconds.
        assert 0 < sum(second.requests for second in run) < len(paths)
        assert both.p50[name] <= both.p95[name] <= both.p99[name]
    assert both.failures == {"one": 0, "other": 0}
    assert "locust" not in sys.modules
    assert "gevent" not in sys.modules


@pytest.mark.slow
def test_failures_are_reported_and_do_not_count_as_throughput(users: Path) -> None:
    def every_second(number: int) -> int:
        return HTTPStatus.OK if number % 2 else HTTPStatus.SERVICE_UNAVAILABLE

    with target(every_second) as (server, _):
        half = load({"half": server}, users, users=1, seconds=1)
    requests = sum(second.requests for second in half.runs["half"])
    assert half.failures["half"] == pytest.approx(requests / 2, abs=1)
    assert half.throughput["half"] == pytest.approx(requests / 2, abs=1)


@pytest.mark.slow
def test_an_outage_of_one_thing_is_seen_where_it_is(tmp_path: Path) -> None:
    users = tmp_path / "load.py"
    users.write_text(SHOPPERS)
    with target(hangs=lambda path: path == "/payments") as (server, served):
        one = load({"one": server, "again": server}, users, users=4, seconds=4, events=[served.outage(1, 3)])
    assert served.calls == {"begin": 2, "finish": 2}, "once in each server's run"
    payments, products = one.named["POST /payments"], one.named["GET /products"]
    for name in ("one", "again"):
        assert payments.before("outage").throughput[name] > 0
        assert payments.before("outage").failures[name] == 0
        amidst = payments.runs[name][2]  # what was under way as it began has ended in the second before
        assert amidst.successes == 0
        assert amidst.failures > 0, "users gave up by themselves"
        assert amidst.p50 is not None
        assert amidst.p50 >= 290, "after their timeout"
        assert payments.during("outage").failures[name] >= amidst.failures
        assert payments.after("outage").throughput[name] > 0
        assert products.during("outage").throughput[name] > 0
        assert products.failures[name] == 0
    assert one.timeline().svg.count(">outage</text>") == 2


@pytest.mark.slow
def test_a_server_that_is_silent_for_seconds_has_seconds_without_answers(users: Path) -> None:
    with target() as (server, served):
        mute = load({"mute": server}, users, users=2, seconds=4, events=[served.outage(1, 3)])
    run = mute.runs["mute"]
    assert run[0].successes > 0
    assert run[2] == Second(2, 0, 0, None, None, None)
    assert run[3].successes > 0
    assert mute.timeline().svg


@pytest.mark.slow
def test_an_outage_that_cannot_begin_fails_the_run_and_is_finished(users: Path) -> None:
    def begin() -> None:
        raise ConnectionError("nobody is there")

    with target() as (server, served):
        outage = Outage("payments hang", 0, 1, begin, served.finish)
        with pytest.raises(UserError, match="'payments hang' could not be begun on mine: ConnectionError: nobody is"):
            load({"mine": server}, users, users=1, seconds=2, events=[outage])
    assert served.calls == {"finish": 1}


@pytest.mark.slow
def test_an_outage_that_cannot_end_fails_the_run(users: Path) -> None:
    calls: Counter[str] = Counter()

    def finish() -> None:
        calls["finish"] += 1
        raise ConnectionError("nobody is there")

    with target() as (server, _):
        outage = Outage("payments hang", 0, 1, lambda: None, finish)
        with pytest.raises(UserError, match="'payments hang' could not be finished on mine: ConnectionError"):
            load({"mine": server}, users, users=1, seconds=2, events=[outage])
    assert calls == {"finish": 1}


@pytest.mark.slow
def test_users_who_leave_in_an_outage_fail_the_run_and_it_is_finished(tmp_path: Path) -> None:
    users = tmp_path / "load.py"
    users.write_text(
        USERS
        + """
    def on_start(self):
        import gevent
        gevent.spawn_later(2, self.environment.runner.quit)
"""
    )
    with target(hangs=lambda _path: False) as (server, served), pytest.raises(UserError, match="ended too early on th"):
        load({"left": server}, users, users=1, seconds=4, events=[served.outage(0, 4)])
    assert served.calls == {"begin": 1, "finish": 1}


@pytest.mark.slow
def test_of_two_outages_at_one_moment_the_first_ends_before_the_second_begins(users: Path) -> None:
    told: list[str] = []
    events = [
        Outage("late", 1, 2, lambda: told.append("late begins"), lambda: told.append("late ends")),
        Outage("early", 0, 1, lambda: told.append("early begins"), lambda: told.append("early ends")),
    ]
    with target() as (server, _):
        twice = load({"any": server}, users, users=1, seconds=2, events=events)
    assert told == ["early begins", "early ends", "late begins", "late ends"]
    assert set(twice.spans["any"]) == {"early", "late"}


def test_impossible_outages_are_refused(users: Path) -> None:
    def outage(name: str, start: float, end: float) -> Outage:
        return Outage(name, start, end, lambda: None, lambda: None)

    with pytest.raises(ValueError, match="'back' cannot last from second 3 to second 2"):
        outage("back", 3, 2)
    with pytest.raises(ValueError, match="'long' ends after the 8 seconds"):
        load({}, users, events=[outage("long", 1, 9)])
    with pytest.raises(ValueError, match="one name"):
        load({}, users, events=[outage("same", 1, 2), outage("same", 3, 4)])


@pytest.mark.slow
def test_a_server_that_answers_nothing_right_is_an_error_that_says_what_came(users: Path) -> None:
    with (
        target(lambda _number: HTTPStatus.NOT_FOUND) as (server, _),
        pytest.raises(UserError, match=r"The lost server .* answered no request of [\s\S]* x GET /7: .*404"),
    ):
        load({"lost": server}, users, users=1, seconds=1, data=7)


def test_users_that_cannot_be_read_are_an_error_that_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_module_anywhere")
    with target() as (server, served), pytest.raises(UserError, match="no_such_module_anywhere"):
        load({"any": server}, broken, users=1, seconds=1, events=[served.outage(0, 1)])
    assert not served.calls


@pytest.mark.slow
@pytest.mark.parametrize("topic", ["data/indexing", "data/n_plus_one"])
def test_the_topics_users_find_the_shop(services: Services, topic: str) -> None:
    with ExitStack() as running:
        servers = {}
        for name in ("naive", "solved"):
            database = running.enter_context(databases.clone(services, "small"))
            with database.engine.connect() as connection:
                customers = [str(one) for one in connection.scalars(text("SELECT public_id FROM customers"))]
            serving = stages.serve(stages.build(name), database_url=database.url, redis_url=services.redis_url)
            servers[name] = running.enter_context(serving)
        both = load(servers, material().labs / topic / "load.py", users=4, seconds=2, data=customers)
    assert both.failures == {"naive": 0, "solved": 0}
    assert min(both.throughput.values()) > 0
