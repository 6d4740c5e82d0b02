"""Checks of `api/errors`.

They make the shop fail in the ways in which it fails in production, through HTTP and through its database, and look at
what it answers and what it prints. None of them looks at the file: whatever tells callers the right thing is right.
"""

import http.client
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urldefrag, urljoin

import pytest
from sqlalchemy import Connection, create_engine, text

from shopfloor.checks.judge import StartShop
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop

Json = dict[str, Any]

PROBLEM = "application/problem+json"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")
URI_REFERENCE = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")  # RFC 3986: the letters it may have
MEMBERS = {"type": str, "title": str, "status": int, "detail": str, "instance": str, "request_id": str}

# What no caller is to be told: what the shop is made of, where, and what its database says.
INTERNALS = {
    "SQL": r"\b(SELECT|UPDATE|INSERT|DELETE)\b.*\b(FROM|SET|INTO)\b|\[SQL",
    "a table or a column": r"\b(price_amount|withdrawn_at|category_id|customer_id|order_items|relation)\b",
    "a constraint": r"of_a_check|_key\b|_check\b|constraint",
    "a row": r"Failing row|\bKey \(|DETAIL",
    "a class": r"\b[a-z_]+\.[a-z_.]*[A-Z]\w+|\w+(?:Error|Exception|Violation|Detected|Shutdown)\b",
    "a library": r"(?i)psycopg|sqlalche|pydantic|werkzeug|libpq|postgres",
    "a file": r"\.py\b|Traceback|/site-packages/|line \d+",
    "where the database is": r"127\.0\.0\.1|localhost|port \d+|connection to server",
    "the pool": r"QueuePool|pool",
}


# --- What there is to ask for -----------------------------------------------------------------------------------------

PRODUCTS = "SELECT public_id::text FROM products WHERE withdrawn_at IS NULL ORDER BY id LIMIT 3"
CUSTOMER = "SELECT public_id::text FROM customers ORDER BY id LIMIT 1"
TWINS = "CREATE UNIQUE INDEX of_a_check_twins ON products (name) WHERE name LIKE 'twin of a check%'"
NO_ADDRESSES = "ALTER TABLE products ADD CONSTRAINT of_a_check CHECK (name NOT LIKE '%@%') NOT VALID"
FAILS_AS_TOLD = """
CREATE FUNCTION of_a_check() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the relation products is refused, as a check has it, in row %', NEW.id
    USING ERRCODE = split_part(NEW.name, ' ', 3);
END $$
"""
WHEN_TOLD = """
CREATE TRIGGER of_a_check BEFORE UPDATE ON products FOR EACH ROW WHEN (NEW.name LIKE 'fail with %')
EXECUTE FUNCTION of_a_check()
"""


@dataclass(frozen=True)
class Things:
    """Public ids of things in the database."""

    products: list[str]
    customer: str


@pytest.fixture(scope="module")
def things(database: Connection) -> Things:
    """Products and a customer; two products cannot be twins, none may be named with an @, and some names fail."""
    for statement in (TWINS, NO_ADDRESSES, FAILS_AS_TOLD, WHEN_TOLD):
        database.execute(text(statement))
    return Things(list(database.scalars(text(PRODUCTS))), str(database.scalar(text(CUSTOMER))))


def rename(product: str, name: str, **headers: str) -> Request:
    """The request that gives a product another name."""
    return Request("PATCH", f"/v1/products/{product}", json={"name": name}, headers=headers)


def fail_with(things: Things, state: str, **headers: str) -> Request:
    """A request whose statement PostgreSQL refuses with an error code (SQLSTATE)."""
    return rename(things.products[0], f"fail with {state}", **headers)


@dataclass(frozen=True)
class Raw:
    """A request whose body is sent as it stands."""

    method: str
    address: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.address}" + (f" with the body {self.body!r}" if self.body else "")


def send(shop: Shop, raw: Raw) -> Answer:
    """Ask what `Shop.ask` cannot."""
    connection = http.client.HTTPConnection("127.0.0.1", shop._port, timeout=5)  # noqa: SLF001 - no other way
    try:
        connection.request(raw.method, raw.address, body=raw.body or None, headers=raw.headers)
        response = connection.getresponse()
        received = response.read()
    finally:
        connection.close()
    try:
        body = json.loads(received)
    except ValueError:
        body = received.decode(errors="replace")
    return Answer(str(raw), response.status, body, {name.lower(): value for name, value in response.getheaders()})


