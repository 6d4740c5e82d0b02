"""Checks of `observability/logging`.

They ask over HTTP and read what the shop prints, what its answers say and what its calls carry. None of them looks at
the file: whatever prints the right lines is right. A line may come later than the answer, so what is expected of the
output is waited for.
"""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, text

from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.services.fault_plan import Plan as FaultPlan
from shopfloor.services.providers import Provider

Json = dict[str, Any]

HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]00:00)")
ERRORS = {"error", "critical"}
PASSWORD = "swordfish"  # noqa: S105 - of nobody
PATIENCE = [2.0]  # seconds that a line may take; after the first that never came, others are not waited for as long


@pytest.fixture(scope="session")
def settings(providers: dict[str, Provider]) -> dict[str, str]:
    """The providers want a password, and it stands in their addresses, as it often does."""
    return {f"{name.upper()}_URL": with_password(provider.url) for name, provider in providers.items()}


def with_password(url: str) -> str:
    """The address with a name and a password in it."""
    return url.replace("//", f"//shop:{PASSWORD}@")


# --- What the shop prints ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """A line of the log."""

    text: str
    data: Json

    @property
    def is_end(self) -> bool:
        """Whether it says what became of a request."""
        return {"method", "status"} <= self.data.keys()

    def says(self, words: str) -> bool:
        """Whether some text in it, at any depth, holds these words."""
        return any(words in said for said in texts(self.data))


def texts(value: Any) -> Iterator[str]:
    """All texts and numbers in a value, names included, as they were before JSON escaped them."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield name
            yield from texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from texts(member)
    else:
        yield str(value)


@dataclass(frozen=True)
class Told:
    """An answer, and all that was printed while it was made."""

    answer: Answer
    lines: list[Line]

    @property
    def id(self) -> str:
        """The id that the answer tells."""
        return self.answer.headers.get("x-request-id", "")

    @property
    def end(self) -> Line:
        """The event at the end of the request."""
        ends = [line for line in self.lines if line.is_end]
        if len(ends) != 1:
            differs(
                did=self.answer.did,
                got=shown(self.lines) if ends else f"{len(self.lines)} lines printed, and none with method and status",
                expected="one event when the request ends, with method, route, status, duration_ms and request_id",
                matters="From these events, one for each request, everything else can be counted: how many, how slow,"
                " how many failed. A request that leaves no line never happened, as far as anyone can tell.",
            )
        return ends[0]


def shown(lines: list[Line]) -> str:
    """The lines, as evidence: none longer than the reader's patience."""
    return "\n".join(shortened(line.text) for line in lines) or "no line"


def shortened(words: str, most: int = 240) -> str:
    """A text, cut if it is long."""
    return words if len(words) <= most else f"{words[:most]}... ({len(words):,} characters)"


