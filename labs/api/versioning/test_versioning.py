"""Checks of `api/versioning`.

They ask both versions of the shop over HTTP, compare what they answer with the database and with what v1 answered
before, and turn the shop's clock past the end of v1. None of them looks at the file. The first check that fails is what
the learner reads, so a check stands where what it needs has been checked before.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from sqlalchemy import Connection, text

from shopfloor.checks.judge import StartShop
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.services.providers import Provider

Json = dict[str, Any]

# Not in UTC, as people write dates down: whoever puts GMT behind them without more ado is an hour or two off.
DEPRECATED = datetime.fromisoformat("2025-03-01T00:30:00+01:00")
SUNSET = datetime.fromisoformat("2098-07-01T01:00:00+02:00")
DATES = {"V1_DEPRECATED_AT": DEPRECATED.isoformat(), "V1_SUNSET_AT": SUNSET.isoformat()}
GUIDE = "https://shop.example/from-v1-to-v2"
TOLD = {"deprecation": "@1740785400", "sunset": "Mon, 30 Jun 2098 23:00:00 GMT"}

MOST = 50_000  # minor units, of an order
ABSENT = "00000000-0000-4000-8000-000000000000"
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """v1 is deprecated, and will be gone in many years."""
    uploads = str(tmp_path_factory.mktemp("uploads"))
    return {**DATES, "V1_MIGRATION_GUIDE": GUIDE, "ORDER_TOTAL_MAX": str(MOST), "UPLOADS_FOLDER": uploads}


# --- What there is ----------------------------------------------------------------------------------------------------

ORDER = """
SELECT o.public_id::text AS id, o.status, o.total_amount, o.currency, c.public_id::text AS customer_id, c.name
FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.public_id = CAST(:id AS uuid)
"""
LINES = """
SELECT p.public_id::text AS product_id, p.sku, p.name, i.quantity, i.unit_price
FROM order_items i JOIN products p ON p.id = i.product_id JOIN orders o ON o.id = i.order_id
WHERE o.public_id = CAST(:id AS uuid) ORDER BY i.id
"""
SOME_ORDER = """
SELECT o.public_id::text FROM orders o JOIN order_items i ON i.order_id = o.id WHERE status = :status
GROUP BY o.id HAVING count(*) > 1 ORDER BY o.id DESC LIMIT 1
"""
CUSTOMER = "SELECT public_id::text FROM customers ORDER BY id LIMIT 1"
PRODUCT = """
SELECT public_id::text FROM products JOIN stock ON product_id = id
WHERE withdrawn_at IS NULL AND on_hand - reserved > 10 AND price_amount BETWEEN 1000 AND 5000 ORDER BY id LIMIT 1
"""
WITHDRAWN = "SELECT public_id::text FROM products WHERE withdrawn_at IS NOT NULL ORDER BY id LIMIT 1"
PUT_IN_STOCK = """
UPDATE stock SET on_hand = 1000000, reserved = 0
WHERE product_id IN (SELECT id FROM products WHERE public_id = ANY(CAST(:ids AS uuid[])))
"""
ORDERS = "SELECT count(*) FROM orders"


@dataclass(frozen=True)
class Things:
    """Public ids of things in the database; of both products there is more than enough."""

    pending: str
    shipped: str
    customer: str
    product: str
    withdrawn: str


@pytest.fixture(scope="session")
def things(database: Connection) -> Things:
    """An order of each kind, a customer, and two products."""
    pending, shipped = (database.scalar(text(SOME_ORDER), {"status": each}) for each in ("pending", "shipped"))
    customer, product, withdrawn = (str(database.scalar(text(each))) for each in (CUSTOMER, PRODUCT, WITHDRAWN))
    database.execute(text(PUT_IN_STOCK), {"ids": [product, withdrawn]})
    return Things(str(pending), str(shipped), customer, product, withdrawn)


def in_v2(database: Connection, order: str) -> Json:
    """An order as v2 should show it, but for the moment when it was placed."""
    row = database.execute(text(ORDER), {"id": order}).one()
    return {
        "id": row.id,
        "status": "awaiting_payment" if row.status == "pending" else row.status,
        "total": {"amount": row.total_amount, "currency": row.currency},
        "customer_id": row.customer_id,
        "lines": [
            {
                "product_id": line.product_id,
                "sku": line.sku,
                "name": line.name,
                "quantity": line.quantity,
                "unit_price": {"amount": line.unit_price, "currency": row.currency},
            }
            for line in database.execute(text(LINES), {"id": order})
        ],
    }


def in_v1(database: Connection, order: str) -> Json:
    """The same as v1 shows it."""
    row = database.execute(text(ORDER), {"id": order}).one()
    shown = in_v2(database, order)
    items = [
        {
            "product": {"id": line["product_id"], "sku": line["sku"], "name": line["name"]},
            "quantity": line["quantity"],
            "unit_price": line["unit_price"],
        }
        for line in shown.pop("lines")
    ]
    customer = {"id": shown.pop("customer_id"), "name": row.name}
    return {**shown, "status": row.status, "customer": customer, "items": items}


# --- What is asked ----------------------------------------------------------------------------------------------------


def basket(things: Things, version: int, *, product: str = "", quantity: int = 1, words: int = 0) -> Request:
    """The request that places an order; `words` are those of another version than the address's."""
    line = {"product_id": product or things.product, "quantity": quantity}
    name = "items" if (words or version) == 1 else "lines"
    return Request("POST", f"/v{version}/orders", {"customer_id": things.customer, name: [line]})


