"""Checks of `observability/tracing`.

They ask over HTTP with a trace of their own, and look at the spans that arrive at the collector and at the headers that
arrive at the providers. None of them looks at the file: spans made by hand are as good as those of a library, and the
names of attributes may be today's or those of before 2023. All is asked first, since spans come some time after their
request; then the checks look at what came. The first check that fails is what the learner reads.
"""

import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, text

from shopfloor.checks.judge import StartShop
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.services.fault_plan import Plan as FaultPlan
from shopfloor.services.providers import Provider, Received
from shopfloor.traces import Span, TraceReceiver

PATIENCE = 1.5  # seconds for spans to come, or a request to end: some thirty times what they take
SLOW_SECONDS = 0.3
SPAN_LIMIT, REQUESTS = 40, 20
PASSWORD, TOKEN = "letmein-4711", "bearer-0815"
TRACESTATE = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"

# By today's names, and by those of before the conventions were stable.
METHOD = ("http.request.method", "http.method")
STATUS = ("http.response.status_code", "http.status_code")
ROUTE = ("http.route",)
STATEMENT = ("db.query.text", "db.statement")
SYSTEM = ("db.system.name", "db.system")


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    """Every trace is to be sent, unless a check says otherwise; and attempts follow one another at once."""
    return {"TRACE_RATIO": "1", "TRACE_SLOW_SECONDS": "30", "RETRY_WAIT_SECONDS": "0.001"}


# --- What is asked, once for all checks -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Caller:
    """The trace context that a request comes with."""

    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))

    def headers(self, flags: str = "01", version: str = "00", more: str = "") -> dict[str, str]:
        """As W3C Trace Context has them."""
        traceparent = f"{version}-{self.trace_id}-{self.span_id}-{flags}{more}"
        return {"traceparent": traceparent, "tracestate": TRACESTATE}


@dataclass(frozen=True)
class Asked:
    """A request, what was answered, and how to find its spans.

    Attributes:
        path: that no other request has.
        caller: the trace it came with; none if that made no sense, or there was none.
        headers: that it came with.
        received: what the provider received for it.
    """

    answer: Answer
    path: str
    caller: Caller | None = None
    headers: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)

    @property
    def did(self) -> str:
        """The request in a line."""
        return self.answer.did


def ask(shop: Shop, method: str, address: str, *, json: Any = None, **headers: str) -> Asked:
    """Ask as part of a trace of one's own, which is sampled."""
    caller = Caller()
    given = caller.headers() | {name.replace("_", "-"): value for name, value in headers.items()}
    answer = shop.ask(Request(method, address, json=json, headers=given))
    return Asked(answer, address.partition("?")[0], caller, given)


class Spans:
    """Spans that came."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.all = list(spans)
        self._by_id = {(span.trace_id, span.span_id): span for span in spans}

    def server(self, asked: Asked) -> Span | None:
        """The span of a request, found by its path or, if nothing else tells it, by its trace."""
        servers = [span for span in self.all if span.kind == "server"]
        own = [span for span in servers if asked.caller and span.trace_id == asked.caller.trace_id]
        told = [span for span in servers if asked.path in " ".join(map(str, (span.name, *span.attributes.values())))]
        return next(iter([*(span for span in told if span in own), *told, *own]), None)

    def below(self, top: Span) -> list[Span]:
        """All that was done for it."""
        return [span for span in self.all if span.trace_id == top.trace_id and self._is_below(span, top)]

    def same_trace(self, top: Span) -> list[Span]:
        """All of its trace."""
        return [span for span in self.all if span.trace_id == top.trace_id]

    def _is_below(self, span: Span | None, top: Span) -> bool:
        seen = 0
        while span is not None and seen < len(self.all):
            if span.parent_id == top.span_id:
                return True
            span, seen = self._by_id.get((span.trace_id, span.parent_id)), seen + 1
        return False


ORDERS = """
SELECT id, public_id::text, status FROM orders
WHERE total_amount > 0 AND EXISTS (SELECT FROM order_items WHERE order_id = orders.id) ORDER BY id LIMIT 4
"""
RESTATUS = text("UPDATE orders SET status = :status WHERE id = :id")
WAITING = """
SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""

