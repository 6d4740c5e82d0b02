"""Checks of `api/resources`.

They create, read, change and withdraw products over HTTP, at two processes of the shop with one cache between them, and
compare what is answered with what the database holds. Races are forced: a trigger holds back the commits of products
until others have gone as far as they can. None of them looks at the file. The first check that fails is what the
learner reads, so a check stands where what it needs has been checked before.
"""

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from sqlalchemy import Connection, Row, text

from shopfloor.checks import waiting
from shopfloor.checks.judge import StartShop
from shopfloor.checks.logged import logged_error
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.checks.statements import run_all

Json = dict[str, Any]

PATIENCE = 1.5  # seconds until what must happen at once has not happened
until = partial(waiting.until, patience=PATIENCE)
OTHERS_TAG = '"of-another-thing"'
ABSENT = UUID(int=0xABCDEF)
NUMBERS = count(1)


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    """A shop that waits for a slow machine's cache."""
    return {"CACHE_TIMEOUT_SECONDS": "4"}


@pytest.fixture(scope="session")
def other(start: StartShop) -> Iterator[Shop]:
    """A second worker: the same database and the same Valkey."""
    with start() as shop:
        yield shop


# --- What the database says -------------------------------------------------------------------------------------------

PRODUCT = """
SELECT p.*, c.name AS category, on_hand, on_hand - reserved AS free
FROM products p JOIN categories c ON c.id = p.category_id LEFT JOIN stock ON product_id = p.id
WHERE public_id = CAST(:id AS uuid)
"""
BY_SKU = "SELECT count(*) FROM products WHERE sku = :sku"
CATEGORIES = "SELECT name FROM categories ORDER BY id LIMIT 2"
ORDERED = """
SELECT p.public_id::text AS product, max(o.public_id::text) AS order
FROM products p JOIN order_items i ON i.product_id = p.id JOIN orders o ON o.id = i.order_id
WHERE withdrawn_at IS NULL GROUP BY p.id ORDER BY count(*) DESC LIMIT 1
"""
EVENTS = """
SELECT e.version, action FROM product_events e JOIN products p ON p.id = e.product_id
WHERE public_id = CAST(:id AS uuid) ORDER BY e.version, e.id
"""
RESERVE = """
UPDATE stock SET on_hand = on_hand + 1 WHERE product_id = (SELECT id FROM products WHERE public_id = CAST(:id AS uuid))
"""


def row_of(database: Connection, product: str) -> Row[Any] | None:
    """A product as the database has it, with its category and its stock."""
    return database.execute(text(PRODUCT), {"id": product}).one_or_none()


def page_of(database: Connection, product: str) -> Json:
    """A product's page as it should be."""
    row = row_of(database, product)
    assert row is not None
    return {
        "id": str(row.public_id),
        "sku": row.sku,
        "name": row.name,
        "category": row.category,
        "price": {"amount": row.price_amount, "currency": row.currency},
        "attributes": row.attributes,
        "available": 0 if row.withdrawn_at else max(row.free, 0),
        "withdrawn": row.withdrawn_at is not None,
        "version": row.version,
    }


def events_of(database: Connection, product: str) -> list[tuple[int, str]]:
    """What was written down of a product: the version, and what was done."""
    return [(row.version, row.action) for row in database.execute(text(EVENTS), {"id": product})]


# --- What is asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """A product that a check has made.

    Attributes:
        id: its public id.
        path: its address.
        sent: what it was made from.
        answer: what the shop said to that.
    """

    id: str
    path: str
    sent: Json
    answer: Answer


@pytest.fixture(scope="session")
def categories(database: Connection) -> Sequence[str]:
    """Two shelves."""
    return database.scalars(text(CATEGORIES)).all()


@pytest.fixture
def new(categories: Sequence[str]) -> Json:
    """A product that there is not yet."""
    return {
        "sku": f"CHECK-{next(NUMBERS)}",
        "name": "A kettle",
        "category": categories[0],
        "price": {"amount": 2950, "currency": "EUR"},
        "attributes": {"colour": "red", "tags": ["new"]},
    }


@pytest.fixture
def made(shop: Shop, new: Json) -> Made:
    """A product of the check's own."""
    return make(shop, new)