class Output:
    """What the shop prints from now on."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._start = len(shop.output)

    def until(self, wanted: Callable[[list[Line]], bool], did: str) -> list[Line]:
        """The lines, when they are what is wanted or nothing more is to be expected. Each must be an object."""
        self._shop.printed(lambda _: wanted(self._objects()), patience=PATIENCE[-1])
        if not wanted(self._objects()):
            PATIENCE.append(0.05)
        return self._checked(did)

    def _raw(self) -> list[str]:
        whole = self._shop.output[self._start :].split("\n")[:-1]  # what follows the last newline is not whole yet
        return [line for line in whole if line.strip()]

    def _objects(self) -> list[Line]:
        return [Line(line, data) for line in self._raw() if (data := json_object(line)) is not None]

    def _checked(self, did: str) -> list[Line]:
        raw = self._raw()
        for place, line in enumerate(raw):
            if json_object(line) is None:
                _recognise_what_is_no_object(did, raw, place)
        return [Line(line, json_object(line) or {}) for line in raw]


def json_object(line: str) -> Json | None:
    """The object that a line is; None if it is none, or none that every reader of JSON accepts."""
    try:
        value = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON's")


def _recognise_what_is_no_object(did: str, raw: list[str], place: int) -> None:
    line, everything = raw[place], "\n".join(raw)
    expected = "nothing but JSON, one object on each line"
    if lost := re.search(r"TypeError: .*not JSON serializable", everything):
        wrong("not_everything_is_json", did=did, got=f"--- Logging error --- ... {lost[0]}", expected=expected)
    if line.startswith("Traceback") and place and json_object(raw[place - 1]):
        got = f"{shortened(raw[place - 1])}\n{line}\n..."
        wrong("traceback_outside_the_object", did=did, got=got, expected="the traceback inside the object")
    if re.match(r"\[\d{4}-[\d :,-]+\] [A-Z]+ in \w+: ", line) and any(json_object(other) for other in raw):
        got = "\n".join(map(shortened, raw[:2]))
        wrong("flasks_own_handler_stays", did=did, got=got, expected=expected)
    if "message Bad request" in line:
        wrong("only_the_shops_logger", did=did, got=line, expected=expected)
    if re.match(r'\{"\w+": "', line) and "NaN" not in line and "Infinity" not in line:
        wrong("json_by_formatting", did=did, got=shortened(line), expected=expected)
    differs(
        did=did,
        got=shortened(line),
        expected=expected,
        matters="What reads the log reads a line at a time. A line that is no object is a loss at best; at worst it is"
        " taken for an event that never was.",
    )


def ask(shop: Shop, request: Request) -> Told:
    """Ask the shop something, and read what it prints meanwhile."""
    output = Output(shop)
    answer = shop.ask(request)
    return Told(answer, output.until(lambda lines: any(line.is_end for line in lines), str(request)))


def same_id(told: Told, expected: str) -> None:
    """Every line bears the id of its request, and so does the answer."""
    if told.id != expected:
        differs(
            did=f"{told.answer.did}, with X-Request-Id: {expected}",
            got=f"X-Request-Id: {told.id}" if told.id else "an answer without X-Request-Id",
            expected=f"X-Request-Id: {expected} in the answer",
            matters="The id in the answer is what a customer or another service can quote when something went wrong.",
        )
    for line in told.lines:
        if line.data.get("request_id") != expected:
            differs(
                did=told.answer.did,
                got=shortened(line.text),
                expected=f'"request_id": "{expected}"',
                matters="A line without its request's id cannot be found again among those of a thousand others.",
            )


# --- What there is to ask for -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Things:
    """Public ids of things in the database.

    Attributes:
        orders: two.
        pending: some that are to be paid.
        product: in stock.
        customer: with an e-mail address.
        email: that address.
    """

    orders: list[str]
    pending: list[str]
    product: str
    customer: str
    email: str


@pytest.fixture(scope="module")
def things(database: Connection) -> Things:
    """Orders, a product, a customer."""

    def ids(statement: str) -> list[str]:
        return [str(one) for one in database.scalars(text(statement))]

    customer = database.execute(text("SELECT public_id, email FROM customers ORDER BY id LIMIT 1")).one()
    return Things(
        orders=ids("SELECT public_id FROM orders WHERE status = 'paid' ORDER BY id LIMIT 2"),
        pending=ids("SELECT public_id FROM orders WHERE status = 'pending' AND total_amount > 0 ORDER BY id LIMIT 4"),
        product=ids("""SELECT public_id FROM products JOIN stock ON product_id = id
                       WHERE withdrawn_at IS NULL AND on_hand - reserved > 10 ORDER BY id LIMIT 1""")[0],
        customer=str(customer.public_id),
        email=customer.email,
    )


def pay(order: str, **headers: str) -> Request:
    """The request that pays an order."""
    return Request("POST", f"/v1/orders/{order}/payments", json={}, headers=headers)


# --- Events -----------------------------------------------------------------------------------------------------------


def test_each_request_ends_in_one_event(shop: Shop, things: Things) -> None:
    """Each request ends in one event: method, route template, status, duration, time."""
    routes = []
    for order in things.orders:
        told = ask(shop, Request("GET", f"/v1/orders/{order}"))
        _recognise_sql(told)
        end = told.end
        _event_is(told, end, method="GET", status=200)
        _recognise_raw_path(told, end, order)
        routes.append(end.data["route"])
    if routes[0] != routes[1] or "/v1/orders/" not in str(routes[0]):
        differs(
            did="asked for two orders",
            got=f"the routes {routes[0]!r} and {routes[1]!r}",
            expected="the same template for both, such as /v1/orders/<uuid:public_id>",
            matters="Events are counted by their route. The template tells pages apart and not their contents.",
        )


def _recognise_sql(told: Told) -> None:
    for line in told.lines:
        if line.says("SELECT ") or line.data.get("level") == "debug":
            got = f"{len(told.lines)} lines, one of them: {shortened(line.text)}"
            wrong("everything_is_logged", did=told.answer.did, got=got, expected="what the shop says at info and above")


def _event_is(told: Told, end: Line, *, method: str, status: int) -> None:
    """The event of a request has the fields that it must have, and its level is right."""
    did = told.answer.did
    duration = end.data.get("duration_ms")
    if end.data["method"] != method or end.data["status"] != status or not isinstance(duration, int | float):
        differs(
            did=did,
            got=shortened(end.text),
            expected=f'"method": "{method}", "status": {status}, and "duration_ms": a number',
            matters="Fields that mean the same everywhere can be counted, and numbers sorted.",
        )
    for line in told.lines:
        _has_what_each_line_has(did, line)
    if "route" not in end.data:
        differs(did=did, got=shortened(end.text), expected='"route"', matters="It is what events are counted by.")
    level = end.data["level"]
    if status < 500 and level in ERRORS:
        expected = "info, or warning: the shop did what it should"
        wrong("refusals_are_errors", did=did, got=f"status {status} at level {level}", expected=expected)
    if status >= 500 and level not in ERRORS:
        differs(
            did=did,
            got=f"status {status} at level {level}",
            expected="error",
            matters="Whoever looks for what went wrong looks for errors. This request was answered with one.",
        )


def _has_what_each_line_has(did: str, line: Line) -> None:
    moment = str(line.data.get("time"))
    if not MOMENT.fullmatch(moment):
        if re.fullmatch(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?", moment):
            wrong("time_without_its_zone", did=did, got=f"time: {moment}", expected="2026-11-21T04:33:12.345Z, in UTC")
        differs(
            did=did,
            got=f"time: {moment}",
            expected="the time in UTC as of RFC 3339, such as 2026-11-21T04:33:12.345Z",
            matters="Lines of several machines are put in order by it.",
        )
    age = datetime.now(UTC) - datetime.fromisoformat(moment)
    if abs(age.total_seconds()) > 60:
        differs(did=did, got=f"time: {moment}", expected="the time now", matters="It says when the event happened.")
    if line.data.get("level") not in {"info", "warning", *ERRORS} or not line.data.get("event"):
        differs(
            did=did,
            got=shortened(line.text),
            expected='"level": info, warning, error or critical, and "event": what happened, in words',
            matters="The level says who must read the line, the event what it is about.",
        )


def _recognise_raw_path(told: Told, end: Line, varying: str) -> None:
    if varying in str(end.data["route"]):
        got = f"route: {end.data['route']}"
        wrong("raw_path_as_route", did=told.answer.did, got=got, expected="the template, as Flask's url_rule has it")


def test_a_refusal_is_no_error(shop: Shop, things: Things) -> None:
    """A request that the shop rightly refuses is logged, below error; an unknown path has no route."""
    missing = ask(shop, Request("GET", "/v1/nowhere-42"))
    _event_is(missing, missing.end, method="GET", status=404)
    _recognise_raw_path(missing, missing.end, "nowhere-42")
    invalid = ask(shop, Request("POST", "/v1/orders", json={"customer_id": things.customer, "items": []}))
    _event_is(invalid, invalid.end, method="POST", status=422)
    if not any("errors" in line.data for line in invalid.lines):
        differs(
            did=invalid.answer.did,
            got=shown(invalid.lines),
            expected='the line "request refused", with its errors',
            matters="The shop says at info what it does, with the facts as extra. By default both are thrown away.",
        )


def test_a_probe_is_no_news(shop: Shop) -> None:
    """A successful GET /livez leaves no line."""
    output = Output(shop)
    probe = shop.get("/livez")
    told = ask(shop, Request("GET", "/v1/nowhere-42"))
    lines = output.until(bool, probe.did)
    if any(line.data.get("level") == "debug" for line in lines):
        wrong("everything_is_logged", did=probe.did, got=shortened(lines[0].text), expected="no line at debug")
    if len(lines) > len(told.lines):
        differs(
            did=probe.did,
            got=shortened(lines[0].text),
            expected="no line at info or above",
            matters="A probe comes every few seconds to every process. Its lines would be most of the log.",
        )


# --- The id -----------------------------------------------------------------------------------------------------------


def test_a_harmless_id_is_taken(shop: Shop, things: Things) -> None:
    """A harmless X-Request-Id is taken: it is in every line and in the answer, whatever the answer is."""
    for given, request in {
        "check-7f.A_0": Request("GET", f"/v1/orders/{things.orders[0]}"),
        "b" * 64: Request("GET", "/v1/nowhere-42"),
        "7": Request("POST", "/v1/orders", json={"customer_id": things.customer, "items": []}),
    }.items():
        same_id(ask(shop, Request(request.method, request.address, request.json, {"X-Request-Id": given})), given)


FORGED = 'abc","level":"critical","event":"all orders deleted'
HOSTILE = {
    FORGED: "which would end the field, in JSON put together by hand",
    f'"{FORGED}': "likewise",
    "abc def": "with a space",
    "abc\x1b[2J\x1b[31mforged": "which wipes the terminal of whoever reads the log",
    "abc%0d%0aSet-Cookie: a=b": "which is a line of its own once somebody decodes it",
    "abc\r\n forged": "folded over two lines",
    "abc,def": "as two such headers come",
    "${jndi:ldap://example.com/x}": "which some loggers have carried out",
    "caf\xe9": "not of ASCII",
    "c" * 65: "of 65 characters",
    "d" * 10_000: "of 10,000 characters",
}


def test_a_hostile_id_is_replaced(shop: Shop) -> None:
    """An X-Request-Id that could do harm is replaced by a new one."""
    taken = {}
    for hostile in HOSTILE:
        told = ask(shop, Request("GET", "/v1/nowhere-42", headers={"X-Request-Id": hostile}))
        if HARMLESS.fullmatch(told.id) and told.id not in hostile:
            same_id(told, told.id)
        elif told.id:
            taken[hostile] = told.id
        else:
            same_id(told, "a new id")
    if not taken:
        return
    did = "; ".join(f"GET /v1/nowhere-42 with an id {HOSTILE[hostile]}" for hostile in list(taken)[:3])
    got = "X-Request-Id: " + "; ".join(shortened(ascii(one), 80) for one in list(taken.values())[:3])
    expected = "a new id: only 1 to 64 letters, digits, dots, underscores and hyphens of ASCII are taken"
    if taken.keys() == {"caf\xe9"}:
        wrong("letters_of_any_alphabet", did=did, got=got, expected=expected)
    if len(taken) >= len(HOSTILE) - 1:
        wrong("takes_any_id", did=did, got=got, expected=expected)
    if {FORGED, "d" * 10_000} <= taken.keys() and f'"{FORGED}' not in taken:
        wrong("pattern_not_anchored", did=did, got=got, expected=expected)
    differs(did=did, got=got, expected=expected, matters="Whoever calls the shop then writes into its log.")


def test_a_thread_that_serves_again(shop: Shop) -> None:
    """A request without an id is given a new one, though its thread has served others before."""
    ask(shop, Request("GET", "/v1/nowhere-42", headers={"X-Request-Id": "long-ago"}))
    answered, logged = [], []
    for _ in range(8):  # more than there are threads so far
        told = ask(shop, Request("GET", "/v1/nowhere-42"))
        answered.append(told.id)
        logged += [str(line.data.get("request_id")) for line in told.lines]
    did = "eight requests without an id, one after another, as they come over connections that are kept"
    if len(set(logged)) < len(logged):
        got = f"request_id: {', '.join(logged)}"
        wrong("id_of_the_last_request", did=did, got=got, expected="eight ids")
    if answered != logged or not all(HARMLESS.fullmatch(one) for one in answered):
        differs(
            did=did,
            got=f"X-Request-Id: {', '.join(answered)} in the answers; {', '.join(logged)} in the lines",
            expected="the same ids in both, of 1 to 64 letters, digits, dots, underscores and hyphens",
            matters="The id in the answer is what a customer quotes, and the one in the lines what is searched for.",
        )


def test_two_requests_at_once(shop: Shop, things: Things, payments: Provider) -> None:
    """Two requests at once: each line has the id of its own, and so has the call to the provider."""
    payments.plan = FaultPlan(script=("hang",))
    output = Output(shop)
    with ThreadPoolExecutor(1) as thread:
        began = time.monotonic()
        paying = thread.submit(shop.ask, pay(things.pending[0], **{"X-Request-Id": "the-slow-one"}))
        wait(lambda: bool(payments.received()))
        reached = time.monotonic()
        quick = ask(shop, Request("GET", f"/v1/orders/{things.orders[0]}", headers={"X-Request-Id": "the-quick-one"}))
        released = time.monotonic()
        payments.plan = FaultPlan()
        slow = paying.result()
        took = time.monotonic() - began
    lines = output.until(lambda lines: sum(line.is_end for line in lines) == 2, slow.did)
    did = "GET the-quick-one, while POST the-slow-one waited for the payment provider"
    of_slow = [line for line in lines if line.text not in {line.text for line in quick.lines}]
    strange = [line for line in of_slow if line.data.get("request_id") != "the-slow-one"]
    if any(line.data.get("request_id") == "the-quick-one" for line in strange):
        wrong("one_id_for_all_threads", did=did, got=shown(strange), expected='"request_id": "the-slow-one"')
    same_id(quick, "the-quick-one")
    told = Told(slow, of_slow)
    same_id(told, "the-slow-one")
    _event_is(told, told.end, method="POST", status=201)
    carried = payments.received()[0].headers.get("x-request-id")
    if carried != "the-slow-one":
        differs(
            did=slow.did,
            got=f"X-Request-Id: {carried} at the provider" if carried else "a call without X-Request-Id",
            expected="X-Request-Id: the-slow-one: shop.outgoing.add(app, headers) has it sent along",
            matters="When the provider asks which payment that was, or you ask them, there is no common name for it.",
        )
    duration, held = told.end.data["duration_ms"], 1000 * (released - reached)
    if not 0.9 * held <= duration <= 1000 * took + 1:
        differs(
            did=f"held a request for {held:.1f} ms, of {1000 * took:.1f} ms in all",
            got=f"duration_ms: {duration}",
            expected="between the two",
            matters="It says how long the caller waited, from the beginning to the answer, in milliseconds.",
        )


def wait(condition: Callable[[], bool]) -> None:
    """Wait for what must come soon; what comes of it is checked afterwards."""
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)


END_THE_TRANSACTIONS = """
SELECT count(pg_terminate_backend(pid, 2000)) FROM pg_stat_activity
WHERE datname = current_database() AND state = 'idle in transaction'
"""


def test_calls_in_threads(shop: Shop, things: Things, delivery: Provider, database: Connection) -> None:
    """Calls made in threads carry the id, and so does a line that is logged after the answer has been made."""
    delivery.plan = FaultPlan(script=("hang", "hang"))
    request = Request("GET", f"/v1/orders/{things.orders[0]}/delivery-quotes", headers={"X-Request-Id": "in-threads"})
    output = Output(shop)
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(shop.ask, request)
        wait(lambda: len(delivery.received()) == 2)
        ended = database.scalar(text(END_THE_TRANSACTIONS))
        delivery.plan = FaultPlan()
        answer = asking.result()
    assert ended, "the request holds no transaction any more"
    did = f"{request}, which asks for two quotes at once, in threads"
    carried = [received.headers.get("x-request-id") for received in delivery.received()]
    if carried != ["in-threads", "in-threads"]:
        got = f"X-Request-Id at the delivery company: {', '.join(map(str, carried))}"
        wrong("thread_local_id", did=did, got=got, expected="in-threads, in-threads")
    did = f"{request}, and ended its transaction in the database before the quotes came"

    def is_whole(lines: list[Line]) -> bool:
        return any(line.is_end for line in lines) and any(line.says("could not be closed") for line in lines)

    lines = output.until(is_whole, did)
    for line in lines:
        if line.says("could not be closed") and line.data.get("request_id") is None:
            wrong("id_dropped_too_early", did=did, got=shortened(line.text), expected='"request_id": "in-threads"')
    same_id(Told(answer, lines), "in-threads")
    if not is_whole(lines):
        differs(
            did=did,
            got=shown(lines),
            expected="the event, and the warning that the session could not be closed, which comes at the very end",
            matters="It is the only trace of a database that hangs up on its clients.",
        )


def test_lines_of_libraries(shop: Shop) -> None:
    """What libraries have to say is an object on one line as well."""
    output = Output(shop)
    with socket.create_connection(("127.0.0.1", shop._port), timeout=5) as connection:  # noqa: SLF001 - no other way
        connection.sendall(b"this is not HTTP\r\n\r\n")
        while connection.recv(4096):
            pass
    did = "sent the shop a line that is no request"
    lines = output.until(bool, did)
    if not any(line.says("this is not HTTP") or line.says("code 400") for line in lines):
        differs(
            did=did,
            got=shown(lines),
            expected="werkzeug's line about it, which is at error: code 400, message Bad request",
            matters="Libraries log what only they know. Who silences them hears it from the customers.",
        )


# --- What must not be said --------------------------------------------------------------------------------------------


def test_an_order_is_logged_without_the_address(shop: Shop, things: Things) -> None:
    """A placed order is logged with its facts, and without the customer's e-mail address."""
    basket = {"customer_id": things.customer, "items": [{"product_id": things.product, "quantity": 1}]}
    told = ask(shop, Request("POST", "/v1/orders", json=basket))
    _event_is(told, told.end, method="POST", status=201)
    placed = told.answer.body["id"]
    if any(line.says(things.email) for line in told.lines):
        differs(
            did=told.answer.did,
            got=f"{things.email} in the line",
            expected="the address masked",
            matters="The log of a year is then a list of customers, outside of every rule that the database obeys.",
        )
    if not any(line.says(placed) and not line.is_end for line in told.lines):
        differs(
            did=told.answer.did,
            got=shown(told.lines),
            expected=f'the line "order placed" at info, with the order {placed} among its facts',
            matters="It is the one event that the business wants to find again.",
        )