Invalid = Callable[[Caller], dict[str, str]]


def traceparent(form: str) -> Invalid:
    """A header that is made of a caller's ids."""
    return lambda caller: {"traceparent": form.format(trace=caller.trace_id, span=caller.span_id)}


INVALID: dict[str, Invalid] = {
    "too short": traceparent("00-{trace:.30}-{span}-01"),
    "a trace id of zeros": traceparent(f"00-{'0' * 32}-{{span}}-01"),
    "a parent id of zeros": traceparent(f"00-{{trace}}-{'0' * 16}-01"),
    "version ff": traceparent("ff-{trace}-{span}-01"),
    "in capitals": lambda caller: {"traceparent": f"00-{caller.trace_id.upper()[:-2]}AF-{caller.span_id}-01"},
    "not hexadecimal": traceparent("00-{trace:.30}zz-{span}-01"),
    "too long for its version": traceparent("00-{trace}-{span}-01-more"),
    "twice in one": traceparent("00-{trace}-{span}-01,00-{trace}-{span}-01"),
    "without flags": traceparent("00-{trace}-{span}"),
    "no such thing at all": lambda _: {"traceparent": "yes, please"},
}


@dataclass(frozen=True)
class Scene:
    """What was asked of the shop, and the spans of it."""

    page: Asked
    detail: Asked
    product: Asked
    quotes: Asked
    payment: Asked
    missing: Asked
    nowhere: Asked
    broken: Asked
    secret_name: str
    future: Asked
    invalid: dict[str, Asked]
    spans: Spans


@pytest.fixture(scope="module")
def orders(database: Connection) -> Iterator[list[str]]:
    """Orders that can be paid; put back afterwards."""
    rows = database.execute(text(ORDERS)).all()
    last = database.scalar(text("SELECT max(id) FROM payments"))
    database.execute(RESTATUS, [{"id": row.id, "status": "pending"} for row in rows])
    try:
        yield [row.public_id for row in rows]
    finally:
        database.execute(text("DELETE FROM payments WHERE id > :last"), {"last": last})
        database.execute(RESTATUS, [{"id": row.id, "status": row.status} for row in rows])


@pytest.fixture(scope="module")
def scene(
    start: StartShop,
    providers: dict[str, Provider],
    traces: TraceReceiver,
    database: Connection,
    orders: list[str],
) -> Scene:
    """A shop that is asked for everything once. The address of its payment provider has a password in it."""
    payments, delivery = providers["payments"], providers["delivery"]
    with start(PAYMENTS_URL=payments.url.replace("//", f"//shop:{PASSWORD}@")) as shop:
        traces.clear()
        product = str(database.scalar(text("SELECT public_id::text FROM products ORDER BY id LIMIT 1")))
        other = str(database.scalar(text("SELECT public_id::text FROM products ORDER BY id DESC LIMIT 1")))
        page = ask(shop, "GET", "/v1/orders?limit=5&offset=17")
        detail = ask(shop, "GET", f"/v1/orders/{orders[0]}", Authorization=f"Bearer {TOKEN}")
        shown = ask(shop, "GET", f"/v1/products/{product}")
        delivery.plan = FaultPlan(script=("slow 0.05", "slow 0.05"))
        quotes = with_received(ask(shop, "GET", f"/v1/orders/{orders[1]}/delivery-quotes"), delivery)
        payments.plan = FaultPlan(script=("error 503", "reset", "ok"))
        payment = with_received(ask(shop, "POST", f"/v1/orders/{orders[2]}/payments"), payments)
        missing = ask(shop, "GET", f"/v1/orders/{uuid4()}")
        nowhere = ask(shop, "GET", f"/v1/nothing/{uuid4()}")
        name = f"Name {uuid4()}"
        broken = break_off(shop, database, other, name)
        future = ask_with(shop, Caller(), lambda caller: caller.headers(version="cc", more="-what-the-future-brings"))
        invalid = {why: ask_with(shop, Caller(), make) for why, make in INVALID.items()}
        shop.get("/livez", whose="nobody")
        last = ask(shop, "GET", f"/v1/products/{uuid4()}")
        every = [page, detail, shown, quotes, payment, missing, nowhere, broken, future, *invalid.values(), last]
        spans = await_spans(traces, every)
    return Scene(page, detail, shown, quotes, payment, missing, nowhere, broken, name, future, invalid, spans)