def make(shop: Shop, new: Json) -> Made:
    """Make a product."""
    answer = shop.ask(Request("POST", "/v1/products", new))
    require(shop, answer, 201)
    path = f"/v1/products/{answer.body['id']}"
    return Made(answer.body["id"], path, new, answer)


def tag_of(shop: Shop, path: str) -> str:
    """The tag of a page as it is now."""
    answer = shop.get(path)
    require(shop, answer, 200)
    return answer.headers["etag"]


def asked_with(shop: Shop, path: str, tag: str) -> Answer:
    """Ask for a page of which one has a state already."""
    return shop.ask(Request("GET", path, headers={"If-None-Match": tag}))


def patch(path: str, tag: str | None, **changes: Any) -> Request:
    """A change by whoever has seen the state of this tag."""
    return Request("PATCH", path, changes, {} if tag is None else {"If-Match": tag})


def put(path: str, tag: str | None, body: Json) -> Request:
    """A replacement, likewise."""
    return Request("PUT", path, body, {} if tag is None else {"If-Match": tag})


def delete(path: str, tag: str | None = None) -> Request:
    """A withdrawal; no tag: whatever its state."""
    return Request("DELETE", path, headers={} if tag is None else {"If-Match": tag})


# --- The checks: what is made -----------------------------------------------------------------------------------------


def test_a_product_is_made(shop: Shop, new: Json, database: Connection) -> None:
    """A product that is created has an address, which the answer names, and is there; no internal id is told."""
    made = make(shop, new)
    location = made.answer.headers.get("location", "")
    if urlsplit(location).path != made.path or not is_uuid(made.id):
        _recognise_internal_ids(made.answer)
        wrong(
            "created_without_an_address",
            did=made.answer.did,
            got=f"201 with {f'Location: {location}' if location else 'no Location'}, and the id {made.id!r}",
            expected="a Location that is the address of the new product, and its public id in the body",
        )
    _recognise_internal_ids(made.answer)
    row = row_of(database, made.id)
    if row is None or row.on_hand != 0:
        differs(
            did=made.answer.did,
            got="201, and in the database " + ("no such product" if row is None else f"a stock of {row.on_hand}"),
            expected="the product, and a row of stock with none on hand",
            matters="Without its row of stock, the first order of the product is an error.",
        )
    page = page_of(database, made.id)
    as_sent = {name: page[name] for name in new}
    if as_sent != new:
        differs(did=made.answer.did, got=excerpt(as_sent), expected=excerpt(new), matters="It is not what was sent.")
    same(made.answer, page)
    shown = shop.get(location)
    require(shop, shown, 200)
    same(shown, page)


def test_a_duplicate_is_a_conflict(shop: Shop, made: Made, database: Connection) -> None:
    """A second product with the same sku is refused with 409, and nothing is written."""
    answer = shop.ask(Request("POST", "/v1/products", made.sent | {"name": "Another kettle"}))
    if 200 <= answer.status < 300:
        there = database.scalar(text(BY_SKU), {"sku": made.sent["sku"]})
        wrong(
            "says_ok_to_a_failure",
            did=f"{answer.did}, twice with the same sku",
            got=f"{answer.status} to the second: {excerpt(answer.body)}; in the database {there} product of that sku",
            expected="409: it was not created",
        )
    require(shop, answer, 409)


def test_what_is_not_acceptable_is_refused(shop: Shop, new: Json, database: Connection) -> None:
    """What is no product is refused with 422, and nothing is written."""
    for wrong_part in ({"category": "There is no such shelf"}, {"price": {"amount": -1, "currency": "EUR"}}, {"id": 7}):
        answer = shop.ask(Request("POST", "/v1/products", new | wrong_part))
        require(shop, answer, 422, with_what=wrong_part)
    if database.scalar(text(BY_SKU), {"sku": new["sku"]}):
        differs(did="POST /v1/products, refused", got="a product", expected="none", matters="A refusal is a promise.")