# --- The form ---------------------------------------------------------------------------------------------------------


def shown(answer: Answer, most: int = 400) -> str:
    """What came, as evidence."""
    body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
    body = " ".join(body.split())
    cut = body if len(body) <= most else f"{body[:most]}... ({len(body):,} characters)"
    return f"{answer.status}, {answer.headers.get('content-type', 'no Content-Type')}: {cut}"


def problem(answer: Answer, status: int) -> Json:
    """The answer's problem, which has all its members and tells this status."""
    expected = f"{status} with {PROBLEM}: an object with {', '.join(MEMBERS)}"
    body = answer.body
    named = body.get("status") if isinstance(body, dict) else None
    if answer.status == 200 and named == status:
        wrong("always_200", did=answer.did, got=shown(answer), expected=expected)
    if answer.status != status:
        differs(did=answer.did, got=shown(answer), expected=expected, matters=MEANING[status])
    missing = MEMBERS if not isinstance(body, dict) else [
        name for name, kind in MEMBERS.items() if not isinstance(body.get(name), kind) or not body[name]
    ]  # fmt: skip
    if not missing and answer.headers.get("content-type", "").startswith("application/json"):
        wrong("content_type_of_any_json", did=answer.did, got=shown(answer), expected=f"Content-Type: {PROBLEM}")
    if missing or answer.headers.get("content-type") != PROBLEM or body["status"] != status:
        differs(
            did=answer.did,
            got=shown(answer),
            expected=expected,
            matters="Callers write the code that reads errors once. It cannot read what comes in another form.",
        )
    return dict(body)


MEANING = {
    400: "What cannot be parsed is the caller's mistake, and the caller must hear so.",
    404: "What is not there is not there, whatever the address looks like.",
    405: "The address is right and the method is not: that is another mistake than a wrong address.",
    409: "The request was in order and contradicts what is there. Only its caller can decide what to do about it.",
    415: "The caller sent what the shop does not read, and can send it otherwise.",
    422: "The request was understood and cannot be accepted. Its caller must change it.",
    500: "The shop is wrong. To repeat the request would be of no use, and somebody must look.",
    503: "It passes. Whoever is told so may ask again; whoever is told 500 gives up, or calls somebody.",
}


def nothing_inside(answer: Answer, *secrets: str) -> None:
    """The answer tells nothing of what the shop is made of."""
    told = f"{json.dumps(answer.body)} {json.dumps(dict(answer.headers) | {'server': ''})}"
    leaks = [f"{kind} ({found[0]})" for kind, pattern in INTERNALS.items() if (found := re.search(pattern, told))]
    leaks += [f"what was sent ({secret})" for secret in secrets if secret in told]
    if leaks:
        differs(
            did=answer.did,
            got=f"{shown(answer)}\nwhich tells {', '.join(leaks)}",
            expected="a problem that says nothing of what is inside",
            matters="Whoever looks for a way in is told the tables, the libraries, the addresses, one request each.",
        )


ORDINARY: Sequence[tuple[Raw, int]] = (
    (Raw("GET", "/v1/nowhere"), 404),
    (Raw("GET", "/v1/orders/7"), 404),
    (Raw("GET", f"/v1/orders/{UNKNOWN}"), 404),
    (Raw("POST", "/v1/orders", b"{", {"Content-Type": "application/json"}), 400),
    (Raw("GET", "/v1/orders?limit=ten"), 422),
    (Raw("DELETE", "/v1/products"), 405),
    (Raw("POST", "/v1/orders", b"customer=1", {"Content-Type": "text/plain"}), 415),
)


def test_one_form_for_all(shop: Shop) -> None:
    """Every error has the same form: application/problem+json, with all its members."""
    answers = [(send(shop, raw), status) for raw, status in ORDINARY]
    pages = [answer for answer, _ in answers if answer.headers.get("content-type", "").startswith("text/html")]
    if pages and answers[0][0].headers.get("content-type") == PROBLEM:
        got = "\n".join(f"{answer.did}: {shown(answer, 80)}" for answer in pages)
        wrong("some_statuses_forgotten", did="asked for seven different mistakes", got=got, expected=PROBLEM)
    for answer, status in answers:
        problem(answer, status)
        if status != 422:  # that one has a check of its own
            nothing_inside(answer)