def ask_with(shop: Shop, caller: Caller, make: Invalid) -> Asked:
    """Ask for a product that there is not, with headers made of a caller's ids."""
    headers = make(caller)
    path = f"/v1/products/{uuid4()}"
    return Asked(shop.ask(Request("GET", path, headers=headers)), path, caller, headers)


def with_received(asked: Asked, provider: Provider) -> Asked:
    """With what the provider received, which is then as it was."""
    received = provider.received()
    provider.plan = FaultPlan()
    provider.forget()
    return Asked(asked.answer, asked.path, asked.caller, asked.headers, received)


def break_off(shop: Shop, database: Connection, product: str, name: str) -> Asked:
    """Change a product's name, and have the database end the session in the middle of the UPDATE."""
    engine = database.engine.execution_options(isolation_level="READ COMMITTED")
    with engine.connect() as holder, ThreadPoolExecutor(1) as threads:
        holder.execute(text("SELECT FROM products WHERE public_id::text = :product FOR UPDATE"), {"product": product})
        asked = threads.submit(ask, shop, "PATCH", f"/v1/products/{product}", json={"name": name})
        deadline = time.monotonic() + PATIENCE
        while (pid := database.scalar(text(WAITING))) is None and not asked.done() and time.monotonic() < deadline:
            time.sleep(0.002)  # until the UPDATE waits for the lock
        database.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        return asked.result()


def await_spans(traces: TraceReceiver, every: Sequence[Asked]) -> Spans:
    """The spans, as soon as each request has its own, or after a while whatever there is."""

    def all_there(spans: list[Span]) -> bool:
        found = Spans(spans)
        return all(found.server(asked) for asked in reversed(every))

    try:
        return Spans(traces.wait_for(all_there, PATIENCE))
    except TimeoutError:
        return Spans(traces.spans)


# --- The checks -------------------------------------------------------------------------------------------------------


def test_each_request_has_a_span(scene: Scene) -> None:
    """A request is a span: kind server, named by method and route, with what HTTP says of it."""
    if not scene.spans.all:
        differs(
            did=scene.page.did,
            got="no span at the collector",
            expected="a span for the request, at OTEL_EXPORTER_OTLP_ENDPOINT",
            matters="Without spans nobody can tell where a slow request spent its time.",
        )
    for asked, template in ((scene.page, r"/v1/orders"), (scene.detail, r"/v1/orders/[<{:][^/]+")):
        span = server(scene, asked)
        path = asked.path.rpartition("/")[2]
        if path in span.name and asked is scene.detail:
            wrong(
                "raw_path_in_the_name",
                did=asked.did,
                got=f"a span named {span.name!r}",
                expected="the route's template, such as 'GET /v1/orders/<uuid:public_id>', which all orders share",
            )
        if not re.fullmatch(f"GET {template}", span.name):
            differs(
                did=asked.did,
                got=f"a span named {span.name!r}",
                expected="the method and the route's template, such as 'GET /v1/orders/<uuid:public_id>'",
                matters="Traces are counted and searched by the names of their spans.",
            )
        told(asked, span, METHOD, "GET")
        told(asked, span, STATUS, 200)
        if not re.fullmatch(template, str(value_of(span, ROUTE))):
            told(asked, span, ROUTE, "the route's template")
    span = server(scene, scene.nowhere)
    if scene.nowhere.path in span.name:
        wrong(
            "raw_path_in_the_name",
            did=f"{scene.nowhere.did}, which no route has",
            got=f"a span named {span.name!r}",
            expected="'GET' alone: whoever scans the shop for holes would make a name with each attempt",
        )