def test_two_make_one(shop: Shop, other: Shop, new: Json, database: Connection) -> None:
    """Of two who create the same sku at the same moment, one creates it, and the other is told 409."""
    request = Request("POST", "/v1/products", new)
    answers = race(database, (shop, request), (other, request))
    did = "POST /v1/products, twice at once with the same sku, the first's COMMIT held back until the second waited"
    statuses = sorted(answer.status for answer in answers)
    if 500 in statuses:
        wrong(
            "looks_before_it_inserts",
            did=did,
            got=f"{statuses}{logged_error(other)}",
            expected="[201, 409]",
        )
    if statuses != [201, 409]:
        differs(
            did=did, got=statuses, expected="[201, 409]", matters="Both are told something, and one of it is not so."
        )


def test_all_of_it_is_made_or_nothing(shop: Shop, new: Json, database: Connection) -> None:
    """When a part of creating a product fails, nothing of it is left."""
    for table in ("stock", "product_events"):
        sent = new | {"sku": f"{new['sku']}-{table.replace('_', '-').upper()}"}
        with refusing(database, table):
            answer = shop.ask(Request("POST", "/v1/products", sent))
        if database.scalar(text(BY_SKU), {"sku": sent["sku"]}):
            wrong(
                "created_in_pieces" if table == "stock" else "history_in_a_transaction_of_its_own",
                did=f"{answer.did}, while the database refused to write to {table}",
                got=f"{answer.status}, and the product is there without its row in {table}",
                expected="no product: one transaction for all",
            )


# --- What is read -----------------------------------------------------------------------------------------------------


def test_what_one_has_is_not_sent_again(shop: Shop, made: Made) -> None:
    """A page has a tag, and who has that state of it already is told 304 and sent nothing."""
    answer = shop.get(made.path)
    require(shop, answer, 200)
    tag = answer.headers.get("etag", "")
    if not re.fullmatch(r'"[^"]*"', tag):
        differs(
            did=answer.did,
            got=f"ETag: {tag}" if tag else "no ETag",
            expected='a strong one, such as "a1b2c3": it is compared by If-Match, which knows no weak tags',
            matters="Without a tag nobody can ask whether what he has is still so, nor say what he has seen.",
        )
    for given in (tag, f"W/{tag}", f"{OTHERS_TAG}, {tag}", "*"):
        again = asked_with(shop, made.path, given)
        did = f"{again.did} with If-None-Match: {given}"
        if again.status == 200 and given != tag:
            wrong("compares_the_header_as_text", did=did, got="200, and all of the page", expected="304")
        if again.status != 304 or again.body:
            differs(
                did=did,
                got=f"{again.status}, and a body of {len(str(again.body))} characters",
                expected="304, and no body",
                matters="Who has the page is sent it again, over whatever line he is on.",
            )
        if again.headers.get("etag") != tag:
            differs(
                did=did,
                got=f"304 with ETag: {again.headers.get('etag')}",
                expected=f"the tag that the page has, {tag}",
                matters="A cache takes it for the tag of what it has stored.",
            )
    require(shop, asked_with(shop, made.path, OTHERS_TAG), 200)


def test_what_one_has_is_not_believed(shop: Shop, made: Made) -> None:
    """Whoever keeps a page asks each time whether it is still so."""
    answer = shop.get(made.path)
    said = directives(answer)
    fresh = [said.get(name) for name in ("max-age", "s-maxage") if said.get(name) not in {None, "0"}]
    if fresh and "no-cache" not in said and "no-store" not in said:
        wrong(
            "answers_without_being_asked",
            did=answer.did,
            got=f"Cache-Control: {answer.headers['cache-control']}",
            expected="no-cache: keep it, and ask each time (or max-age=0, must-revalidate)",
        )
    if not said.keys() & {"no-cache", "no-store"} and said.get("max-age") != "0":
        differs(
            did=answer.did,
            got=f"Cache-Control: {answer.headers.get('cache-control', '(none)')}",
            expected="no-cache: keep it, and ask each time (or max-age=0, must-revalidate)",
            matters="Who is told nothing guesses how long a page is good: RFC 9111 allows caches a heuristic.",
        )