def test_the_members_mean_what_they_should(shop: Shop) -> None:
    """A title goes with its type; a type can be looked up; an instance names this occurrence."""
    first, second = (send(shop, Raw("GET", address)) for address in ("/v1/nowhere", f"/v1/orders/{UNKNOWN}"))
    one, other = problem(first, 404), problem(second, 404)
    did = f"{first.did}; {second.did}"
    if one["type"] == other["type"] and one["title"] != other["title"]:
        got = f"both of the type {one['type']}, and titled {one['title']!r} and {other['title']!r}"
        wrong("title_tells_the_occurrence", did=did, got=got, expected="one title for one type; what differs is detail")
    for found in (one, other):
        if found["type"] == "about:blank" and found["title"] != HTTPStatus.NOT_FOUND.phrase:
            differs(
                did=did,
                got=f"about:blank, titled {found['title']!r}",
                expected="about:blank with the status's own phrase, Not Found, as RFC 9457 has it",
                matters="about:blank says that there is no more to the problem than its status.",
            )
    answers = [send(shop, raw) for raw, _ in ORDINARY]
    _types_can_be_looked_up(shop, answers)
    again = problem(send(shop, Raw("GET", "/v1/nowhere")), 404)
    if one["instance"] == again["instance"]:
        got = f"instance: {one['instance']}, and again {again['instance']}"
        wrong("instance_is_the_path", did=f"{first.did}, twice", got=got, expected="two instances: it happened twice")
    odd = send(shop, Raw("GET", "/v1/caf%C3%A9%20%22%0D%0Atwo"))
    instance = problem(odd, 404)["instance"]
    if not URI_REFERENCE.fullmatch(instance):
        differs(
            did=odd.did,
            got=f"instance: {instance!r}",
            expected="a URI reference as of RFC 3986, in which such letters are escaped",
            matters="A client that parses it as what it is said to be fails over the error, and hides it.",
        )


def _types_can_be_looked_up(shop: Shop, answers: Sequence[Answer]) -> None:
    for found in {answer.body["type"]: answer for answer in answers}.values():
        kind = found.body["type"]
        if kind == "about:blank":
            continue
        address = urldefrag(urljoin(f"http://shop{found.did.split()[1]}", kind)).url
        leads = (
            send(shop, Raw("GET", address.removeprefix("http://shop"))) if address.startswith("http://shop/") else None
        )
        if leads is None or leads.status != 200:
            got = f"type: {kind}" + (
                f", where the shop answers {leads.status}" if leads else ", which is not the shop's"
            )
            expected = "about:blank, or an address of the shop that says what this type of problem is"
            wrong("type_leads_nowhere", did=found.did, got=got, expected=expected)


def test_headers_are_kept(shop: Shop) -> None:
    """405 names the methods that are allowed; the answer to HEAD is that to GET, without a body."""
    answer = send(shop, Raw("DELETE", "/v1/orders"))
    problem(answer, 405)
    allowed = {method.strip() for method in answer.headers.get("allow", "").split(",")}
    if not {"GET", "HEAD", "POST"} <= allowed:
        got = f"Allow: {answer.headers.get('allow', 'missing')}"
        wrong("headers_lost", did=answer.did, got=got, expected="Allow, with GET, HEAD and POST among them (RFC 9110)")
    head = send(shop, Raw("HEAD", "/v1/nowhere"))
    if head.status != 404 or head.headers.get("content-type") != PROBLEM or head.body:
        differs(
            did=head.did,
            got=shown(head),
            expected=f"404 with {PROBLEM} and no body",
            matters="HEAD asks for what GET would answer, without the body. Caches and monitors rely on it.",
        )


# --- Fields -----------------------------------------------------------------------------------------------------------