def pay(order: str, version: int, key: str) -> Request:
    """The request that pays an order."""
    return Request("POST", f"/v{version}/orders/{order}/payments", headers={"Idempotency-Key": key})


def picture(things: Things, version: int) -> Request:
    """The request that uploads a picture."""
    head = b'--b\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    address = f"/v{version}/products/{things.product}/pictures"
    return Request("POST", address, headers=kind, data=head + PNG + b"\r\n--b--\r\n")


def require(shop: Shop, request: Request, status: int, matters: str = "Nothing more can be asked.") -> Answer:
    """Ask, and be answered with this status."""
    answer = shop.ask(request)
    if answer.status != status:
        differs(did=answer.did, got=shown(answer), expected=status, matters=matters)
    return answer


def shown(answer: Answer, most: int = 300) -> str:
    """What came, as evidence."""
    body = " ".join(str(answer.body).split())
    return f"{answer.status}: {body[:most]}{'...' if len(body) > most else ''}"


def without_moment(order: Any) -> Any:
    """An order but for when it was placed."""
    return {name: value for name, value in order.items() if name != "placed_at"} if isinstance(order, dict) else order


# --- The second version -----------------------------------------------------------------------------------------------


def test_an_order_in_v2(shop: Shop, things: Things, database: Connection) -> None:
    """GET /v2/orders/{id} shows an order in v2's shape."""
    for order in (things.pending, things.shipped):
        answer = require(shop, Request("GET", f"/v2/orders/{order}"), 200)
        expected = in_v2(database, order)
        if without_moment(answer.body) != expected:
            differs(
                did=answer.did,
                got=shown(answer, 700),
                expected=f"{expected}, and placed_at",
                matters="The shape is the contract. Clients of v2 are written against the table in the brief.",
            )


def test_v1_is_as_it_was(shop: Shop, things: Things, database: Connection) -> None:
    """What v1 answers is byte for byte what it answered before."""
    for order in (things.pending, things.shipped):
        answer = require(shop, Request("GET", f"/v1/orders/{order}"), 200)
        expected = in_v1(database, order) | {"placed_at": answer.body.get("placed_at")}
        _as_before(answer, answer.body, expected)
        if answer.content.strip() != json.dumps(expected, sort_keys=True, separators=(",", ":")).encode():
            differs(
                did=f"{answer.did}, compared with what was answered before",
                got=answer.content.decode(),
                expected="the same bytes: names sorted, without spaces, beyond ASCII escaped",
                matters="Somebody signs the body, or keeps its hash, and finds every order changed.",
            )
    page = require(shop, Request("GET", "/v1/orders?status=pending&limit=2"), 200)
    _as_before(page, without_moment(page.body["data"][0]), in_v1(database, page.body["data"][0]["id"]))


def _as_before(answer: Answer, now: Json, before: Json) -> None:
    if now == before:
        return
    did = f"{answer.did}, compared with what was answered before"
    added = _names(now) - _names(before)
    if added and not _names(before) - _names(now):
        wrong(
            "v1_warned_in_its_body",
            did=did,
            got=f"{', '.join(sorted(added))} in the body, which was not there before: {shown(answer)}",
            expected="the same bytes",
        )
    differs(
        did=did,
        got=shown(answer, 500),
        expected=str(before),
        matters="v1 is what its clients were written against. They stop, and none of them has changed a thing.",
    )