def test_a_tag_stands_for_all_that_is_shown(shop: Shop, made: Made, database: Connection) -> None:
    """When anything on the page is other, the tag is another: also when only the stock is."""
    before = tag_of(shop, made.path)
    database.execute(text(RESERVE), {"id": made.id})
    answer = asked_with(shop, made.path, before)
    if answer.status == 304:
        wrong(
            "tag_of_the_version_alone",
            did=f"{made.path}, then one more of it on hand, then again with If-None-Match: {before}",
            got="304: it is still so. The page that whoever asked has says that none can be had",
            expected="200, with available: 1",
        )
    require(shop, answer, 200)
    same(answer, page_of(database, made.id))
    for _ in range(2):
        if tag_of(shop, made.path) != answer.headers["etag"]:
            differs(
                did=f"{made.path}, several times, and nothing changed",
                got="another ETag each time",
                expected="the same",
                matters="No one is ever told 304, and no change that names a tag is ever made.",
            )


def test_an_order_is_its_customers(shop: Shop, database: Connection) -> None:
    """An order can be kept and asked for again like a product, but by no cache that others share."""
    path = f"/v1/orders/{database.execute(text(ORDERED)).one().order}"
    answer = shop.get(path)
    require(shop, answer, 200)
    said = directives(answer)
    if not said.keys() & {"private", "no-store"}:
        evidence = {
            "did": answer.did,
            "got": f"Cache-Control: {answer.headers.get('cache-control', '(none)')}",
            "expected": "private, no-cache (or no-store)",
        }
        if said:
            wrong("orders_in_shared_caches", **evidence)
        differs(
            **evidence, matters="A shared cache may keep whatever does not say otherwise, here a name and an order."
        )
    if "no-store" not in said:
        require(shop, asked_with(shop, path, answer.headers.get("etag", OTHERS_TAG)), 304)


# --- What is changed --------------------------------------------------------------------------------------------------


def test_a_change_says_what_it_has_seen(shop: Shop, made: Made, database: Connection) -> None:
    """A change that does not say which state it is of is refused with 428."""
    for request in (patch(made.path, None, name="A pot"), put(made.path, None, made.sent | {"name": "A pot"})):
        answer = shop.ask(request)
        if answer.status == 200:
            wrong(
                "condition_is_optional",
                did=f"{answer.did} without If-Match",
                got="200: changed, whatever its state was",
                expected="428: say in If-Match what you have seen",
            )
        require(shop, answer, 428)
        unchanged(database, made, answer)
    for request in (patch(f"/v1/products/{ABSENT}", OTHERS_TAG, name="A pot"), delete(f"/v1/products/{ABSENT}")):
        require(shop, shop.ask(request), 404)


def test_a_change_shows_everywhere(shop: Shop, other: Shop, made: Made, database: Connection) -> None:
    """A change is in the database, in its answer, and on the page of every worker, under one tag."""
    before = page_of(database, made.id)
    for each in (shop, other):
        tag = tag_of(each, made.path)  # from then on it is in the cache
    changed = shop.ask(patch(made.path, tag, name="A jug", price_amount=990))
    require(shop, changed, 200)
    expected = {"name": "A jug", "price": {"amount": 990, "currency": "EUR"}, "version": before["version"] + 1}
    truth = page_of(database, made.id)
    if truth != before | expected:
        differs(
            did=changed.did,
            got=excerpt(truth),
            expected=excerpt(before | expected),
            matters="Every change is one version further, and changes what was asked for and nothing else.",
        )
    pages = [each.get(made.path) for each in (shop, other)]
    for answer in pages:
        if answer.status == 200 and answer.body != truth and answer.body == before:
            wrong(
                "commits_past_the_cache",
                did=f"{changed.did}, then {answer.did}",
                got=f"name: {answer.body['name']}, version: {answer.body['version']}, from the cache",
                expected=f"name: {truth['name']}, version: {truth['version']}, as the database has it",
            )
        same(answer, truth)
    same(changed, truth)
    for answer in (changed, pages[1]):
        if answer.headers.get("etag", pages[0].headers["etag"]) != pages[0].headers["etag"]:
            differs(
                did=f"{changed.did}, then {made.path} at two workers",
                got=f"the tags {answer.headers['etag']} and {pages[0].headers['etag']} for the same state",
                expected="one",
                matters="With the tag of the answer, the next change is refused.",
            )