SECRETS = {
    "top": ("swordfish-01", "swordfish-02"),
    "nested": ("swordfish-11", "swordfish-12", "swordfish-13", "swordfish-14", "swordfish-15"),
    "spelt": (
        "swordfish-21",
        "swordfish-22",
        "swordfish-23",
        "swordfish-24",
        "swordfish-25",
        "swordfish-26",
        "981219812198",
    ),
    "text": ("ann.lee@example.com", "Bob@Mail.Example.ORG", "4111 1111 1111 1111", "5555555555554444", "swordfish-31"),
}


BARCODE = "4006381333931"  # of a product: as long as a card's number, without its check digit


def refused_body(things: Things) -> Json:
    """An order that is refused: it has fields too many, with all that people put where it does not belong."""
    return {
        "customer_id": things.customer,
        "items": [
            {
                "product_id": things.product,
                "quantity": 3,
                "gift": {"password": "swordfish-11", "cards": [[{"cvc": "swordfish-15", "token": "swordfish-12"}]]},
            }
        ],
        "password": "swordfish-01",
        "token": "swordfish-02",
        "login": [{"authorization": "swordfish-13", "how": {"secret": {"is": ["swordfish-14"]}}}],
        "Password": "swordfish-21",
        "payment": {
            "cardNumber": "swordfish-22",
            "card_number": "swordfish-23",
            "AUTHORIZATION": "swordfish-24",
            "accessToken": "swordfish-25",
            "api-key": "swordfish-26",
            "CVC": 981219812198,
        },
        "note": "call ann.lee@example.com or <Bob@Mail.Example.ORG>, my card is 4111 1111 1111 1111, "
        f"ref 1234-5678, the mug is {BARCODE}",
        "callback": "https://ann:swordfish-31@example.org/done",
        "number": 5555555555554444,
        "shares": {"ann.lee@example.com": 50},
        "ann.lee@example.com": True,
    }