def _names(value: Any) -> set[str]:
    """The names in a body, however deep."""
    if isinstance(value, dict):
        return set(value).union(*(_names(part) for part in value.values()))
    return set().union(*(_names(part) for part in value)) if isinstance(value, list) else set()


def as_said(answer: Answer) -> Any:
    """What was answered, but for the cursors: they are signed with the path."""
    if not isinstance(answer.body, dict) or "meta" not in answer.body:
        return answer.body
    meta = {name: value for name, value in answer.body["meta"].items() if name not in {"next", "prev"}}
    return {**answer.body, "meta": meta}


UNCHANGED = ("/products?limit=3", "/exports/orders?limit=2")


def test_all_of_v1_is_in_v2(shop: Shop, things: Things) -> None:
    """What v2 does not change is there all the same, as in v1."""
    for path in (*UNCHANGED, f"/products/{things.product}"):
        first, second = (shop.get(f"/v{version}{path}") for version in (1, 2))
        if (first.status, as_said(first)) != (second.status, as_said(second)):
            differs(
                did=second.did,
                got=shown(second),
                expected=f"what v1 answers: {shown(first)}",
                matters="Who moves to v2 must not have to stay in v1 for the rest, or v1 can never be switched off.",
            )


def test_the_guard_stands_at_both_doors(shop: Shop) -> None:
    """The back office asks for its token in v2 as well."""
    answer = shop.get("/v2/back-office/categories/Lighting")
    if answer.status == 200:
        wrong("guard_left_behind", did=f"{answer.did}, without a token", got=shown(answer), expected="401")
    if answer.status != 401:
        differs(did=answer.did, got=shown(answer), expected=401, matters="It is part of v1, and so of v2.")


def test_a_list_in_v2(shop: Shop, things: Things, database: Connection) -> None:
    """Lists of orders have v2's shape, page after page; filters and fields are understood in v2's words alone."""
    first = require(shop, Request("GET", "/v2/orders?limit=2"), 200)
    second = require(shop, Request("GET", f"/v2/orders?limit=2&cursor={first.body['meta']['next']}"), 200)
    history = require(shop, Request("GET", f"/v2/customers/{things.customer}/orders?limit=2"), 200)
    for answer in (first, second, history):
        for order in answer.body["data"]:
            if without_moment(order) != in_v2(database, order["id"]):
                differs(
                    did=answer.did,
                    got=shown(answer, 600),
                    expected="each entry as its own page in v2 shows it",
                    matters="A client has one class for an order. What comes in two shapes needs two.",
                )
    found = shop.get("/v2/orders?status=awaiting_payment&limit=5")
    if found.status != 200 or {order["status"] for order in found.body["data"]} != {"awaiting_payment"}:
        wrong(
            "filter_in_the_old_words",
            did=found.did,
            got=shown(found),
            expected="orders with the status awaiting_payment, as v2 itself calls it",
        )
    short = require(shop, Request("GET", "/v2/orders?fields=id,customer_id,status&limit=1"), 200)
    if set(short.body["data"][0]) != {"id", "customer_id", "status"}:
        differs(
            did=short.did,
            got=shown(short),
            expected="each entry with id, customer_id and status, and no more",
            matters="The name of a field is one word, whether it is sent or asked for.",
        )
    for query in ("status=pending", "fields=id,customer"):
        answer = require(shop, Request("GET", f"/v2/orders?{query}"), 422, "What v2 accepts today, it must keep.")
        if "'pending'," in str(answer.body) or "customer, " in str(answer.body):
            differs(
                did=answer.did,
                got=shown(answer),
                expected="a detail that offers what v2 accepts",
                matters="The refusal recommends the very word that was refused.",
            )


# --- Writing ----------------------------------------------------------------------------------------------------------