def test_a_change_of_another_state_is_refused(shop: Shop, made: Made, database: Connection) -> None:
    """A change of a state that is no longer so is refused with 412; one of the current state is made."""
    tag = tag_of(shop, made.path)
    require(shop, shop.ask(patch(made.path, tag, name="A pan")), 200)
    kept = page_of(database, made.id)
    stale = (
        patch(made.path, tag, price_amount=1),
        put(made.path, tag, made.sent),
        patch(made.path, f"W/{tag_of(shop, made.path)}", price_amount=1),  # a weak tag is never strongly equal
        delete(made.path, tag),
    )
    for request in stale:
        answer = shop.ask(request)
        if request.method == "DELETE" and answer.status == 204:
            wrong(
                "withdraws_what_was_not_seen",
                did=f"{answer.did} with If-Match: the tag of an earlier state",
                got="204: withdrawn",
                expected="412: whoever decided that has seen something else",
            )
        require(shop, answer, 412, with_what={"If-Match": request.headers["If-Match"]})
        unchanged(database, made, answer, kept)
    require(shop, shop.ask(patch(made.path, f"{OTHERS_TAG}, {tag_of(shop, made.path)}", price_amount=300)), 200)
    require(shop, shop.ask(patch(made.path, "*", price_amount=301)), 200)


def test_put_replaces(shop: Shop, made: Made, new: Json, categories: Sequence[str], database: Connection) -> None:
    """PUT sets all that a caller decides: what it does not name is empty afterwards."""
    taken = make(shop, new | {"sku": f"{new['sku']}-TAKEN"}).sent["sku"]
    body = {"sku": f"{made.sent['sku']}-2", "name": "A can", "category": categories[1], "price": made.sent["price"]}
    require(shop, shop.ask(put(made.path, tag_of(shop, made.path), {"name": "A can"})), 422)
    answer = shop.ask(put(made.path, tag_of(shop, made.path), body))
    require(shop, answer, 200)
    page = page_of(database, made.id)
    if page["attributes"] == made.sent["attributes"]:
        wrong(
            "put_merges",
            did=f"{answer.did} without attributes",
            got=f"attributes: {excerpt(page['attributes'])}, as they were",
            expected="attributes: {}. The body is what the product is to be, not what is to be other about it",
        )
    as_sent = {name: page[name] for name in body}
    if as_sent != body:
        differs(did=answer.did, got=excerpt(as_sent), expected=excerpt(body), matters="It is not what was sent.")
    same(answer, page)
    if answer.headers.get("etag", tag_of(shop, made.path)) != tag_of(shop, made.path):
        differs(did=answer.did, got="a tag that its page has not", expected="that or none", matters="It is of no use.")
    require(shop, shop.ask(put(made.path, tag_of(shop, made.path), body | {"sku": taken})), 409)