def test_secrets_are_masked(shop: Shop, things: Things) -> None:
    """Secrets and personal data are masked: at any depth, under any spelling, and in texts. The rest is shown."""
    headers = {"X-Request-Id": "with-secrets"}  # not a random one, in which any digits might be
    told = ask(shop, Request("POST", "/v1/orders", json=refused_body(things), headers=headers))
    _event_is(told, told.end, method="POST", status=422)
    seen = [said for line in told.lines for said in texts(line.data)]
    leaked = {kind: [one for one in secrets if any(one in said for said in seen)] for kind, secrets in SECRETS.items()}
    did = "POST /v1/orders with passwords, tokens, card numbers and e-mail addresses in the body, which is refused"
    expected = "none of them in any line"
    got = f"in the lines: {', '.join(one for secrets in leaked.values() for one in secrets)}"
    if leaked["nested"] and leaked["text"]:  # and yet the customer's address, a fact at the top, is masked: see above
        wrong("masks_the_top_level", did=did, got=got, expected=expected)
    if leaked["spelt"] and not leaked["nested"]:
        wrong("masks_exact_names", did=did, got=got, expected=expected)
    if leaked["text"] and not leaked["spelt"]:
        wrong("masks_names_only", did=did, got=got, expected=expected)
    if any(leaked.values()):
        differs(
            did=did,
            got=got,
            expected=expected,
            matters="A log is copied to more places, kept longer, and read by more people than the database.",
        )
    _the_rest_is_shown(told, things)
    fields = [error["field"] for error in told.answer.body["errors"]]
    if "ann.lee@example.com" not in fields:
        got = f"the answer says of the field that the caller named ann.lee@example.com: {fields[-1]}"
        wrong("masks_in_place", did=did, got=got, expected="an answer with the caller's own words")