def test_the_callers_trace_goes_on(scene: Scene) -> None:
    """A request that comes with a traceparent belongs to that trace, below the span that sent it."""
    for asked in (scene.detail, scene.future):
        span, caller = server(scene, asked), asked.caller
        assert caller is not None
        did = f"{asked.did} with traceparent {asked.headers['traceparent']}"
        if span.trace_id != caller.trace_id and asked is scene.detail:
            wrong(
                "always_a_new_trace",
                did=did,
                got=f"trace {span.trace_id}",
                expected=f"trace {caller.trace_id}, below span {caller.span_id}",
            )
        if (span.trace_id, span.parent_id) != (caller.trace_id, caller.span_id):
            differs(
                did=did,
                got=f"trace {span.trace_id}, below span {span.parent_id or 'none'}",
                expected=f"trace {caller.trace_id}, below span {caller.span_id}",
                matters="The caller's half of the trace and the shop's would not be found together. Of a version that "
                "is not known yet, W3C Trace Context says to read what this one has.",
            )


def test_what_makes_no_sense_begins_a_new_trace(scene: Scene) -> None:
    """A traceparent that makes no sense is as good as none: the request is answered, in a trace of its own."""
    for why, asked in scene.invalid.items():
        did = f"{asked.did} with traceparent {asked.headers['traceparent']} ({why})"
        if asked.answer.status != 404:
            wrong("trusts_the_traceparent", did=did, got=asked.answer.status, expected="404, as without the header")
        span = scene.spans.server(asked)
        if span is None:
            wrong("trusts_the_traceparent", did=did, got="no span", expected="a span without a parent, in a new trace")
        assert asked.caller is not None
        if span.parent_id or span.trace_id == asked.caller.trace_id or not int(span.trace_id, 16):
            wrong(
                "trusts_the_traceparent",
                did=did,
                got=f"trace {span.trace_id}, below span {span.parent_id or 'none'}",
                expected="a new trace, without a parent",
            )


def test_each_statement_has_a_span(scene: Scene) -> None:
    """Each statement is a client span below the request's, with its text."""
    for asked in (scene.page, scene.product, scene.missing):
        span = server(scene, asked)
        below = [each for each in scene.spans.below(span) if is_sql(each)]
        if kinds := {each.kind for each in below} - {"client"}:
            differs(
                did=asked.did,
                got=f"spans of statements of kind {', '.join(sorted(kinds))}",
                expected="client",
                matters="By their kind tools tell what waited for somebody else from what was the shop's own work.",
            )
        if len(below) != len(asked.answer.statements):
            elsewhere = len([each for each in scene.spans.same_trace(span) if is_sql(each)]) - len(below)
            differs(
                did=asked.did,
                got=f"{len(below)} spans of statements below the request's"
                + (f", and {elsewhere} elsewhere in its trace" if elsewhere else ""),
                expected=f"{len(asked.answer.statements)}, one for each statement that reached PostgreSQL",
                matters="An N+1 shows in a trace as what it is, if each of its statements does.",
            )


def test_commands_to_the_cache_have_spans(scene: Scene) -> None:
    """What is asked of Valkey shows below the request."""
    span = server(scene, scene.product)
    below = [each for each in scene.spans.below(span) if is_cache(each, scene.product)]
    if not below:
        asked = ", ".join(dict.fromkeys(command.name for command in scene.product.answer.commands))
        differs(
            did=f"{scene.product.did}, for which Valkey received {asked}",
            got="no span of a command to Valkey below the request's",
            expected="a client span for each command",
            matters="A cache that answers late looks like slow code, if it does not show.",
        )


def test_calls_have_spans_across_threads(scene: Scene) -> None:
    """A call to a provider is a client span below the request's, also in another thread."""
    asked, span = scene.quotes, server(scene, scene.quotes)
    below = [each for each in scene.spans.below(span) if is_call(each)]
    if len(below) == len(asked.received) == 2:
        if len({each.parent_id for each in below}) == 1:
            return
        differs(
            did=asked.did,
            got="one call below the other",
            expected="two that stand beside one another, below the same span",
            matters="Whoever reads the trace believes that the one call was made for the other.",
        )
    _recognise_lost_context(scene)
    differs(
        did=f"{asked.did}, for which the delivery company received {len(asked.received)} requests",
        got=f"{len(below)} client spans of calls below the request's",
        expected="a client span for each request that leaves the shop",
        matters="Most of what a slow request waits for is outside.",
    )