def test_no_change_is_lost(shop: Shop, other: Shop, made: Made, database: Connection) -> None:
    """Of two who change the same state at the same moment, one does; the other is told 412."""
    for second in (shop, other):
        tag = tag_of(shop, made.path)
        first, late = patch(made.path, tag, name="The first's"), patch(made.path, tag, price_amount=1)
        answers = race(database, (shop, first), (second, late))
        statuses = [answer.status for answer in answers]
        if statuses == [200, 200]:
            _recognise_lost_change(answers, shop, second, page_of(database, made.id))
        if sorted(statuses) != [200, 412]:
            differs(
                did=f"{first}, twice at once with the same If-Match",
                got=f"{statuses}{logged_error(second) if 500 in statuses else ''}",
                expected="[200, 412]",
                matters="Two decided on the same state, and each was told something that has to be so.",
            )


def _recognise_lost_change(answers: Sequence[Answer], shop: Shop, second: Shop, page: Json) -> None:
    where = "one worker" if second is shop else "two workers"
    now = f"version {page['version']}, name: {page['name']}, price: {page['price']['amount']}"
    evidence = {
        "did": f"{answers[0].did}, twice at once at {where} with one If-Match, the first's COMMIT held back until the"
        " second had read",
        "got": f"200 and 200; in the database {now}",
        "expected": "200 and 412: the second decided on a state that was no longer so",
    }
    if second is not shop:
        wrong("lock_in_one_process", **evidence)
    if any("FOR UPDATE" in statement.sql.upper() for statement in second.database.statements):
        wrong("lock_keeps_what_was_read", **evidence)
    wrong("compares_then_writes", **evidence)


# --- What is withdrawn ------------------------------------------------------------------------------------------------


def test_what_was_ordered_stays_ordered(shop: Shop, database: Connection) -> None:
    """A product that is deleted is withdrawn: it is gone from the catalogue, and old orders still show it."""
    product, order = database.execute(text(ORDERED)).one()
    path, orders_path = f"/v1/products/{product}", f"/v1/orders/{order}"
    tag, ordered = tag_of(shop, path), shop.get(orders_path).body
    answer = shop.ask(delete(path))
    if row_of(database, product) is None:
        items = len(shop.get(orders_path).body.get("items", []))
        wrong(
            "deletes_the_history",
            did=f"{answer.did}, a product that has been ordered; then GET {orders_path}",
            got=f"{answer.status}, and the order has {items} items where it had {len(ordered['items'])}; its total is"
            " what it was",
            expected="204, and the order as it was",
        )
    require(shop, answer, 204)
    again = shop.get(orders_path)
    require(shop, again, 200)
    same(again, ordered)
    _is_gone(shop, database, path, product, tag)


def test_what_was_never_ordered_goes_the_same_way(shop: Shop, other: Shop, made: Made, database: Connection) -> None:
    """A product that nobody ordered is withdrawn likewise, also for who names the state that he has seen."""
    tag = tag_of(other, made.path)
    require(shop, shop.ask(delete(made.path, tag)), 204)
    _is_gone(other, database, made.path, made.id, tag)
    answer = shop.ask(Request("POST", "/v1/products", made.sent))
    require(shop, answer, 409, with_what={"sku": "that of a withdrawn product"})


def _is_gone(shop: Shop, database: Connection, path: str, product: str, tag: str) -> None:
    row = row_of(database, product)
    if row is None or row.withdrawn_at is None:
        differs(
            did=f"DELETE {path}",
            got="204, and the product's row is " + ("gone" if row is None else "not withdrawn"),
            expected="the row with withdrawn_at",
            matters="Who looks after the catalogue wants to know what was sold, and under which name.",
        )
    answer = shop.get(path)
    if answer.status == 200:
        wrong(
            "withdrawn_and_still_there",
            did=f"DELETE {path}, then {answer.did}",
            got=f"200, withdrawn: {str(answer.body.get('withdrawn')).lower()}",
            expected="410, or 404",
        )
    allowed(shop, answer, 404, 410)
    allowed(shop, shop.ask(delete(path)), 204, 404, 410)
    for request in (patch(path, tag, name="It is back"), put(path, "*", {})):
        allowed(shop, shop.ask(request), 404, 410, 412, 422)
    after = row_of(database, product)
    if after is None or (after.name, after.withdrawn_at) != (row.name, row.withdrawn_at):
        differs(
            did=f"DELETE {path}, then a change of it",
            got="another name, or no longer withdrawn",
            expected="as it was withdrawn",
            matters="What is gone can be changed by nobody who does not see that it is.",
        )


