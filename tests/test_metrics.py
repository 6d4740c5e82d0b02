import math
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, make_wsgi_app
from prometheus_client.exposition import start_http_server

from shopfloor.errors import UserError
from shopfloor.metrics import Metrics, Series, Watch, difference, plot, scrape, watching
from tests.helpers import wait_until


class Quiet(WSGIRequestHandler):
    def log_message(self, *_) -> None:
        pass


class Service:
    """A real registry, served by prometheus_client's own application."""

    def __init__(self, port: int = 0) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("http_requests", "all", ["route", "status"], registry=self.registry)
        self.waiting = Gauge("waiting", "now", registry=self.registry)
        self.seconds = Histogram("seconds", "took", ["route"], buckets=(0.1, 0.5, 1.0), registry=self.registry)
        self.bytes = Summary("bytes", "sent", registry=self.registry)
        self._server = make_server("127.0.0.1", port, make_wsgi_app(self.registry), handler_class=Quiet)
        # Its own start_http_server takes half a second to end.
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/metrics"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.stop()


def serving(status: int, content: bytes, kind: str) -> tuple[HTTPServer, str]:
    """A server with that one answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.handle_request, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/metrics"


# ---- one reading ----


def test_values_are_found_by_name_and_labels(service):
    service.requests.labels("/a", "200").inc(3)
    service.requests.labels("/a", "500").inc()
    service.requests.labels("/b", "200").inc(5)
    service.waiting.set(2)
    metrics = scrape(service.url)
    assert metrics.value("waiting") == 2
    assert metrics.value("http_requests_total", route="/a", status="500") == 1
    assert metrics.value("http_requests_total", route="/b") == 5
    assert metrics.total("http_requests_total", status="200") == 8
    assert metrics.total("http_requests_total") == 9
    assert len(metrics.samples("http_requests_total", route="/a")) == 2
    assert {labels["route"] for labels in metrics.labels("http_requests_total")} == {"/a", "/b"}
    assert {"http_requests_total", "waiting"} <= set(metrics.names)


def test_nought_and_missing_are_told_apart(service):
    service.requests.labels("/a", "200")
    metrics = scrape(service.url)
    assert metrics.value("http_requests_total", route="/a") == 0
    with pytest.raises(KeyError) as missing:
        metrics.value("http_requests_total", route="/b")
    assert str(missing.value) == (
        'No series is http_requests_total{route="/b"}; of that name there are '
        'http_requests_total{route="/a", status="200"}.'
    )
    with pytest.raises(KeyError, match="No series has the name http_request_total; near it: http_requests_total"):
        metrics.total("http_request_total")
    assert metrics.samples("http_request_total") == []


def test_several_series_are_not_one_value(service):
    service.requests.labels("/a", "200").inc()
    service.requests.labels("/b", "200").inc()
    with pytest.raises(ValueError, match='2 series are http_requests_total{status="200"}'):
        scrape(service.url).value("http_requests_total", status="200")


def test_a_label_may_be_called_name_or_q():
    registry = CollectorRegistry()
    Gauge("queue", "", ["name", "q", "self"], registry=registry).labels("a", "b", "c").set(4)
    Histogram("h", "", ["name", "q"], registry=registry, buckets=(1,)).labels("a", "b").observe(0.5)
    server, _ = start_http_server(0, "127.0.0.1", registry)
    metrics = scrape(f"http://127.0.0.1:{server.server_port}/metrics")
    server.shutdown()
    server.server_close()
    assert metrics.value("queue", name="a", q="b", self="c") == 4
    assert metrics.quantile("h", 0.5, name="a", q="b").value == 0.5


@pytest.mark.parametrize("kind", ["text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"])
def test_both_formats_are_read(kind):
    end = b"# EOF\n" if "openmetrics" in kind else b""
    content = b'# TYPE orders counter\norders_total{city="a \\"b\\""} 3\n' + end
    server, url = serving(
        200, content.replace(b"TYPE orders ", b"TYPE orders " if end else b"TYPE orders_total "), kind
    )
    metrics = scrape(url)
    server.server_close()
    assert metrics.value("orders_total", city='a "b"') == 3
    assert [family.type for family in metrics.families] == ["counter"]


@pytest.mark.parametrize(
    ("status", "content", "kind", "says"),
    [
        (404, b"", "text/plain", "answered 404, not with metrics"),
        (200, b"<!doctype html><p>Hello", "text/html", "is not in Prometheus's format"),
        (200, b"\xff\xfe 1", "text/plain", "is not in Prometheus's format"),
        (200, b"a 1\n", "application/openmetrics-text", "is not in Prometheus's format"),
        (200, b"#" * (16 * 2**20 + 1), "text/plain", "more than 16,777,216 bytes"),
    ],
)
def test_what_is_not_metrics_is_said(status, content, kind, says):
    server, url = serving(status, content, kind)
    with pytest.raises(UserError, match=says):
        scrape(url)
    server.server_close()


def test_a_service_that_is_down_is_said():
    service = Service()
    service.stop()
    with pytest.raises(UserError, match="did not answer.*Is the service up"):
        scrape(service.url)
    with pytest.raises(UserError, match="did not answer"):
        scrape("nonsense")


def test_reading_metrics_does_not_load_matplotlib():
    code = "import sys, shopfloor.metrics, shopfloor.traces; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- between two readings ----


def test_counters_and_histograms_differ_by_their_growth_and_gauges_not(service):
    service.requests.labels("/a", "200").inc(10)
    service.seconds.labels("/a").observe(0.05)
    service.bytes.observe(100)
    service.waiting.set(5)
    before = scrape(service.url)
    service.requests.labels("/a", "200").inc(3)
    service.requests.labels("/new", "200").inc(2)
    service.seconds.labels("/a").observe(0.7)
    service.bytes.observe(11)
    service.waiting.set(4)
    grown = difference(before, scrape(service.url))
    assert grown.value("http_requests_total", route="/a") == 3
    assert grown.value("http_requests_total", route="/new") == 2
    assert grown.value("seconds_count") == 1
    assert grown.value("seconds_sum") == pytest.approx(0.7)
    assert [sample.value for sample in grown.samples("seconds_bucket")] == [0, 0, 1, 1]
    assert grown.value("bytes_sum") == 11
    assert grown.value("waiting") == 4
    assert before.value("http_requests_total", route="/a") == 10


def test_a_counter_that_was_set_back_grew_from_nought(service):
    service.requests.labels("/a", "200").inc(10)
    before = scrape(service.url)
    service.stop()
    anew = Service(service.port)
    anew.requests.labels("/a", "200").inc(4)
    grown = difference(before, scrape(anew.url))
    service._server, service._thread = anew._server, anew._thread
    assert grown.value("http_requests_total") == 4


# ---- quantiles ----


def test_a_quantile_is_estimated_within_its_bucket(service):
    for seconds in [0.05] * 50 + [0.2] * 40 + [0.9] * 10:
        service.seconds.labels("/a").observe(seconds)
    metrics = scrape(service.url)
    middle = metrics.quantile("seconds", 0.7)
    assert (middle.lower, middle.upper, middle.observations) == (0.1, 0.5, 100)
    assert float(middle) == pytest.approx(0.1 + 0.4 * 20 / 40)
    first = metrics.quantile("seconds", 0.25, route="/a")
    assert (first.value, first.lower, first.upper) == (pytest.approx(0.05), 0, 0.1)
    assert repr(middle) == "quantile 0.7: about 0.3; all that is known: between 0.1 and 0.5"


def test_the_last_bucket_gives_where_it_begins(service):
    service.seconds.labels("/a").observe(60)
    found = scrape(service.url).quantile("seconds", 0.99)
    assert (found.value, found.lower, found.upper) == (1.0, 1.0, math.inf)
    assert repr(found).endswith("above 1")


def test_buckets_of_several_series_are_added_up(service):
    for seconds in (0.05, 0.05, 0.05):
        service.seconds.labels("/a").observe(seconds)
    service.seconds.labels("/b").observe(0.6)
    metrics = scrape(service.url)
    assert metrics.quantile("seconds", 0.75).upper == 0.1
    assert metrics.quantile("seconds", 0.76).upper == 1.0
    assert metrics.quantile("seconds", 0.5, route="/b").lower == 0.5


def test_without_observations_a_quantile_is_no_number(service):
    service.seconds.labels("/a")
    found = scrape(service.url).quantile("seconds", 0.5)
    assert math.isnan(found.value)
    assert repr(found) == "quantile 0.5: no observations"
    with pytest.raises(KeyError, match="seconds_bucket"):
        scrape(service.url).quantile("second", 0.5)
    with pytest.raises(ValueError, match="from 0 to 1, not 95"):
        scrape(service.url).quantile("seconds", 95)


def test_buckets_are_read_as_prometheus_reads_them():
    """The cases of bucketQuantile's comment that a real histogram does not show."""

    def histogram(*buckets: tuple[str, float]) -> Metrics:
        lines = ["# TYPE h histogram", *(f'h_bucket{{le="{bound}"}} {count}' for bound, count in buckets)]
        server, url = serving(200, ("\n".join(lines) + "\n").encode(), "text/plain")
        try:
            return scrape(url)
        finally:
            server.server_close()

    assert histogram(("-1", 5), ("0", 5), ("+Inf", 5)).quantile("h", 0.5).value == -1
    assert histogram(("-2", 0), ("-1", 4), ("+Inf", 4)).quantile("h", 0.5).value == -1.5
    assert math.isnan(histogram(("+Inf", 5)).quantile("h", 0.5).value)
    assert math.isnan(histogram(("1", 5), ("2", 5)).quantile("h", 0.5).value)
    assert math.isnan(histogram(("1", 0), ("2", 5), ("+Inf", 5)).quantile("h", 0).value)
    assert histogram(("1", 4), ("2", 3), ("4", 8), ("+Inf", 8)).quantile("h", 0.75).value == 3  # not monotonic
    assert histogram(("+Inf", 8), ("4", 8), ("2", 4)).quantile("h", 0.75).value == 3  # not in order