def _recognise_lost_context(scene: Scene) -> None:
    """The calls are there, as roots of traces of their own."""
    began, ended = server(scene, scene.quotes).start, server(scene, scene.quotes).end
    roots = [span for span in scene.spans.all if is_call(span) and not span.parent_id and began <= span.start <= ended]
    if len(roots) == 2:
        wrong(
            "context_lost_across_threads",
            did=scene.quotes.did,
            got="two client spans without a parent, each in a trace of its own",
            expected="two client spans below the request's",
        )


def test_calls_carry_the_trace_on(scene: Scene) -> None:
    """A call carries the trace on: its id, the client span's id as parent, the flag, and the tracestate."""
    for asked in (scene.quotes, scene.payment):
        calls = {each.span_id for each in scene.spans.below(server(scene, asked)) if is_call(each)}
        for received in asked.received:
            _carries_on(asked, received, calls, server(scene, asked))


def _carries_on(asked: Asked, received: Received, calls: set[str], span: Span) -> None:
    assert asked.caller is not None
    header = received.headers.get("traceparent", "")
    did = f"{asked.did} with traceparent {asked.headers['traceparent']}; it called {received.method} {received.path}"
    expected = "the caller's trace id, the id of the client span of this call, and the caller's flag"
    match = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", header)
    if not match:
        differs(
            did=did,
            got=f"the call's traceparent was {header!r}" if header else "the call had no traceparent",
            expected=expected,
            matters="The trace ends here, and whatever the provider did for it is in a trace of its own.",
        )
    trace_id, parent, flags = match.groups()
    if header == asked.headers["traceparent"]:
        wrong("passes_the_callers_header_on", did=did, got="the very same traceparent", expected=expected)
    if parent == span.span_id:
        wrong("calls_under_the_requests_id", did=did, got=f"{header}: the span of the request", expected=expected)
    if trace_id != asked.caller.trace_id or (len(calls) == len(asked.received) and parent not in calls):
        differs(
            did=did,
            got=f"the call's traceparent was {header}",
            expected=expected,
            matters="What the provider did for this call would stand elsewhere in the trace, or in another.",
        )
    if not int(flags, 16) & 1:
        differs(
            did=did,
            got=f"flags {flags}",
            expected="the sampled flag, as the caller had set it",
            matters="The provider would not keep its part of a trace that everyone else keeps.",
        )
    state = [member.strip() for member in received.headers.get("tracestate", "").split(",")]
    if not set(TRACESTATE.split(",")) <= set(state):
        wrong(
            "loses_the_tracestate",
            did=f"{did}, and tracestate {TRACESTATE}",
            got=f"tracestate {received.headers.get('tracestate', '')!r}",
            expected="all members of the caller's, which others along the way have put there",
        )


def test_failures_show_where_they_happened(scene: Scene) -> None:
    """An attempt that failed is a failed client span, also when the next one succeeds."""
    asked, span = scene.payment, server(scene, scene.payment)
    calls = sorted((each for each in scene.spans.same_trace(span) if is_call(each)), key=lambda each: each.start)
    did = f"{asked.did}; the provider answered 503, then broke the connection off, then took the money"
    if len(calls) == 2 and len(asked.received) == 3 and [call.failed for call in calls] == [True, False]:
        wrong(
            "span_left_open",
            did=did,
            got="two client spans: none of the attempt that had no answer",
            expected="three client spans, of which the first two failed",
        )
    parents = {call.parent_id for call in calls}
    if len(parents) > 1:
        wrong(
            "span_left_open",
            did=did,
            got="an attempt below the one before",
            expected="three client spans beside one another, of which the first two failed",
        )
    if [call.failed for call in calls] != [True, True, False]:
        states = ", ".join("failed" if call.failed else call.status for call in calls)
        differs(
            did=did,
            got=f"{len(calls)} client spans: {states}",
            expected="three: failed, failed, and one that did not",
            matters="A dependency that fails now and then is seen only where its failures are.",
        )
    if span.failed:
        differs(
            did=f"{did}, and the shop answered {asked.answer.status}",
            got="the span of the request failed",
            expected="no error: the customer has what she wanted",
            matters="Who is woken for a request that went well will not believe the next alarm.",
        )