def fields(answer: Answer) -> list[str]:
    """The fields that a 422 names."""
    errors = problem(answer, 422).get("errors")
    if not isinstance(errors, list) or not all(
        isinstance(error, dict) and isinstance(error.get("field"), str) and isinstance(error.get("detail"), str)
        for error in errors
    ):
        differs(
            did=answer.did,
            got=shown(answer),
            expected="errors: a list, each entry with field and detail",
            matters="Whoever fills in a form wants to see the message beside the field.",
        )
    return [error["field"] for error in errors]


SECRET = "swordfish-77"  # noqa: S105 - of nobody


def test_every_field_is_named(shop: Shop, things: Things) -> None:
    """A request that is not acceptable: every field that is wrong is named, and nothing of what was sent comes back."""
    items = [{"product_id": things.products[0], "quantity": 0}]
    request = Request("POST", "/v1/orders", json={"items": items, "password": SECRET})
    answer = shop.ask(request)
    named = fields(answer)
    wanted = ["customer_id", "items.0.quantity", "password"]
    if len(named) == 1 and named[0] in wanted:
        got = f"errors names {named[0]} alone"
        wrong("first_error_only", did=f"{request}, with three mistakes", got=got, expected=f"{', '.join(wanted)}")
    if sorted(named) != wanted:
        differs(
            did=f"{request}, with three mistakes",
            got=f"errors names {', '.join(named)}",
            expected=", ".join(wanted),
            matters="What is named can be mended in one go.",
        )
    told = json.dumps(answer.body)
    if SECRET in told or "errors.pydantic.dev" in told:
        got = shown(answer, 700)
        wrong("echoes_the_input", did=f"{request}, with a password", got=got, expected="field and detail of each")


def test_what_is_hard_to_write_down(shop: Shop, things: Things) -> None:
    """An error that is hard to write down is written down all the same."""
    twice = [{"product_id": things.products[0], "quantity": 1}] * 2
    answer = shop.ask(Request("POST", "/v1/orders", json={"customer_id": things.customer, "items": twice}))
    did = f"{answer.did}, with a product listed twice, which a rule of the whole order refuses"
    if answer.status == 500:
        wrong("breaks_on_its_own_errors", did=did, got=shown(answer), expected="422, with one entry in errors")
    if len(fields(answer)) != 1:
        differs(did=did, got=shown(answer), expected="one entry in errors", matters="One rule was broken.")
    for raw in (
        Raw("POST", "/v1/orders", rb'{"\ud83d": 1, "a\r\nSet-Cookie: b": 2}', {"Content-Type": "application/json"}),
        Raw("GET", "/v1/orders?sort=%FF%00%0D%0Ax%F0%9F%92%A5"),
    ):
        fields(send(shop, raw))


# --- The id -----------------------------------------------------------------------------------------------------------

HOSTILE = {
    'a","status":"paid': "which would end the text it stands in",
    "a b": "with a space",
    "a\x1b[2J": "which wipes a terminal",
    "caf\xe9": "not of ASCII",
    "c" * 65: "of 65 characters",
}


def id_of(answer: Answer, status: int) -> str:
    """The id that an answer tells, in its body and its header alike."""
    told, header = problem(answer, status)["request_id"], answer.headers.get("x-request-id", "")
    if told != header:
        differs(
            did=answer.did,
            got=f"request_id: {told}; X-Request-Id: {header or 'missing'}",
            expected="the same in both",
            matters="Programs look for the header, and humans copy from the body. Both end up in the same search.",
        )
    return str(told)


def test_the_id(shop: Shop) -> None:
    """The id is the caller's, if it is harmless; else a new one, unlike any other."""
    for given, raw in {"check-7f.A_0": ORDINARY[0], "b" * 64: ORDINARY[4]}.items():
        answer = send(shop, Raw(raw[0].method, raw[0].address, headers={"X-Request-Id": given}))
        if id_of(answer, raw[1]) != given:
            _not_taken(answer, given)
    taken = []
    for hostile in HOSTILE:
        answer = send(shop, Raw("GET", "/v1/nowhere", headers={"X-Request-Id": hostile}))
        if not HARMLESS.fullmatch(id_of(answer, 404)):
            taken.append(hostile)
    if len(taken) > 1:
        did = "; ".join(f"GET /v1/nowhere with an id {HOSTILE[hostile]}" for hostile in taken[:3])
        got = "; ".join(f"request_id: {ascii(hostile)[:60]}" for hostile in taken[:3])
        expected = "a new id: 1 to 64 letters, digits, dots, underscores and hyphens of ASCII"
        wrong("takes_any_id", did=did, got=got, expected=expected)
    new = [id_of(send(shop, Raw("GET", "/v1/nowhere")), 404) for _ in range(4)]
    if len(set(new)) < len(new) or taken:
        differs(
            did="GET /v1/nowhere, four times",
            got=f"request_id: {', '.join(new)}",
            expected="four ids of 1 to 64 letters, digits, dots, underscores and hyphens",
            matters="Two requests of the same name cannot be told apart.",
        )


