import re
from itertools import count
from pathlib import Path
from xml.etree import ElementTree

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from playwright.sync_api import Browser
from sqlalchemy import create_engine, text

from shopfloor.figures import MAX_BYTES
from shopfloor.paths import material
from shopfloor.traces import Event, Span, Trace, receiving_traces
from shopfloor.waterfall import Waterfall, waterfall
from tests.book.conftest import browser  # noqa: F401 - a fixture

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SVG = "{http://www.w3.org/2000/svg}"
CUSTOMER = "SELECT customers.id, customers.name \nFROM customers \nWHERE customers.id = %(pk_1)s::BIGINT"


class Tale:
    """Spans that are made one after another; times in milliseconds."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self.spans: list[Span] = []

    def span(self, name: str, parent: Span | None, start: float, end: float, kind="internal", **more) -> Span:
        spoken = Span(
            trace_id=TRACE,
            span_id=f"{next(self._numbers):016x}",
            parent_id=parent.span_id if parent else "",
            name=name,
            kind=kind,
            start=10**18 + round(start * 1e6),
            end=10**18 + round(end * 1e6),
            **more,
        )
        self.spans.append(spoken)
        return spoken

    def sql(self, statement: str, parent: Span, start: float, end: float, **more) -> Span:
        attributes = {"db.system": "postgresql", "db.statement": statement}
        return self.span("SELECT shop", parent, start, end, "client", attributes=attributes, **more)

    def drawn(self) -> Waterfall:
        return waterfall(Trace(self.spans))


def n_plus_one(times: int = 100) -> Tale:
    tale = Tale()
    page = tale.span("GET /v1/orders", None, 0, 10 + 2 * times, "server")
    tale.sql("SELECT orders.id FROM orders LIMIT 100", page, 1, 9)
    for number in range(times):
        tale.sql(CUSTOMER, page, 10 + 2 * number, 11 + 2 * number)
    return tale


def payment() -> Tale:
    tale = Tale()
    page = tale.span("POST /v1/orders/<id>/payments", None, 0, 200, "server")
    tale.span("GET", page, 2, 4, "client", attributes={"db.system": "redis", "db.statement": "GET ?"})
    pay = tale.span("pay", page, 10, 190)
    url = {"url.full": "http://127.0.0.1:4000/charges?x=1"}
    why = {"status": "error", "status_message": "no answer within 0.1 s <&>"}
    tale.span("POST", pay, 20, 120, "client", attributes=url, **why)
    tale.span("POST", pay, 130, 180, "client", attributes=url)
    return tale


def texts(figure: Waterfall) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(figure.svg).iter(f"{SVG}text")]


def test_many_alike_share_a_row_and_few_do_not():
    assert [line for line in texts(n_plus_one(100).drawn()) if "SELECT" in line] == [
        "SELECT … FROM orders LIMIT 100",
        "100 × SELECT … FROM customers WHERE id = ?",
    ]
    assert sum("customers" in line for line in texts(n_plus_one(3).drawn())) == 3


def test_a_shared_row_tells_the_spread_and_whether_they_overlapped():
    tale = Tale()
    root = tale.span("root", None, 0, 100)
    for number in range(4):
        tale.span("turn", root, 10 * number, 10 * number + 1 + number)
        tale.span("together", root, 50, 60 + number)
    drawn = texts(tale.drawn())
    assert "1.0 to 4.0 ms each, one after another" in drawn
    assert "10.0 to 13.0 ms each, up to 4 at once" in drawn
    assert "13.0 ms" in drawn  # during which any of them ran


def test_what_shared_rows_did_is_shared_again():
    tale = Tale()
    root = tale.span("root", None, 0, 100)
    for number in range(10):
        call = tale.span("call", root, 10 * number, 10 * number + 5)
        tale.sql(CUSTOMER, call, 10 * number + 1, 10 * number + 2)
    assert repr(tale.drawn()).count("10 × ") == 2


def test_a_failed_one_among_many_alike_is_not_hidden():
    tale = n_plus_one(20)
    tale.sql(CUSTOMER, tale.spans[0], 45, 49, status="error", status_message="deadlock detected")
    drawn = texts(tale.drawn())
    assert "20 × SELECT … FROM customers WHERE id = ?" in drawn
    assert "✕ failed: deadlock detected" in drawn


def test_failures_are_marked_by_words_in_every_form():
    figure = payment().drawn()
    assert "✕ failed: no answer within 0.1 s <&>" in texts(figure)
    assert "✕ failed: no answer within 0.1 s <&>" in figure.text
    assert "Errors: POST /charges failed: no answer within 0.1 s <&>." in figure.alt


def test_without_a_message_the_exception_says_why():
    tale = Tale()
    raised = Event("exception", 0, {"exception.type": "TimeoutError", "exception.message": "late"})
    tale.span("root", None, 0, 1, status="error", events=(raised,))
    assert "✕ failed: TimeoutError: late" in texts(tale.drawn())
    silent = Tale()
    silent.span("root", None, 0, 1, status="error")
    assert "✕ failed" in texts(silent.drawn())


def test_sorts_have_colours_and_the_legend_names_them():
    figure = payment().drawn()
    assert texts(figure)[:4] == ["server", "cache", "call", "inside"]
    assert [series for series in "134567" if f"var(--sf-series-{series}," in figure.svg] == ["1", "3", "5", "6"]
    assert "var(--sf-series-4," in n_plus_one(4).drawn().svg


def test_a_bar_is_pale_where_the_span_waited():
    tale = Tale()
    root = tale.span("root", None, 0, 100)
    tale.span("child", root, 25, 75)
    paths = list(ElementTree.fromstring(tale.drawn().svg).iter(f"{SVG}path"))
    whole, own, child = [re.findall(r"M([\d.]+) \d+h([\d.]+)", path.get("d")) for path in paths]
    assert whole == [("0", "1000")]
    assert own == [("0", "250"), ("750", "250")]
    assert child == [("250", "500")]
    assert ["opacity" in path.get("style") for path in paths] == [True, False, False]


def test_the_shortest_bar_can_be_seen_and_stays_inside():
    tale = Tale()
    root = tale.span("root", None, 0, 10_000)
    tale.span("blink", root, 10_000, 10_000)
    blink = list(ElementTree.fromstring(tale.drawn().svg).iter(f"{SVG}path"))[-1]
    assert re.match(r"M997 \d+h3v", blink.get("d"))


@pytest.mark.parametrize(
    ("milliseconds", "ticks"),
    [
        (0, ["0 ms"]),
        (0.4, ["0 ms", "0.1", "0.2", "0.3", "0.4"]),
        (121, ["0 ms", "50", "100"]),
        (9, ["0 ms", "2", "4", "6", "8"]),
        (2310, ["0 ms", "500", "1,000", "1,500", "2,000"]),
    ],
)
def test_the_axis_has_round_numbers(milliseconds, ticks):
    tale = Tale()
    tale.span("root", None, 0, milliseconds)
    assert [line for line in texts(tale.drawn()) if line in ticks] == ticks
    assert texts(tale.drawn())[: len(ticks) + 1][-1] == ticks[-1]


def test_the_alt_text_tells_the_slowest_path():
    assert n_plus_one(100).drawn().alt == (
        "A trace of 102 spans over 210 ms. The slowest path: GET /v1/orders, 210 ms; in it 100 × SELECT … FROM "
        "customers WHERE id = ?, 100 ms (1.0 to 1.0 ms each, one after another). 102 ms are GET /v1/orders's own."
    )
    one = Tale()
    one.span("GET /livez", None, 0, 0.25, "server")
    assert one.drawn().alt == "A trace of 1 span over 0.25 ms. GET /livez, 0.25 ms."
    assert waterfall(Trace(one.spans), alt="Mine.").alt == "Mine."


def test_what_is_missing_stands_below():
    tale = Tale()
    root = tale.span("root", None, 0, 10)
    lost = Span(TRACE, "f" * 16, "", "lost", "internal", root.start, root.end)
    tale.span("orphan", lost, 1, 2)
    figure = waterfall(Trace(tale.spans), caption="The page.")
    assert figure.caption.startswith("The page. The parent of orphan is not among these spans")
    assert "The parent of orphan" in figure.alt
    assert "The parent of orphan" in figure.text


def test_a_huge_trace_stays_small_and_says_what_it_leaves_out():
    tale = Tale()
    root = tale.span("root", None, 0, 30_000)
    for number in range(3000):
        step = tale.span(f"step {number} {'of a long tale ' * 20}", root, 10 * number, 10 * number + number / 1000)
        tale.sql(CUSTOMER, step, 10 * number, 10 * number + 0.001)
    tale.span("broken", root, 1, 2, status="error")
    figure = tale.drawn()
    assert len(figure.svg.encode()) <= MAX_BYTES
    assert "broken" in texts(figure)
    assert "step 2999" in figure.text
    assert re.search(r"5,\d\d\d more spans of at most \d\.\d ms each are not drawn", figure.caption)


def test_the_densest_rows_stay_small():
    tale = Tale()
    root = tale.span("root", None, 0, 1000)
    for number in range(60):
        parent = tale.span(f"part {number}", root, 0, 1000)
        for turn in range(150):
            start = 6.5 * turn + number / 60
            tale.span("turn", tale.span("step", parent, start, start + 3, "client"), start + 1, start + 2)
    assert len(tale.drawn().svg.encode()) <= MAX_BYTES


def test_a_deep_trace_is_drawn_and_its_rows_keep_to_the_page():
    tale = Tale()
    parent = None
    for depth in range(2000):
        parent = tale.span(f"level {depth}", parent, depth, 4000 - depth)
    assert "level 8" in texts(tale.drawn())
    assert max(map(len, repr(tale.drawn()).splitlines())) <= 80


def test_the_same_trace_gives_the_same_bytes_and_two_do_not_share_ids():
    ids = [set(re.findall(r' id="([^"]+)"', tale.drawn().svg)) for tale in (n_plus_one(), payment())]
    assert n_plus_one().drawn() == n_plus_one().drawn()
    assert ids[0]
    assert not ids[0] & ids[1]
    for tale in (n_plus_one(), payment()):
        svg = tale.drawn().svg
        assert set(re.findall(r"url\(#([^)]+)\)", svg)) <= set(re.findall(r' id="([^"]+)"', svg))


def test_it_takes_its_colours_from_the_page_and_leaves_the_page_alone():
    svg = payment().drawn().svg
    assert "<style" not in svg
    bare = re.sub(r"var\([^()]*\)", "page's", svg)
    colours = re.findall(r'(?: (?:fill|stroke)="|[";](?:fill|stroke):)([^;"]*)', bare)
    assert {re.sub(r"#\w+", "", colour) for colour in colours} == {"page's", "currentColor", "none", "url()"}


def test_names_from_outside_are_only_text():
    tale = Tale()
    tale.span('<script>"&\x1b[31m\x00\n name', None, 0, 1)
    figure = tale.drawn()
    assert "<script" not in figure.svg
    assert '<script>"& [31m name' in texts(figure)
    assert "\x1b" not in repr(figure)


def test_on_a_terminal_it_has_eighty_columns():
    lines = repr(payment().drawn()).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == f"trace {TRACE}, 200 ms"
    assert lines[1] == "POST /v1/orders/<id>/payments                  200 ms #------------------------#"
    assert lines[4] == "    POST /charges                              100 ms   ##############"
    assert lines[5] == "        ✕ failed: no answer within 0.1 s <&>"


def test_what_the_instrumentation_sends_is_drawn():
    with receiving_traces() as receiver:
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{receiver.url}/v1/traces")))
        engine = create_engine("sqlite://")
        instrumentor = SQLAlchemyInstrumentor()
        instrumentor.instrument(engine=engine, tracer_provider=provider)
        with provider.get_tracer("test").start_as_current_span("GET /"), engine.connect() as connection:
            for number in range(5):
                connection.execute(text("SELECT name FROM sqlite_master WHERE rootpage = :page"), {"page": number})
        instrumentor.uninstrument()
        engine.dispose()
        provider.shutdown()
        figure = waterfall(Trace(receiver.spans))
    assert "5 × SELECT … FROM sqlite_master WHERE rootpage = ?" in texts(figure)
    assert texts(figure)[:2] == ["SQL", "inside"]


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_reads_on_a_telephone_and_on_a_desk(browser: Browser, tmp_path: Path, width, scheme):  # noqa: F811 - the fixture
    css = (material().root / "shopfloor/sphinx/theme/static/shopfloor.css").read_text()
    drawn = payment().drawn()
    head = (
        f'<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>{css}</style>'
    )
    page_file = tmp_path / "page.html"
    page_file.write_text(f'{head}<body class="sf-article" style="padding:16px">{drawn._repr_html_()}')
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.evaluate(
        """[...document.querySelectorAll('svg[role=img] text')].map(text => {
            const box = text.getBoundingClientRect();
            const svg = text.closest('svg[role=img]').getBoundingClientRect();
            return {text: text.firstChild.data, left: box.left - svg.left, right: svg.right - box.right,
                    size: parseFloat(getComputedStyle(text).fontSize), top: box.top, bottom: svg.bottom - box.bottom};
        })"""
    )
    assert min(box["size"] for box in boxes) >= 11
    assert all(box["left"] >= -1 and box["right"] >= -1 and box["bottom"] >= 0 for box in boxes), boxes
    ink = page.evaluate("getComputedStyle(document.querySelector('svg[role=img]')).fill")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, paper)]
    assert (light[0] < light[1]) == (scheme == "light")
    fills = page.evaluate(
        "[...document.querySelectorAll('svg[role=img] svg path')].map(path => getComputedStyle(path).fill)"
    )
    assert len(set(fills)) >= 4  # each sort its own, and none lost
    assert page.evaluate("document.querySelector('svg[role=img] svg path').getBoundingClientRect().height") == 8
    page.close()