def test_what_one_writes_the_other_reads(shop: Shop, things: Things, database: Connection) -> None:
    """An order that is placed in one version is the same order in the other; Location stays in the version asked."""
    for version in (1, 2):
        made = require(shop, basket(things, version), 201)
        order = made.body["id"]
        pages = [require(shop, Request("GET", f"/v{each}/orders/{order}"), 200) for each in (1, 2)]
        expected = [in_v1(database, order), in_v2(database, order)]
        if [without_moment(page.body) for page in pages] != expected:
            differs(
                did=f"{made.did}, then {pages[0].did} and {pages[1].did}",
                got=f"{shown(pages[0], 500)}\n{shown(pages[1], 500)}",
                expected=f"{expected[0]}\n{expected[1]}",
                matters="It is one order. Two clients of one company see two.",
            )
        if made.body != pages[version - 1].body:
            differs(
                did=made.did,
                got=shown(made, 500),
                expected=f"what its page shows: {shown(pages[version - 1], 500)}",
                matters="A client has one class for an order. What comes in two shapes needs two.",
            )
        _stays(made, made.headers.get("location", "no Location"), f"/v{version}/orders/{order}")
    uploaded = require(shop, picture(things, 2), 201)
    for link in (uploaded.headers.get("location", ""), str(uploaded.body.get("url"))):
        _stays(uploaded, link, "/v2/pictures/")
    require(shop, Request("GET", uploaded.body["url"]), 200)


def _stays(answer: Answer, link: str, expected: str) -> None:
    path = urlsplit(link).path
    if path.startswith("/v1/") and expected.startswith("/v2/"):
        wrong("links_to_the_other_version", did=answer.did, got=f"a link to {link}", expected=f"to {expected}")
    if not path.startswith(expected):
        differs(
            did=answer.did,
            got=f"a link to {link}",
            expected=f"to {expected}",
            matters="A client follows it, and is answered in a shape that it was not written for.",
        )


def test_one_set_of_rules(shop: Shop, things: Things, database: Connection) -> None:
    """v2 refuses what v1 refuses, with the same status, and writes nothing."""
    dear = basket(things, 2, quantity=51)
    gone = basket(things, 2, product=things.withdrawn)
    no_json = Request("POST", "/v2/orders", headers={"Content-Type": "application/json"}, data=b"{")
    no_object = Request("POST", "/v2/orders", [])
    said = {
        "a product that is no longer sold": (gone, 409),
        f"an order of more than {MOST}": (dear, 422),
        "what is no JSON": (no_json, 400),
        "a list in place of a basket": (no_object, 422),
    }
    before = database.scalar(text(ORDERS))
    for what, (request, status) in said.items():
        answer = shop.ask(request)
        did = f"{answer.did}: {what}"
        if answer.status == 201:
            wrong("second_door", did=did, got=shown(answer), expected=f"{status}, as v1 answers")
        if answer.status != status:
            differs(
                did=did, got=shown(answer), expected=f"{status}, as v1 answers", matters="One shop has one opinion."
            )
    if database.scalar(text(ORDERS)) != before:
        differs(
            did="POST /v2/orders, refused", got="an order", expected="none", matters="What is refused is not there."
        )


def test_errors_in_the_words_of_whoever_asked(shop: Shop, things: Things) -> None:
    """A refusal names the fields as whoever sent them knows them; neither version takes the other's words."""
    answers = {}
    for version, name in ((1, "items"), (2, "lines")):
        answer = require(shop, basket(things, version, quantity=0), 422)
        answers[version] = fields = _fields(answer)
        if version == 2 and fields == {"items.0.quantity"}:
            wrong(
                "errors_in_the_old_words",
                did=f"{answer.did}, with a quantity of 0",
                got=shown(answer),
                expected="lines.0.quantity",
            )
        if fields != {f"{name}.0.quantity"}:
            differs(
                did=f"{answer.did}, with a quantity of 0",
                got=shown(answer),
                expected=f"{name}.0.quantity",
                matters="A form puts the message beside the field of that name. There is none, so it is not shown.",
            )
    for version, words in ((1, 2), (2, 1)):
        answer = shop.ask(basket(things, version, words=words))
        did = f"{answer.did}, in v{words}'s words"
        if answer.status == 201:
            wrong("takes_both_names", did=did, got=shown(answer), expected="422: there is no such field")
        if answer.status != 422 or not _fields(answer) & {"items", "lines"}:
            differs(
                did=did,
                got=shown(answer),
                expected="422, and an error for the field that it does not know, or for the one that is missing",
                matters="Whoever mixes the two has to be told which of them he is speaking to.",
            )


def _fields(answer: Answer) -> set[str]:
    errors = answer.body.get("errors") if isinstance(answer.body, dict) else None
    return {str(error.get("field")) for error in errors or () if isinstance(error, dict)}