def test_errors_of_the_shop_are_marked(scene: Scene) -> None:
    """An answer of 500 is an error, with the exception that caused it; 404 is none."""
    for asked in (scene.missing, scene.nowhere):
        if server(scene, asked).failed:
            wrong(
                "not_found_is_an_error",
                did=f"{asked.did}, answered with {asked.answer.status}",
                got="the span of the request has status error",
                expected="no error: the shop did right, and the caller asked for what there is not",
            )
    asked = scene.broken
    did = f"{asked.did}, whose session with the database broke off in the middle; answered with {asked.answer.status}"
    span = server(scene, asked)
    if not span.failed:
        differs(
            did=did,
            got=f"a span with status {span.status}",
            expected="status error",
            matters="Failed requests cannot be found among the others.",
        )
    trace = scene.spans.same_trace(span)
    if not any(event.attributes.get("exception.type") for each in trace for event in each.events):
        wrong(
            "error_without_its_exception",
            did=did,
            got="a span with status error, and no exception on any span of the trace",
            expected="an event with the exception's type, on the request's span or the statement's",
        )
    if not any(is_sql(each) and each.failed for each in trace):
        differs(
            did=did,
            got=f"{sum(map(is_sql, trace))} spans of statements, none of them failed",
            expected="the statement that broke off is marked as an error",
            matters="The trace says that something failed, and not what.",
        )


def test_no_secrets_in_spans(scene: Scene) -> None:
    """Spans hold no password, no token, and no values of statements."""
    _recognise_values(scene)
    for secret, what in ((PASSWORD, "the password in PAYMENTS_URL"), (TOKEN, "the caller's Authorization header")):
        for span in scene.spans.all:
            if place := where(span, secret):
                wrong(
                    "secrets_in_attributes",
                    did="requests with secrets along the way",
                    got=f"{what}, in {place} of span {span.name}",
                    expected="nothing that opens a door",
                )


def _recognise_values(scene: Scene) -> None:
    for span in scene.spans.all:
        place = where(span, scene.secret_name)
        if not place:
            continue
        did = f"{scene.broken.did} with a new name, which was lost in the middle of the UPDATE"
        expected = "the statement's text with its placeholders, and the kind of the exception"
        in_message = "event" in place or place == "the status"
        mistake = "values_in_the_exceptions_message" if in_message else "values_in_attributes"
        wrong(mistake, did=did, got=f"the new name, in {place} of span {span.name}", expected=expected)


def test_probes_leave_no_trace(scene: Scene) -> None:
    """A probe of /livez leaves no span."""
    for span in scene.spans.all:
        if where(span, "/livez") or "livez" in span.name:
            differs(
                did="GET /livez",
                got=f"a span named {span.name}",
                expected="none",
                matters="A probe every second from every side is most of what the collector would be paid for.",
            )


# --- Which are kept ---------------------------------------------------------------------------------------------------