def _not_taken(answer: Answer, given: str) -> None:
    wrong(
        "id_of_its_own",
        did=f"{answer.did}, with X-Request-Id: {given}",
        got=f"request_id: {answer.body['request_id']}",
        expected=f"request_id: {given}",
    )


# --- Bugs -------------------------------------------------------------------------------------------------------------


class Output:
    """What the shop prints from now on."""

    def __init__(self, shop: Shop) -> None:
        self._shop, self._start = shop, len(shop.output)

    def until(self, wanted: Callable[[str], bool], patience: float = 1.0) -> str:
        """It, as soon as it is what is wanted, or when there has been time enough."""
        return self._shop.printed(lambda whole: wanted(whole[self._start :]), patience=patience)[self._start :]


def crash(things: Things, **headers: str) -> Request:
    """The request that the database refuses for a reason that nobody foresaw; a constraint, as it happens."""
    return rename(things.products[0], f"Mug for {SECRET}@example.com", **headers)


def test_a_bug(shop: Shop, things: Things) -> None:
    """A bug is 500, tells its caller nothing but the id, and is logged once, with its stack and the id."""
    output = Output(shop)
    answer = shop.ask(crash(things, **{"X-Request-Id": "it-crashed"}))
    did = f"{answer.did}, which violates a CHECK that the shop knows nothing of"
    if answer.status == 409:
        expected = "500: the caller has no part in this conflict, and can do nothing about it"
        wrong("every_integrity_error_is_a_conflict", did=did, got=shown(answer), expected=expected)
    if answer.status == 503:
        expected = "500: it will fail each time that it is repeated"
        wrong("every_database_error_is_an_outage", did=did, got=shown(answer), expected=expected)
    problem(answer, 500)
    if "CheckViolation" in json.dumps(answer.body):
        wrong("tells_the_exception", did=did, got=shown(answer, 700), expected="that something went wrong, and the id")
    nothing_inside(answer, SECRET)
    if id_of(answer, 500) != "it-crashed":
        _not_taken(answer, "it-crashed")
    printed = output.until(lambda text: "change_product" in text and "CheckViolation" in text)
    _logged_once(did, printed)
    if "it-crashed" not in printed:
        differs(
            did=f"{did}, with X-Request-Id: it-crashed",
            got=f"{len(printed.splitlines())} lines, and the id in none of them",
            expected="the id in the log as well: in the message, as long as nothing else puts it there",
            matters="The customer quotes the id. What is it good for, if the log does not know it?",
        )


def _logged_once(did: str, printed: str) -> None:
    # The stack of the crash goes through change_product; a second copy of it has the same line a second time.
    stacks = len(re.findall(r"in change_product", printed))
    named = "CheckViolation" in printed
    if not stacks and not named:
        got = f"{len(printed.splitlines())} lines, none of them about it"
        wrong("crash_not_logged", did=did, got=got, expected="one line at error, with the exception and its stack")
    if not stacks:
        got = " ".join(printed.split())[:300]
        wrong("crash_without_its_stack", did=did, got=got, expected="the stack: it went through change_product")
    if stacks > 1:
        got = f"its stack {stacks} times"
        wrong("crash_logged_twice", did=did, got=got, expected="one line at error, with the stack")