def test_a_payment_is_one_in_both(shop: Shop, things: Things, payments: Provider) -> None:
    """An order is paid in v2 as in v1; a key that was used in one does not charge again in the other."""
    order = require(shop, basket(things, 1), 201).body["id"]
    require(shop, pay(order, 2, "of-a-check"), 201)
    again = shop.ask(pay(order, 1, "of-a-check"))
    charges = sum(charge["reference"] == order for charge in payments.made())
    if charges != 1 or again.status >= 500:
        differs(
            did="POST /v2/orders/…/payments, and the same with the same key under /v1",
            got=f"{charges} charges, and {shown(again)}",
            expected="one charge; to the second 422 (it is another request), or what the first was answered",
            matters="A client that is moved back to v1 repeats its last request there, with the key that it had.",
        )


# --- What was kept ----------------------------------------------------------------------------------------------------


def test_a_tag_of_each(shop: Shop, things: Things) -> None:
    """Who has v2's page of an order is told 304 by v2; who has v1's page is sent v2's."""
    pages = {version: require(shop, Request("GET", f"/v{version}/orders/{things.shipped}"), 200) for version in (1, 2)}
    tags = {version: page.headers.get("etag", "none") for version, page in pages.items()}

    def asked(version: int, tag: str) -> Answer:
        return shop.ask(Request("GET", f"/v{version}/orders/{things.shipped}", headers={"If-None-Match": tag}))

    for version, other in ((2, 1), (1, 2)):
        answer = asked(version, tags[other])
        did = f"{answer.did}, with the tag of the order's page in v{other}, {tags[other]}"
        if answer.status == 304:
            wrong("one_tag_for_two", did=did, got="304: keep what you have", expected="200, and the page")
        if answer.status != 200:
            differs(did=did, got=shown(answer), expected=200, matters="That is not what he has.")
        own = asked(version, f'"of-something-else", {tags[version]}')
        if own.status != 304 or own.content or own.headers.get("etag") != tags[version]:
            differs(
                did=f"{own.did}, with that page's own tag, {tags[version]}",
                got=f"{shown(own)}, ETag: {own.headers.get('etag', 'none')}",
                expected=f"304 with ETag: {tags[version]}, and no body",
                matters="Who has the page already is sent it each time.",
            )


# --- The end of the first version -------------------------------------------------------------------------------------


def links(answer: Answer) -> Mapping[str, str]:
    """Where the answer's Link leads, for each relation, as of RFC 8288."""
    found: dict[str, str] = {}
    for target, parameters in re.findall(
        r"<([^>]*)>((?:\s*;\s*[^,;\"]+(?:\"[^\"]*\")?)*)", answer.headers.get("link", "")
    ):
        relation = re.search(r"""rel\s*=\s*(?:"([^"]*)"|([^\s;,]+))""", parameters)
        for name in ((relation[1] or relation[2]) if relation else "").split():
            found.setdefault(name.lower(), target)
    return found


def told(answer: Answer) -> str:
    """What an answer says of its version's end."""
    return "; ".join(f"{name.title()}: {answer.headers.get(name, 'missing')}" for name in TOLD)


WEEKDAYS = r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun)"


def is_told(answer: Answer) -> None:
    """The answer says when its version was deprecated and when it will be gone, each in its own form."""
    deprecation, sunset = (answer.headers.get(name, "") for name in TOLD)
    did, expected = answer.did, "; ".join(f"{name.title()}: {value}" for name, value in TOLD.items())
    if deprecation in {"true", "?1"}:
        wrong("deprecation_is_true", did=did, got=told(answer), expected=expected)
    if re.match(WEEKDAYS, deprecation):
        wrong("deprecation_is_an_http_date", did=did, got=told(answer), expected=expected)
    if re.match(r"\d{4}-\d\d-\d\d", sunset):
        wrong("sunset_in_iso", did=did, got=told(answer), expected=expected)
    if sunset == f"{SUNSET:%a, %d %b %Y %H:%M:%S} GMT":
        wrong("local_time_called_gmt", did=did, got=told(answer), expected=expected)
    if (deprecation, sunset) != tuple(TOLD.values()):
        differs(
            did=did,
            got=f"{answer.status} with {told(answer)}",
            expected=f"{expected} for {DEPRECATED.isoformat()} and {SUNSET.isoformat()}",
            matters="A program that watches for these two is the only reader that some integrations still have.",
        )