@pytest.mark.beside
def test_the_slow_and_the_failed_are_kept(
    start: StartShop, traces: TraceReceiver, delivery: Provider, orders: list[str]
) -> None:
    """With TRACE_RATIO=0, what failed, was slow, or belongs to a sampled trace is sent, whole, and nothing else."""
    with start(TRACE_RATIO="0", TRACE_SLOW_SECONDS=str(SLOW_SECONDS)) as shop:
        traces.clear()
        delivery.plan = FaultPlan(script=("error 500", "error 500", f"slow {SLOW_SECONDS}", f"slow {SLOW_SECONDS}"))
        failed = plain(shop, f"/v1/orders/{orders[0]}/delivery-quotes")
        slow = plain(shop, f"/v1/orders/{orders[1]}/delivery-quotes")
        quick = [asked for asked in (timed(shop) for _ in range(3)) if asked]
        unsampled = Caller().headers(flags="00")
        quick_too = [asked for asked in (timed(shop, unsampled) for _ in range(2)) if asked]
        last = ask(shop, "GET", f"/v1/products/{uuid4()}")
        spans = await_spans(traces, [failed, slow, last])
    for asked, how in ((failed, "failed"), (slow, "was slow")):
        span = spans.server(asked)
        if span is None:
            wrong(
                "sampling_loses_the_failed",
                did=f"{asked.did}, which {how}, with TRACE_RATIO=0",
                got="nothing of it at the collector",
                expected="its trace: what is rare and wanted must not be left to chance",
            )
        kept, whole = len(spans.below(span)), 2 + len(asked.answer.statements)
        if kept < whole:
            wrong(
                "keeps_only_the_root",
                did=f"{asked.did}, which {how}, with TRACE_RATIO=0",
                got=f"the span of the request, and {kept} below it",
                expected=f"the whole trace, which is to tell why: {whole} below it, of its statements and two calls",
            )
        if how == "failed" and not any(each.failed for each in spans.same_trace(span)):
            differs(
                did=f"{asked.did}, which failed, with TRACE_RATIO=0",
                got="its trace, in which no span has status error",
                expected="status error, as in any other trace",
                matters="It was kept because it failed, and whoever looks for failed requests does not find it.",
            )
        if how == "was slow" and not SLOW_SECONDS <= span.duration < 60:
            differs(
                did=f"{asked.did}, which took {SLOW_SECONDS} s, with TRACE_RATIO=0",
                got=f"a span of {span.duration:,.3f} s",
                expected="as long as the request took",
                matters="It was kept because it was slow, and whoever looks for slow requests does not find it.",
            )
    if spans.server(last) is None:
        differs(
            did=f"{last.did} with a traceparent whose sampled flag is set, and TRACE_RATIO=0",
            got="nothing of it at the collector",
            expected="its trace",
            matters="The caller keeps its part, and finds nothing below it.",
        )
    for asked in (*quick, *quick_too):
        # On a busy machine a command to the cache may fail: what has a failed span is kept by right.
        if (span := spans.server(asked)) and not any(each.failed for each in spans.same_trace(span)):
            wrong(
                "keeps_everything",
                did=f"{asked.did}, which was quick and went well, with TRACE_RATIO=0",
                got="its spans at the collector",
                expected="nothing of it",
            )


def plain(shop: Shop, path: str) -> Asked:
    """Ask without any trace."""
    return Asked(shop.get(path), path)


def timed(shop: Shop, headers: dict[str, str] | None = None) -> Asked | None:
    """Ask for what there is not, which takes no time; None if it took some all the same."""
    path, began = f"/v1/products/{uuid4()}", time.monotonic()
    answer = shop.ask(Request("GET", path, headers=headers or {}))
    return Asked(answer, path) if time.monotonic() - began < SLOW_SECONDS else None


def test_what_was_sent_makes_room(start: StartShop, traces: TraceReceiver, orders: list[str]) -> None:
    """TRACE_SPAN_LIMIT is for what is kept at once, however much was sent before."""
    sent = 0
    with start(TRACE_SPAN_LIMIT=str(SPAN_LIMIT)) as shop:
        while sent <= SPAN_LIMIT:
            traces.clear()
            asked = ask(shop, "GET", f"/v1/orders/{orders[0]}")
            spans = await_spans(traces, [asked])
            span = spans.server(asked)
            if span is None:
                wrong(
                    "makes_no_room",
                    did=f"requests, with TRACE_SPAN_LIMIT={SPAN_LIMIT}, each after the last one's spans had come",
                    got=f"after {sent} spans nothing comes any more",
                    expected="the spans of each: what was sent is not kept any longer",
                )
            sent += len(spans.same_trace(span))


# --- A collector that is no help --------------------------------------------------------------------------------------