# --- What is written down ---------------------------------------------------------------------------------------------


def test_every_change_is_written_down(shop: Shop, made: Made, database: Connection) -> None:
    """Each version of a product has its row in product_events; what was refused has none."""
    require(shop, shop.ask(patch(made.path, tag_of(shop, made.path), name="Another name")), 200)
    require(shop, shop.ask(patch(made.path, OTHERS_TAG, name="A name of nothing")), 412)
    require(shop, shop.ask(put(made.path, tag_of(shop, made.path), made.sent)), 200)
    require(shop, shop.ask(delete(made.path)), 204)
    events, expected = events_of(database, made.id), [(1, "created"), (2, "changed"), (3, "replaced"), (4, "withdrawn")]
    if events != expected:
        differs(
            did=f"POST, PATCH, a PATCH that was refused, PUT and DELETE of {made.path}",
            got=f"in product_events {events}",
            expected=f"{expected}",
            matters="Somebody will ask who made it cost one cent, and since when.",
        )


def test_what_is_written_down_is_so(shop: Shop, made: Made, database: Connection) -> None:
    """A change and its event are one: neither is there without the other."""
    tag = tag_of(shop, made.path)
    for table, event in (("product_events", False), ("products", True)):
        with refusing(database, table, at_commit=event):
            answer = shop.ask(patch(made.path, tag, name="A name that is not written down"))
        changed = page_of(database, made.id)["name"] != made.sent["name"]
        if changed or events_of(database, made.id) != [(1, "created")]:
            wrong(
                "history_in_a_transaction_of_its_own",
                did=f"{answer.did}, while the database refused {'the commit' if event else 'the event'}",
                got=f"{answer.status}; the product was {'' if changed else 'not '}changed, and in product_events is"
                f" {events_of(database, made.id)}",
                expected="neither: one transaction for both",
            )
        if answer.status < 500:
            differs(did=answer.did, got=answer.status, expected="500", matters="It was not done.")
    require(shop, shop.get(made.path), 200)


# --- Mistakes, recognised by what only they do ------------------------------------------------------------------------


def _recognise_internal_ids(answer: Answer) -> None:
    """An id that is a number, or a key of another table."""
    told = [
        name for name, value in answer.body.items() if name.endswith("_id") or (name == "id" and not is_uuid(value))
    ]
    if told:
        wrong(
            "internal_ids_leave_the_shop",
            did=answer.did,
            got=", ".join(f"{name}: {answer.body[name]}" for name in told),
            expected="the public id, and the category by its name",
        )


# --- Holding things back ----------------------------------------------------------------------------------------------

WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
HOLD_COMMITS = """
CREATE OR REPLACE FUNCTION hold_commit() RETURNS trigger LANGUAGE plpgsql
AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER hold_commit AFTER INSERT OR UPDATE ON products DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION hold_commit();
SELECT pg_advisory_lock(4711)
"""
RELEASE_COMMITS = "SELECT pg_advisory_unlock(4711)"
FORGET_HOLDING = "DROP TRIGGER hold_commit ON products"
REFUSE = """
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
AS 'BEGIN RAISE EXCEPTION ''refused by a check''; END';
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON {table} DEFERRABLE {when}
FOR EACH ROW EXECUTE FUNCTION refuse()
"""


def race(database: Connection, *askers: tuple[Shop, Request]) -> list[Answer]:
    """Have two ask at once: the first is held at its commit until the second waits, or has been answered."""
    (first, asked_first), (second, asked_second) = askers
    run_all(database, HOLD_COMMITS)
    with ThreadPoolExecutor(2) as threads:
        try:
            one = threads.submit(first.ask, asked_first)
            until(lambda: one.done() or database.scalar(text(WAITING)) >= 1)
            two = threads.submit(second.ask, asked_second)
            # who waits for a lock of the shop's own does not show here
            until(lambda: two.done() or database.scalar(text(WAITING)) >= 2, patience=PATIENCE / 3)
        finally:
            run_all(database, RELEASE_COMMITS)
    run_all(database, FORGET_HOLDING)
    return [one.result(), two.result()]