def test_v1_says_that_it_will_go(shop: Shop, things: Things) -> None:
    """Every answer of v1 says when it was deprecated and when it will be gone, whatever its status."""
    page = require(shop, Request("GET", f"/v1/orders/{things.shipped}"), 200)
    is_told(page)
    kept = {"If-None-Match": page.headers.get("etag", "")}
    refused = {
        304: Request("GET", f"/v1/orders/{things.shipped}", headers=kept),
        201: basket(things, 1),
        401: Request("GET", "/v1/back-office/categories/Lighting"),
        422: basket(things, 1, quantity=0),
        404: Request("GET", f"/v1/orders/{ABSENT}"),
    }
    answers = [require(shop, request, status) for status, request in refused.items()]
    answers += [shop.get("/v1/nowhere"), shop.ask(Request("DELETE", "/v1/orders"))]
    silent = [answer for answer in answers if answer.headers.get("deprecation") is None]
    names = ", ".join(f"{answer.status} ({answer.did})" for answer in silent)
    if silent and {answer.status for answer in silent} >= {401, 422}:
        wrong(
            "announced_on_success_only",
            did=f"{page.did}, and {len(answers)} others",
            got=f"nothing in {names}",
            expected="in all",
        )
    if {answer.did for answer in silent} == {"GET /v1/nowhere", "DELETE /v1/orders"}:
        wrong(
            "announced_where_a_route_was_found",
            did=f"{page.did}, and {len(answers)} others",
            got=f"nothing in {names}",
            expected="in all",
        )
    for answer in answers:
        is_told(answer)


def test_nothing_else_says_so(shop: Shop, start: StartShop, things: Things) -> None:
    """Nothing but v1 says that it will go: not v2, no probe, no unknown version; nor v1 while nobody has said so."""
    others = (
        "/livez",
        "/readyz",
        "/metrics",
        f"/v2/orders/{things.shipped}",
        "/v2/nowhere",
        "/v3/orders",
        "/v10/orders",
    )
    loud = [answer for answer in (shop.get(path) for path in others) if answer.headers.keys() & TOLD.keys()]
    if loud:
        got = "\n".join(f"{answer.did}: {answer.status} with {told(answer)}" for answer in loud)
        wrong("announced_everywhere", did=", ".join(others), got=got, expected="neither header in any of them")
    with start(V1_DEPRECATED_AT="", V1_SUNSET_AT="", V1_MIGRATION_GUIDE="") as quiet:
        answer = quiet.get(f"/v1/orders/{things.shipped}")
        if answer.status != 200 or answer.headers.keys() & (TOLD.keys() | {"link"}):
            differs(
                did=f"{answer.did}, without V1_DEPRECATED_AT",
                got=f"{answer.status} with {told(answer)}; Link: {answer.headers.get('link', 'missing')}",
                expected="200 with none of these headers",
                matters="Nobody has decided yet that v1 will go. Its users would begin to move.",
            )


def test_the_day_is_not_known_yet(start: StartShop, things: Things) -> None:
    """v1 is deprecated, the day of its end is not set: Deprecation alone, also to who has asked too much."""
    limit = {"RATE_LIMIT_PER_ADDRESS": "2", "RATE_LIMIT_WINDOW_SECONDS": "1000000000"}
    with start(V1_SUNSET_AT="", V1_MIGRATION_GUIDE="", **limit) as shop:
        answers = [shop.get(f"/v1/orders/{things.shipped}") for _ in range(3)]
    for answer in answers:
        if answer.headers.get("deprecation") != TOLD["deprecation"] or "sunset" in answer.headers:
            differs(
                did=f"{answer.did}, with V1_DEPRECATED_AT and without V1_SUNSET_AT",
                got=f"{answer.status} with {told(answer)}",
                expected=f"Deprecation: {TOLD['deprecation']}, and no Sunset",
                matters="That v1 will go is known before the day is. Whoever asks too much has to know it, too.",
            )
    statuses = [answer.status for answer in answers]
    if (statuses[0], statuses[-1]) != (200, 429):
        differs(
            did=f"{answers[0].did}, three times, with RATE_LIMIT_PER_ADDRESS=2",
            got=statuses,
            expected="200 first, and 429 at last",
            matters="Who has asked too much must be refused, in every version.",
        )