def _the_rest_is_shown(told: Told, things: Things) -> None:
    refused = next((line for line in told.lines if "received" in line.data and "errors" in line.data), None)
    kept = {things.customer, things.product, "1234-5678", BARCODE, "items.0.gift", "quantity"}
    missing = kept if refused is None else {one for one in kept if not refused.says(one)}
    if missing == {BARCODE}:
        wrong(
            "masks_every_long_number",
            did=told.answer.did,
            got=f"the barcode {BARCODE} in the note is masked",
            expected="that it stays: its last digit is not the check digit that a card's number has",
        )
    if missing:
        differs(
            did=told.answer.did,
            got=shortened(refused.text, 1500) if refused else shown(told.lines),
            expected=f"errors and received, with what is harmless in them: {', '.join(sorted(missing))}",
            matters="A log without facts protects everyone and helps no one.",
        )


# --- What goes wrong --------------------------------------------------------------------------------------------------


def test_a_providers_failure_is_a_warning(shop: Shop, things: Things, payments: Provider) -> None:
    """A provider's failure is a warning, with the id and the order, and without the password in its address."""
    payments.plan = FaultPlan(rates={"error 503": 1})
    order = things.pending[1]
    told = ask(shop, pay(order, **{"X-Request-Id": "no-money"}))
    same_id(told, "no-money")
    _event_is(told, told.end, method="POST", status=502)
    warnings = [line for line in told.lines if line.data["level"] == "warning" and line.says("provider failed")]
    if len(warnings) != 1 or not warnings[0].says(order):
        differs(
            did=told.answer.did,
            got=shown(told.lines),
            expected=f"one warning that the provider failed, with the order {order} and all else it was given",
            matters="It says why this customer could not pay. The shop itself did what it should: no error of its own.",
        )
    if any(line.says(PASSWORD) for line in told.lines):
        got = shortened(next(line.text for line in told.lines if line.says(PASSWORD)), 400)
        wrong("masks_facts_not_messages", did=told.answer.did, got=got, expected="the address without its password")