@contextmanager
def refusing(database: Connection, table: str, *, at_commit: bool = False) -> Iterator[None]:
    """Have the database refuse to write to a table while the block runs: at once, or not before the commit."""
    run_all(database, REFUSE.format(table=table, when="INITIALLY DEFERRED" if at_commit else "INITIALLY IMMEDIATE"))
    try:
        yield
    finally:
        run_all(database, f"DROP TRIGGER refuse ON {table}")


# --- Words and small change -------------------------------------------------------------------------------------------


def require(shop: Shop, answer: Answer, status: int, *, with_what: Json | None = None) -> None:
    """Go on if the answer has this status.

    Raises:
        NotRight: it has another; tells the error that the shop logged.
    """
    if answer.status != status:
        differs(
            did=answer.did + (f" with {excerpt(with_what)}" if with_what else ""),
            got=f"{answer.status}{logged_error(shop) if answer.status == 500 else f': {excerpt(answer.body)}'}",
            expected=f"{status} ({MEANING[status]})",
            matters="The status is what programs read: clients, proxies, retries, alerts. The words are for people.",
        )


MEANING = {
    200: "done",
    201: "created",
    204: "done, and there is nothing to say",
    304: "it is as you have it",
    404: "there is none",
    409: "in conflict with what there is",
    412: "it is not as you have said",
    422: "understood, and not acceptable",
    428: "say which state you have seen",
}


def allowed(shop: Shop, answer: Answer, *statuses: int) -> None:
    """Go on if the answer has one of these statuses.

    Raises:
        NotRight: it has another.
    """
    if answer.status not in statuses:
        differs(
            did=f"{answer.did}, which is withdrawn",
            got=f"{answer.status}{logged_error(shop) if answer.status == 500 else ''}",
            expected=f"one of {', '.join(map(str, statuses))}",
            matters="Whoever asks has to learn that it is gone.",
        )


def same(answer: Answer, truth: Json) -> None:
    """Go on if an answer shows what it should.

    Raises:
        NotRight: tells the first name at which it does not.
    """
    shown = answer.body if isinstance(answer.body, dict) else {}
    for name in [*truth, *shown]:
        if name not in truth or shown.get(name) != truth[name]:
            differs(
                did=answer.did,
                got=f"{name}: {excerpt(shown[name])}" if name in shown else f"no {name}: {excerpt(answer.body)}",
                expected=f"{name}: {excerpt(truth[name])}" if name in truth else f"no {name}",
                matters="A product has one shape, whichever request shows it, and shows what the database has.",
            )


def unchanged(database: Connection, made: Made, answer: Answer, page: Json | None = None) -> None:
    """Go on if a product is as it was.

    Raises:
        NotRight: it is not.
    """
    truth = page_of(database, made.id)
    before = page or made.answer.body
    if truth != before:
        differs(
            did=answer.did,
            got=f"{answer.status}, and the product was changed: {excerpt(truth)}",
            expected=f"the product as it was: {excerpt(before)}",
            matters="A refusal is a promise that nothing was done.",
        )


def directives(answer: Answer) -> dict[str, str | None]:
    """What Cache-Control says."""
    said = answer.headers.get("cache-control", "")
    parts = [part.strip().partition("=") for part in said.lower().split(",") if part.strip()]
    return {name: value or None for name, _, value in parts}


def is_uuid(value: object) -> bool:
    """Whether it is one, as text."""
    try:
        return isinstance(value, str) and bool(UUID(value))
    except ValueError:
        return False


def excerpt(value: object) -> str:
    """The beginning of something long."""
    words = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return words if len(words) <= 160 else f"{words[:157]}..."
