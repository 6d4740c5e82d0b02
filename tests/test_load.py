import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sqlalchemy import text

from shopfloor import databases, stages
from shopfloor.errors import UserError
from shopfloor.load import LoadResult, Second, _history, load
from shopfloor.paths import material
from shopfloor.services import Services
from shopfloor.stages import Server, Stage

COLUMNS = ["Timestamp", "Name", "50%", "95%", "Total Request Count", "Total Failure Count"]

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


@contextmanager
def target(status: Callable[[int], int] = lambda _number: HTTPStatus.OK) -> Iterator[tuple[Server, list[str]]]:
    """A server of the test's own: the statuses of its answers, one after the other, and the paths it was asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            paths.append(self.path)
            head = f"HTTP/1.1 {status(len(paths))} X\r\nContent-Length: 2\r\n\r\n[]"
            self.wfile.write(head.encode())  # in one write: two would wait for each other's acknowledgement

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield Server(f"http://127.0.0.1:{http.server_port}", Stage("none", Path(), ()), 0), paths
        http.shutdown()
        thread.join()


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "load.py"
    path.write_text(USERS)
    return path


def result(**runs: list[Second]) -> LoadResult:
    return LoadResult(runs, users=16, busy=False)


NAIVE = [Second(10, 0, 900.0, 1500.0), Second(12, 2, 1000.0, 1400.0), Second(10, 0, None, None)]
SOLVED = [Second(300, 0, 20.0, 41.0), Second(310, 0, 22.0, 40.0), Second(290, 0, 21.0, 45.0)]


def test_figures_are_of_what_succeeded() -> None:
    both = result(naive=NAIVE, solved=SOLVED)
    assert both.throughput == {"naive": 10, "solved": 300}
    assert both.failures == {"naive": 2, "solved": 0}
    assert both.p50 == {"naive": 950, "solved": 21}
    assert both.p95 == {"naive": 1450, "solved": 41}
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


def history(path: Path, rows: list[tuple[object, ...]]) -> Path:
    path.write_text("\n".join(",".join(map(str, row)) for row in [COLUMNS, *rows]))
    return path


def test_a_history_is_read_second_by_second(tmp_path: Path) -> None:
    path = history(
        tmp_path / "history.csv",
        [
            (100, "Aggregated", "N/A", "N/A", 0, 0),  # the first second is not whole
            (100, "Aggregated", 5, 9, 4, 0),
            (101, "/v1/orders", 7, 9, 9, 9),  # one route of several
            (101, "Aggregated", 7, 9, 9, 0),
            (101, "Aggregated", 8, 10, 14, 1),
            (102, "Aggregated", "N/A", "N/A", 14, 1),
            (104, "Aggregated", 6, 11, 34, 3),  # second 103 was missed
        ],
    )
    assert _history(path) == [
        Second(10, 1, 8.0, 10.0),
        Second(0, 0, None, None),
        Second(0, 0, None, None),
        Second(20, 2, 6.0, 11.0),
    ]


@pytest.mark.slow
def test_users_ask_each_server_in_turn(users: Path) -> None:
    with target() as (one, paths_of_one), target() as (other, paths_of_other):
        both = load({"one": one, "other": other}, users, users=2, seconds=2, data="some-id")
    assert set(paths_of_one) == set(paths_of_other) == {"/some-id"}
    assert both.users == 2
    for name, paths in (("one", paths_of_one), ("other", paths_of_other)):
        run = both.runs[name]
        assert len(run) == 2
        # What the server saw includes the warm-up and the parts of seconds.
        assert 0 < sum(second.requests for second in run) < len(paths)
        assert both.p50[name] <= both.p95[name]
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
def test_a_server_that_answers_nothing_right_is_an_error_that_says_what_came(users: Path) -> None:
    with (
        target(lambda _number: HTTPStatus.NOT_FOUND) as (server, _),
        pytest.raises(UserError, match=r"The lost server .* answered no request of [\s\S]* x /7: .*404"),
    ):
        load({"lost": server}, users, users=1, seconds=1, data=7)


def test_users_that_cannot_be_read_are_an_error_that_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_module_anywhere")
    with target() as (server, _), pytest.raises(UserError, match="no_such_module_anywhere"):
        load({"any": server}, broken, users=1, seconds=1)


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