# ---- over time ----


def test_a_watch_reads_until_its_block_ends(service):
    with watching(service.url, every=0.02) as watch:
        wait_until(lambda: len(watch.readings) >= 4)
        service.waiting.set(7)
    count = len(watch.readings)
    assert watch.gauge("waiting").values[-1] == 7
    assert watch.gauge("waiting").values[0] == 0
    assert watch.gauge("waiting").seconds[0] == 0
    assert list(watch.up.values) == [1.0] * count
    assert watch.up.seconds == tuple(sorted(watch.up.seconds))
    assert len(watch.readings) == count


def test_rates_are_growth_by_seconds(service):
    service.requests.labels("/a", "200").inc(100)
    with watching(service.url, every=60) as watch:
        service.requests.labels("/a", "200").inc(10)
        service.requests.labels("/a", "500").inc(10)
        for seconds in (0.05, 0.05, 0.3):
            service.seconds.labels("/a").observe(seconds)
    (seconds,) = watch.rate("http_requests_total").seconds
    assert watch.rate("http_requests_total").values == (pytest.approx(20 / seconds),)
    assert watch.rate("http_requests_total", status="500").values == (pytest.approx(10 / seconds),)
    assert watch.quantile("seconds", 0.5, route="/a").values == (pytest.approx(0.075),)