def test_with_a_log_that_names_requests(start: StartShop, things: Things) -> None:
    """With observability/logging solved, the id in the answer is the one in the log, whoever made it."""
    with start("observability/logging") as shop:
        for given in ("", "caf\xe9"):
            headers = {"X-Request-Id": given} if given else {}
            output = Output(shop)
            answer = send(shop, Raw("GET", "/v1/nowhere", headers=headers))
            told = problem(answer, 404)["request_id"]
            printed = output.until(lambda text: '"status": 404' in text)
            logged = re.findall(r'"request_id": "([^"]*)"', printed)
            if logged != [told] or answer.headers.get("x-request-id") != told:
                got = (
                    f"request_id: {told}; in the log: {', '.join(logged)}; header: {answer.headers.get('x-request-id')}"
                )
                expected = "the one of the log: it is what outgoing calls carry as well, see shop/outgoing.py"
                wrong(
                    "id_of_its_own", did=f"{answer.did}, with observability/logging solved", got=got, expected=expected
                )
        output = Output(shop)
        answer = shop.ask(crash(things))
        did = f"{answer.did}, which violates a CHECK, with observability/logging solved"
        told = problem(answer, 500)["request_id"]
        printed = output.until(lambda text: '"status": 500' in text)
        lines = [json.loads(line) for line in printed.splitlines() if "CheckViolation" in line]
        _logged_once(did, printed)
        if len(lines) != 1 or lines[0].get("request_id") != told:
            differs(
                did=did,
                got=f"request_id: {told}; lines that tell of it: {[line.get('request_id') for line in lines]}",
                expected="one line, with that id",
                matters="The id in the answer is what the line is looked up by.",
            )


# --- The database -----------------------------------------------------------------------------------------------------


def test_a_duplicate(shop: Shop, things: Things) -> None:
    """What may exist only once and exists is 409, and the answer does not say how the database put it."""
    name = f"twin of a check {SECRET}"
    assert shop.ask(rename(things.products[0], name)).status == 200
    answer = shop.ask(rename(things.products[1], name))
    did = f"gave a second product a name of which only one may be: {answer.did}"
    body = json.dumps(answer.body)
    if answer.status == 409 and ("of_a_check" in body or "Key (" in body):
        got = shown(answer)
        wrong("duplicate_tells_the_constraint", did=did, got=got, expected="409, and no word of the database's")
    problem(answer, 409)
    nothing_inside(answer, SECRET)
    _types_can_be_looked_up(shop, [answer])


def retry_after(answer: Answer) -> None:
    """A 503 says when to ask again."""
    told = answer.headers.get("retry-after", "")
    if not re.fullmatch(r"\d{1,3}|[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", told):
        got = f"503 with Retry-After: {told}" if told else "503 without Retry-After"
        expected = "503 with Retry-After: whole seconds, or a date (RFC 9110, section 10.2.3)"
        wrong("no_word_when_to_ask_again", did=answer.did, got=got, expected=expected)


def passing(answer: Answer) -> None:
    """The answer is a 503 that says when to ask again and nothing else."""
    problem(answer, 503)
    nothing_inside(answer, SECRET)
    retry_after(answer)


PASSES = {
    "40P01": "it was chosen to end a deadlock",
    "40001": "it could not be serialised",
    "55P03": "somebody else holds the lock",
    "57014": "a time limit ended its statement",
    "53300": "there are too many connections",
    "08006": "the connection failed",
}


def test_a_race_that_was_lost(shop: Shop, things: Things) -> None:
    """A deadlock, a serialization failure, a lock or a connection that was not to be had: 503, with Retry-After."""
    for state, words in PASSES.items():
        output = Output(shop)
        answer = shop.ask(fail_with(things, state, **{"X-Request-Id": f"lost-{state}"}))
        did = f"{answer.did}, whose transaction PostgreSQL ends with {state}: {words}"
        if answer.status == 409:
            differs(did=did, got=shown(answer), expected="503 with Retry-After", matters=MEANING[503])
        if answer.status == 500:
            wrong("outage_is_a_bug", did=did, got=shown(answer), expected="503 with Retry-After")
        passing(answer)
        _is_told_of(output, did, f"lost-{state}")


def _is_told_of(output: Output, did: str, name: str) -> None:
    printed = output.until(lambda text: name in text)
    if name not in printed:
        differs(
            did=f"{did}, with X-Request-Id: {name}",
            got=f"{len(printed.splitlines())} lines, and the id in none of them",
            expected="a warning about it, with its id and its cause",
            matters="Callers are told to ask again, and do. Nobody in the shop ever hears of it.",
        )