def test_an_unknown_version_is_not_there(shop: Shop) -> None:
    """A version that there is not is 404, and not another version."""
    for path in ("/v3/orders", "/v0/orders", "/v10/orders", "/latest/orders", "/orders"):
        answer = shop.get(path)
        if answer.status != 404:
            differs(
                did=answer.did,
                got=shown(answer),
                expected="404: there is no such version",
                matters="Whoever is answered here by v2 today has made v3 a name of it, and v3 cannot come.",
            )


def test_where_to_go(shop: Shop, things: Things) -> None:
    """v1's answers lead to the same thing in v2, and to the guide."""
    for request in (
        Request("GET", f"/v1/orders/{things.shipped}"),
        Request("GET", f"/v1/orders/{ABSENT}"),
        basket(things, 1, quantity=0),
    ):
        answer = shop.ask(request)
        found = links(answer)
        successor = urlsplit(urljoin(f"http://shop{request.address}", found.get("successor-version", ""))).path
        got = f"Link: {answer.headers.get('link', 'missing')}"
        expected = request.address.replace("/v1/", "/v2/")
        if "successor-version" in found and successor.rstrip("/") in {"", "/v2"}:
            wrong(
                "successor_is_the_front_page",
                did=answer.did,
                got=got,
                expected=f'<{expected}>; rel="successor-version"',
            )
        if "successor-version" not in found or successor != expected:
            differs(
                did=answer.did,
                got=got,
                expected=f'<{expected}>; rel="successor-version"',
                matters="Whoever must move has to look for where, each time.",
            )
        if {found.get(name) for name in ("deprecation", "sunset")} != {GUIDE}:
            differs(
                did=answer.did,
                got=got,
                expected=f'<{GUIDE}> with the relations "deprecation" and "sunset" (V1_MIGRATION_GUIDE)',
                matters="A date says when. The guide says what to do.",
            )


@contextmanager
def after_sunset(shop: Shop) -> Iterator[None]:
    """Have the shop's clock stand a minute after the end of v1 while the block runs."""
    ahead = (SUNSET - datetime.now(UTC)).total_seconds() + 60
    shop.turn_clock(ahead)
    try:
        yield
    finally:
        shop.turn_clock(-ahead)


def test_after_sunset(shop: Shop, things: Things, database: Connection) -> None:
    """From its sunset on v1 is 410, does nothing, and still says where to go; v2 and the probes work on."""
    before = database.scalar(text(ORDERS))
    requests: Sequence[Request] = (
        Request("GET", f"/v1/orders/{things.shipped}"),
        basket(things, 1),
        Request("GET", "/v1/nowhere"),
    )
    with after_sunset(shop):
        answers = [shop.ask(request) for request in requests]
        went_on = [shop.get(path) for path in (f"/v2/orders/{things.shipped}", "/livez")]
    ordered = database.scalar(text(ORDERS)) != before
    did = f"{', '.join(answer.did for answer in answers)}, a minute after V1_SUNSET_AT"
    got = ", ".join(str(answer.status) for answer in answers)
    statuses = {answer.status for answer in answers}
    if statuses == {410} and ordered:
        wrong("gone_after_the_work", did=did, got=f"{got}; and an order was placed", expected="410, and no order")
    if answers[0].status == 404:
        wrong("gone_is_404", did=did, got=got, expected="410 each time")
    if answers[0].status == 200:
        wrong("sunset_read_once", did=did, got=got, expected="410 each time")
    if statuses != {410}:
        differs(did=did, got=got, expected="410 each time", matters="It is gone, and it is gone for good.")
    for answer in answers:
        is_told(answer)
    if links(answers[0]).get("successor-version", "") == "" or GUIDE not in answers[0].headers.get("link", ""):
        differs(
            did=answers[0].did,
            got=f"410 with Link: {answers[0].headers.get('link', 'missing')}",
            expected="the links that it had before",
            matters="This is the answer that people will read.",
        )
    for answer in went_on:
        if answer.status != 200:
            differs(did=answer.did, got=shown(answer), expected=200, matters="v1 is gone, and nothing else.")
    back = shop.get(f"/v1/orders/{things.shipped}")
    if back.status != 200:
        differs(
            did=f"{back.did}, the clock set right again",
            got=shown(back),
            expected="200: its day has not come",
            matters="Clocks are corrected. What a wrong one has decided must not stay.",
        )