def test_what_never_was_is_missing_and_not_nought(service):
    with watching(service.url, every=60) as watch:
        pass
    service.requests.labels("/a", "200")
    watch.read()
    with pytest.raises(KeyError, match="near it: http"):
        watch.rate("http_request_total")
    with pytest.raises(KeyError, match='route="/b"'):
        watch.gauge("http_requests_total", route="/b")


def test_a_service_that_is_away_leaves_a_gap(service):
    service.requests.labels("/a", "200").inc(10)
    watch = Watch(service.url, scrape(service.url))
    service.stop()
    watch.read()
    anew = Service(service.port)
    service._server, service._thread = anew._server, anew._thread
    anew.requests.labels("/a", "200").inc(3)
    watch.read()
    assert watch.up.values == (1.0, 0.0, 1.0)
    rate = watch.rate("http_requests_total")
    assert math.isnan(rate.values[0])
    assert rate.values[1] == pytest.approx(3 / rate.seconds[1])
    assert rate.known == [rate.values[1]]
    gauge = watch.gauge("http_requests_total").values
    assert (gauge[0], math.isnan(gauge[1]), gauge[2]) == (10, True, 3)


def test_a_slow_service_is_not_asked_several_times_at_once():
    slow, asked = Event(), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if len(asked) > 1:
                slow.wait(30)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"a 1\n")

        def log_message(self, *_) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    with watching(f"http://127.0.0.1:{server.server_port}/metrics", every=0.001) as watch:
        wait_until(lambda: len(asked) == 2)
        assert len(watch.readings) == 1
        slow.set()
        wait_until(lambda: len(watch.readings) >= 3)
    server.shutdown()
    server.server_close()
    thread.join()


def test_watching_what_does_not_answer_is_refused_at_once():
    service = Service()
    service.stop()
    with pytest.raises(UserError, match="did not answer"), watching(service.url):
        pass


def test_a_plot_tells_its_figures():
    nan = math.nan
    rates = {"200": Series((1, 2, 3), (10, nan, 30)), "500": Series((1, 2, 3), (nan, nan, nan))}
    figure = plot({"requests a second": rates, "waiting": {"all": Series((1, 2, 3), (1, 2, 9))}}, caption="One run.")
    assert figure.alt == (
        "requests a second: 200 median 20, from 10 to 30; 500 without a value. waiting: all median 2, from 1 to 9."
    )
    assert figure.caption == "One run."
    assert re.findall(r">(requests a second|waiting|200|all|seconds)<", figure.svg)
    assert plot({"": rates}, alt="Mine.").alt == "Mine."


def test_many_may_read_at_once(service):
    service.requests.labels("/a", "200").inc(5)
    with ThreadPoolExecutor(8) as pool:
        readings = list(pool.map(lambda _: scrape(service.url), range(32)))
    assert {reading.value("http_requests_total") for reading in readings} == {5}