def test_nothing_stops_the_log(shop: Shop) -> None:
    """What is hard to write down is written down all the same, and the request goes on."""
    deep: Any = {"password": "swordfish-41"}
    for level in range(800):
        deep = {"in": deep} if level % 2 else [deep]
    told = ask(shop, Request("POST", "/v1/orders", json={"note": deep}))
    did = "POST /v1/orders with lists in objects in lists, 800 deep, in the body"
    if told.answer.status != 422:
        got = f"{told.answer.status} {told.answer.body}"
        wrong("deep_bodies_break_the_request", did=did, got=got, expected="422, as ever")
    _event_is(told, told.end, method="POST", status=422)
    _is_told_of(told, did)
    if any(line.says("swordfish-41") for line in told.lines):
        differs(did=did, got="the password at the bottom", expected="no password", matters="Depth is no disguise.")
    strange = {"quantity": float("nan"), "note": "one\ntwo\r\x1b[31m\u2028three\x00", "half": "\ud83d", "huge": 10**400}
    told = ask(shop, Request("POST", "/v1/orders", json=strange))
    did = "POST /v1/orders with NaN, a number of 401 digits, newlines, NUL and half a character in the body"
    _event_is(told, told.end, method="POST", status=422)
    _is_told_of(told, did)


def _is_told_of(told: Told, did: str) -> None:
    if not any("errors" in line.data for line in told.lines):
        differs(
            did=did,
            got=shown(told.lines),
            expected='the line "request refused", with its errors',
            matters="The strangest requests are those that somebody will want to read about.",
        )