def test_another_bug(shop: Shop, things: Things) -> None:
    """What PostgreSQL refuses for another reason is a bug: 500, and no invitation to repeat it."""
    for state in ("22P02", "42703", "23502"):  # not a number, no such column, NULL where none may be
        answer = shop.ask(fail_with(things, state))
        did = f"{answer.did}, which PostgreSQL refuses with {state}"
        if answer.status == 409:
            expected = "500: the caller has no part in this conflict, and can do nothing about it"
            wrong("every_integrity_error_is_a_conflict", did=did, got=shown(answer), expected=expected)
        if answer.status == 503:
            expected = "500: it will fail each time that it is repeated"
            wrong("every_database_error_is_an_outage", did=did, got=shown(answer), expected=expected)
        problem(answer, 500)
        nothing_inside(answer)


END_THEM = """
SELECT count(pg_terminate_backend(pid, 2000)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def test_a_lost_database(shop: Shop, things: Things, database: Connection) -> None:
    """A database that hangs up, and one that cannot be reached: 503 with Retry-After. When it is back, all is well."""
    page = Request("GET", f"/v1/products/{things.products[2]}", headers={"X-Request-Id": "hung-up"})
    assert database.scalar(text(END_THEM)), "the shop keeps a connection"
    output = Output(shop)
    answer = shop.ask(page)
    did = f"{page}, after the database had ended the shop's connections"
    if answer.status == 500:
        wrong("outage_is_a_bug", did=did, got=shown(answer), expected="503 with Retry-After")
    if answer.status != 200:  # a shop that looks before it asks has noticed
        passing(answer)
        _is_told_of(output, did, "hung-up")
    shop.ask(page)  # which keeps a connection
    with shop.database.tap.being("gone"):
        for _ in range(2):  # on a connection that was kept, then on none
            output = Output(shop)
            answer = shop.ask(Request("GET", page.address))
            did = f"{page}, while the database cannot be reached"
            if answer.status == 500:
                _recognise_a_handler_that_asks(did, answer, output)
                wrong("outage_is_a_bug", did=did, got=shown(answer), expected="503 with Retry-After")
            passing(answer)
        missing = send(shop, Raw("GET", "/v1/nowhere"))
        problem(missing, 404)
    answer = shop.ask(page)
    if answer.status != 200:
        differs(
            did=f"{page}, when the database is back", got=shown(answer), expected="200", matters="It was an outage."
        )


def _recognise_a_handler_that_asks(did: str, answer: Answer, output: Output) -> None:
    """The stack of an error that was raised while another one was handled goes through the handler's own file."""
    printed = output.until(lambda text: "During handling of the above exception" in text, patience=0.3)
    if "During handling of the above exception" in printed and "shop/api/errors.py" in printed:
        expected = "503 with Retry-After, from a handler that asks the database nothing"
        wrong("asks_the_database_again", did=did, got=shown(answer), expected=expected)


@contextmanager
def holding(database_url: Any, product: str) -> Iterator[None]:
    """Have a product's row locked while the block runs."""
    engine = create_engine(database_url)
    with engine.connect() as connection:
        connection.execute(text("SELECT FROM products WHERE public_id = :id FOR UPDATE"), {"id": product})
        yield
        connection.rollback()
    engine.dispose()


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_no_connection_left(start: StartShop, things: Things, database: Connection) -> None:
    """Every connection of the pool in use for too long: 503, with Retry-After."""
    product = things.products[2]
    with (
        start(POOL_SIZE="1", POOL_TIMEOUT_SECONDS="0.03") as shop,
        ThreadPoolExecutor(1) as thread,
        holding(database.engine.url, product),
    ):
        waits = thread.submit(shop.ask, rename(product, "Patience"))
        _until(lambda: bool(database.scalar(text(WAITING))))
        answer = shop.ask(Request("GET", f"/v1/products/{product}"))
    assert waits.result().status == 200
    did = f"GET /v1/products/{product}, with POOL_SIZE=1 and POOL_TIMEOUT_SECONDS=0.03, while another waited for a lock"
    if answer.status == 500:
        wrong("pool_forgotten", did=did, got=shown(answer), expected="503 with Retry-After")
    passing(answer)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