@pytest.mark.beside
def test_a_silent_collector_costs_nothing(start: StartShop, orders: list[str]) -> None:
    """A collector that never answers neither slows a request nor fills the memory: spans are dropped, and counted."""
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as threads:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"  # connections stand, and nobody answers
        with start(OTEL_EXPORTER_OTLP_ENDPOINT=url, TRACE_SPAN_LIMIT=str(SPAN_LIMIT)) as shop:
            asked = threads.submit(lambda: [shop.get(f"/v1/orders/{orders[0]}") for _ in range(REQUESTS)])
            answers = _in_time(asked)
            told = shop.get("/metrics").body
    dropped = re.search(r"^trace_spans_dropped_total(?:\{.*\})? (\S+)$", str(told), re.MULTILINE)
    did = f"{REQUESTS} requests of several spans each, with TRACE_SPAN_LIMIT={SPAN_LIMIT} and a silent collector"
    if dropped is None:
        differs(
            did=did,
            got="no trace_spans_dropped_total at /metrics",
            expected="how many spans were dropped",
            matters="Who does not see that traces are missing takes those that are there for all.",
        )
    if float(dropped[1]) == 0:
        wrong("queue_without_end", did=did, got="no span dropped", expected="what is more than the limit is dropped")
    made = sum(1 + len(answer.statements) for answer in answers)  # at least
    if float(dropped[1]) < (made - SPAN_LIMIT) / 2:  # some may be on their way
        differs(
            did=did,
            got=f"{dropped[1]} of {made} or more dropped, of which {SPAN_LIMIT} can have been kept",
            expected="each span that was dropped is counted, and not each time that some were",
            matters="The count tells how much of the picture is missing.",
        )


def _in_time(asked: Future[list[Answer]]) -> list[Answer]:
    wait([asked], timeout=2 * PATIENCE)
    if not asked.done():
        wrong(
            "sends_while_the_caller_waits",
            did="requests, with a collector that takes connections and never answers",
            got=f"not answered after {2 * PATIENCE:.0f} s",
            expected="answered as ever: traces are not worth a customer",
        )
    return asked.result()


# --- Words ------------------------------------------------------------------------------------------------------------


def server(scene: Scene, asked: Asked) -> Span:
    """The span of a request.

    Raises:
        NotRight: there is none.
    """
    span = scene.spans.server(asked)
    if span is None:
        differs(
            did=f"{asked.did}, answered with {asked.answer.status}",
            got="no span of kind server that tells its path",
            expected="one, with the path in url.path",
            matters="The request cannot be found among the traces.",
        )
    return span


def told(asked: Asked, span: Span, names: tuple[str, ...], expected: object) -> None:
    """Go on if an attribute says what it should, by its name of today or of before."""
    if value_of(span, names) != expected:
        differs(
            did=asked.did,
            got=f"{names[0]} is {value_of(span, names)!r}",
            expected=repr(expected),
            matters="Tools find and count requests by the names that the semantic conventions give to such facts.",
        )


def value_of(span: Span, names: tuple[str, ...]) -> Any:
    """An attribute by any of its names."""
    return next((span.attributes[name] for name in names if name in span.attributes), None)


def is_sql(span: Span) -> bool:
    """Whether it is a statement's."""
    return "postgres" in str(value_of(span, SYSTEM)) and value_of(span, STATEMENT) is not None


def is_cache(span: Span, asked: Asked) -> bool:
    """Whether it is a command's."""
    commands = {command.name for command in asked.answer.commands}
    of_cache = str(value_of(span, SYSTEM)) in {"redis", "valkey"}
    return of_cache or bool(span.name and span.name.split()[0].upper() in commands)


def is_call(span: Span) -> bool:
    """Whether it is of a request over HTTP that left the shop."""
    return span.kind == "client" and value_of(span, SYSTEM) is None and value_of(span, METHOD) is not None


def where(span: Span, secret: str) -> str:
    """Where in a span something stands; empty if nowhere."""
    if secret in span.name:
        return "the name"
    if secret in span.status_message:
        return "the status"
    for name, value in span.attributes.items():
        if secret in str(value):
            return f"attribute {name}"
    for event in span.events:
        for name, value in event.attributes.items():
            if secret in str(value):
                return f"{name} of event {event.name}"
    return ""