NO_ADDRESSES = "ALTER TABLE products ADD CONSTRAINT of_a_check CHECK (name NOT LIKE '%@%') NOT VALID"


def test_a_crash_is_logged_once(shop: Shop, things: Things, database: Connection) -> None:
    """A crash is logged once, as an error with its cause and its place, under the id that the answer tells."""
    database.execute(text(NO_ADDRESSES))
    try:
        change = {"name": "Mug for ann.lee@example.com"}
        headers = {"X-Request-Id": "it-crashed"}
        told = ask(shop, Request("PATCH", f"/v1/products/{things.product}", json=change, headers=headers))
    finally:
        database.execute(text("ALTER TABLE products DROP CONSTRAINT of_a_check"))
    same_id(told, "it-crashed")
    _event_is(told, told.end, method="PATCH", status=500)
    did = f"{told.answer.did}, which the database refuses: the shop crashes"
    named = [line for line in told.lines if line.says("CheckViolation")]
    crashes = [line for line in named if line.says("change_product")]
    if len(crashes) > 1:
        wrong("crash_logged_twice", did=did, got=shown(crashes), expected="one line with the stack of the crash")
    if named and not crashes:
        got = shortened(named[0].text, 400)
        wrong("crash_without_its_stack", did=did, got=got, expected="the stack: it went through change_product")
    if not crashes or crashes[0].data["level"] not in ERRORS:
        differs(
            did=did,
            got=shown(told.lines),
            expected="one line at error, with the exception, its cause (CheckViolation) and its stack",
            matters="It is the only trace of why the request failed. The caller was told nothing of it.",
        )
    if any(line.says("ann.lee@example.com") for line in told.lines):
        got = "ann.lee@example.com, which the database quotes in its refusal"
        wrong("masks_facts_not_messages", did=did, got=got, expected="the traceback without it")
