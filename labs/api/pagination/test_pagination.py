"""Checks of `api/pagination`.

They leaf through the shop's lists over HTTP, as a client does: from page to page by what the page before says. They
also let PostgreSQL answer once more, with EXPLAIN, the very statements that the shop sent. None of them looks at the
file, or knows what a cursor is made of. The first check that fails is what the learner reads, so a check stands where
what it needs has been checked before.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import Connection, text

from shopfloor.checks.judge import StartShop
from shopfloor.checks.logged import logged_error
from shopfloor.checks.replay import plan_again
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.checks.wire import Statement

Json = dict[str, Any]
Query = dict[str, Any]

LIMIT = 5
STRETCH = 30  # orders in the part of the list that most checks leaf through: full pages, to the last
DEEP = 1500  # entries before a page far down the list
KEY = "a key that every process of a shop has"
REFUSED = {400, 422}

COLUMNS = {"placed_at": "placed_at", "total_amount": "total_amount", "status": "status", "price": "price_amount"}


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    """A shop whose processes share a key."""
    return {"CURSOR_KEY": KEY}


# --- What the database says -------------------------------------------------------------------------------------------

INDEX = "CREATE INDEX orders_newest_first_idx ON orders (placed_at DESC, id DESC)"
RANKED = "SELECT id FROM orders ORDER BY placed_at DESC, id DESC LIMIT :limit OFFSET :offset"
SAME_MOMENT = """
UPDATE orders SET placed_at = (SELECT min(placed_at) FROM orders WHERE id = ANY(:keys)) WHERE id = ANY(:keys)
"""
SAME_MILLISECOND = """
UPDATE orders SET placed_at = first + place * interval '7 microseconds'
FROM (SELECT id AS key, min(placed_at) OVER () AS first, row_number() OVER (ORDER BY md5(id::text)) AS place
      FROM orders WHERE id = ANY(:keys)) AS placed
WHERE id = key
"""
FEW_TOTALS = """
UPDATE orders SET total_amount = 5000 + 100 * (id % 4), status = (ARRAY['paid', 'shipped', 'cancelled'])[1 + id % 3]
WHERE id = ANY(:keys)
"""
BOUNDS = "SELECT min(placed_at), max(placed_at) + interval '1 microsecond' FROM orders WHERE id = ANY(:keys)"
ENTRIES = "SELECT public_id::text FROM orders WHERE placed_at >= :placed_after AND placed_at < :placed_before ORDER BY "
FOR_SALE = "SELECT public_id::text FROM products WHERE withdrawn_at IS NULL"
IN_CATEGORY = "category_id = (SELECT id FROM categories WHERE name = :category)"
HISTORY = """
SELECT o.public_id::text FROM orders o JOIN customers c ON c.id = customer_id WHERE c.public_id::text = :customer
ORDER BY placed_at DESC, o.id DESC
"""
REGULARS = """
SELECT c.public_id::text FROM customers c JOIN orders o ON customer_id = c.id
GROUP BY c.id HAVING count(*) BETWEEN 15 AND 25 ORDER BY c.id LIMIT 2
"""
PLACE = """
INSERT INTO orders (public_id, customer_id, status, placed_at, total_amount, currency)
SELECT gen_random_uuid(), customer_id, 'paid', placed_at + interval '1 microsecond', total_amount, currency
FROM orders WHERE public_id::text = :order RETURNING public_id::text
"""
DELETE = "DELETE FROM orders WHERE public_id::text = :order"
TOTAL = "UPDATE orders SET total_amount = total_amount + :more WHERE public_id::text = :order"
KEY_OF = "SELECT id FROM orders WHERE public_id::text = :order"
KINDS = "SELECT placed_at, total_amount, status FROM orders WHERE public_id::text = :order"


def order_by(sort: str) -> str:
    """The order that `sort` asks for, in SQL: the key comes last, in the direction of what stands before it."""
    keys = [(COLUMNS.get(word.lstrip("+-"), word.lstrip("+-")), word.startswith("-")) for word in sort.split(",")]
    keys.append(("id", keys[-1][1]))
    return ", ".join(f"{column} {'DESC' if descending else 'ASC'}" for column, descending in keys)


@dataclass(frozen=True)
class Stretch:
    """A part of the list of orders, between two moments.

    Attributes:
        query: asks for it.
        together: public ids of orders in it that were placed at the same moment.
        close: of orders that were placed within the same millisecond.
    """

    database: Connection
    query: Query
    together: set[str]
    close: set[str]

    def truth(self, sort: str) -> list[str]:
        """The public ids of its orders as they should come."""
        return list(self.database.scalars(text(ENTRIES + order_by(sort)), self.query))


@pytest.fixture(scope="module")
def stretch(database: Connection) -> Stretch:
    """Thirty orders in the middle of the list: a dozen of the same moment, and a dozen of the same millisecond."""
    keys = list(database.scalars(text(RANKED), {"limit": STRETCH, "offset": 1000}))
    together, close = keys[2:14], keys[15:27]
    database.execute(text(SAME_MOMENT), {"keys": together})
    database.execute(text(SAME_MILLISECOND), {"keys": close})
    database.execute(text(FEW_TOTALS), {"keys": keys})
    database.execute(text(INDEX))
    database.execute(text("ANALYZE orders"))
    first, last = database.execute(text(BOUNDS), {"keys": keys}).one()
    query = {"placed_after": first.isoformat(), "placed_before": last.isoformat()}
    names = text("SELECT public_id::text FROM orders WHERE id = ANY(:keys)")
    made = Stretch(
        database,
        query,
        set(database.scalars(names, {"keys": together})),
        set(database.scalars(names, {"keys": close})),
    )
    assert len(made.truth("-placed_at")) == STRETCH
    return made


@pytest.fixture(scope="module")
def regulars(database: Connection) -> list[str]:
    """Public ids of two customers with some orders each."""
    return list(database.scalars(text(REGULARS)))


# --- Leafing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pages:
    """Pages that were leafed through, in the order in which they came."""

    answers: list[Answer]

    @property
    def ids(self) -> list[list[str]]:
        """The public ids on each."""
        return [ids_of(answer) for answer in self.answers]

    @property
    def all_ids(self) -> list[str]:
        """The public ids on all of them, one after another."""
        return [entry for page in self.ids for entry in page]


def leaf(shop: Shop, path: str, query: Query, towards: str = "next", begin: str | None = None) -> Pages:
    """Leaf through a list until there are no more pages that way, or far too many.

    Args:
        shop: to ask.
        path: of the list.
        query: what is asked for besides the cursor.
        towards: `next` or `prev`.
        begin: the cursor to begin with; None: the first page.
    """
    answers: list[Answer] = []
    cursor = begin
    while len(answers) < 40:
        answers.append(get(shop, path, {**query, **({} if cursor is None else {"cursor": cursor})}))
        cursor = cursor_of(answers[-1], towards)
        if cursor is None:
            break
    return Pages(answers)


@pytest.fixture(scope="module")
def newest(shop: Shop, stretch: Stretch) -> Pages:
    """The stretch from its newest order on."""
    return leaf(shop, "/v1/orders", {**stretch.query, "limit": LIMIT})


# --- The checks -------------------------------------------------------------------------------------------------------


def test_the_first_page_says_how_to_go_on(shop: Shop, stretch: Stretch) -> None:
    """The first page has a cursor for the next page, and none for one before it."""
    answer = get(shop, "/v1/orders", {**stretch.query, "limit": LIMIT})
    meta = answer.body.get("meta", {})
    if not meta.get("next") or not isinstance(meta["next"], str):
        differs(
            did=answer.did,
            got=f"meta {meta}",
            expected="`next` in it: the cursor of the page after this one",
            matters="A client that can only count pages asks for an offset, and the shop reads everything before it.",
        )
    if meta.get("prev") is not None or "prev" not in meta:
        differs(
            did=answer.did,
            got=f"`prev` of the first page: {meta.get('prev', 'nothing of that name')!r}",
            expected="`prev`: null",
            matters="A client shows its button for the page before, and it leads nowhere.",
        )
    same(answer, stretch.truth("-placed_at")[:LIMIT])


def test_next_leads_through_the_list(newest: Pages, stretch: Stretch) -> None:
    """From page to page by `next`, each entry comes once, in order, also where entries tie."""
    truth = stretch.truth("-placed_at")
    _recognise_lost(newest, truth, stretch)
    _recognise_repeated(newest, truth)
    if not newest.ids[-1] and newest.all_ids == truth:
        wrong(
            "next_of_the_last_page",
            did=f"{newest.answers[-2].did}: the last {LIMIT} of {len(truth)} orders, and then its `next`",
            got="a page with nothing on it",
            expected="`next`: null on the last page, also when that is full",
        )
    same_list(newest, truth, "`next`")


def test_prev_leads_back(shop: Shop, newest: Pages, stretch: Stretch) -> None:
    """By `prev` the same pages come again, back to the first."""
    query = {**stretch.query, "limit": LIMIT}
    back = leaf(shop, "/v1/orders", query, "prev", needed(newest.answers[-1], "prev"))
    first, wanted = back.ids[0], newest.ids[-2]
    evidence = {
        "did": f"{newest.answers[-1].did}, the last page, and then its `prev`",
        "expected": "the page before it, in the list's own order",
    }
    if first == wanted[::-1]:
        wrong("prev_page_backwards", got="the right orders, the last of them first", **evidence)
    if sorted(first) == sorted(stretch.truth("-placed_at")[:LIMIT]):
        wrong("prev_from_the_beginning", got="the first page of the list", **evidence)
    same(back.answers[0], wanted)
    same_list(Pages(back.answers[::-1]), stretch.truth("-placed_at")[:-LIMIT], "`prev`")
    again = get(shop, "/v1/orders", {**query, "cursor": needed(back.answers[-1], "next")})
    same(again, newest.ids[1])


def test_offset_goes_on(shop: Shop, stretch: Stretch) -> None:
    """Clients that count pages are answered as before, and get cursors to go on with."""
    answer = shop.get("/v1/orders", **stretch.query, limit=LIMIT, offset=7)
    if answer.status in REFUSED:
        wrong("offset_taken_away", did=answer.did, got=answer.status, expected="200, and the page, as before")
    require(shop, answer)
    truth = stretch.truth("-placed_at")
    same(answer, truth[7 : 7 + LIMIT])
    expected = {"limit": LIMIT, "offset": 7, "count": LIMIT}
    if got := {name: value for name, value in expected.items() if answer.body["meta"].get(name) != value}:
        shown = {name: answer.body["meta"].get(name) for name in got}
        differs(
            did=answer.did,
            got=f"meta with {shown}",
            expected=f"{got}, as before",
            matters="Whoever reads these today breaks on the day of your release.",
        )
    same(get(shop, "/v1/orders", {**stretch.query, "limit": LIMIT, "cursor": needed(answer, "next")}), truth[12:17])
    same(get(shop, "/v1/orders", {**stretch.query, "limit": LIMIT, "cursor": needed(answer, "prev")}), truth[2:7])
    both = shop.get("/v1/orders", **stretch.query, limit=LIMIT, offset=7, cursor=needed(answer, "next"))
    refused(both, "offset", "Whichever you take, some client means the other, and shows the wrong page.")


@pytest.mark.parametrize("sort", ["status,-total_amount", "-status,total_amount,-placed_at"])
def test_several_keys(shop: Shop, stretch: Stretch, sort: str) -> None:
    """Sorted by several keys with signs of their own, each entry comes once, in order, both ways."""
    query = {**stretch.query, "limit": 2 * LIMIT, "sort": sort}
    there = leaf(shop, "/v1/orders", query)
    truth = stretch.truth(sort)
    if there.ids[0] == truth[: 2 * LIMIT] and there.all_ids != truth:
        _recognise_one_row(there, stretch, sort, truth)
    same_list(there, truth, "`next`")
    back = leaf(shop, "/v1/orders", query, "prev", needed(there.answers[-1], "prev"))
    same_list(Pages(back.answers[::-1]), truth[: -2 * LIMIT], "`prev`")


def test_a_plus_is_a_sign(shop: Shop, stretch: Stretch) -> None:
    """`+` before a key means ascending, written as %2B or as it is."""
    truth = stretch.truth("total_amount,-placed_at")
    for plus in ("%2B", "+"):
        address = f"/v1/orders?{urlencode({**stretch.query, 'limit': LIMIT})}&sort={plus}total_amount,-placed_at"
        answer = shop.ask(Request("GET", address))
        if answer.status in REFUSED:
            wrong("plus_is_unknown", did=answer.did, got=answer.status, expected="200: `+` means ascending")
        require(shop, answer)
        same(answer, truth[:LIMIT])
    for sort in ("password", "-placed_at,"):
        refused(shop.get("/v1/orders", sort=sort), "sort", "Whatever may be sorted by can be read by sorting.")


def test_every_list_has_cursors(shop: Shop, database: Connection, regulars: list[str]) -> None:
    """A customer's history and the products are leafed through in the same way."""
    customer = regulars[0]
    history = leaf(shop, f"/v1/customers/{customer}/orders", {"limit": 2 * LIMIT})
    truth = list(database.scalars(text(HISTORY), {"customer": customer}))
    same_list(history, truth, "`next`")
    filtered = leaf(shop, "/v1/orders", {"limit": 50, "customer": customer})
    same_list(filtered, truth, "`next`")
    query = {"limit": 20, "category": "Lighting", "sort": "-price"}
    goods = leaf(shop, "/v1/products", query)
    truth = list(database.scalars(text(f"{FOR_SALE} AND {IN_CATEGORY} ORDER BY {order_by('-price')}"), query))
    assert len(truth) > 20
    same_list(goods, truth, "`next`")
    back = leaf(shop, "/v1/products", query, "prev", needed(goods.answers[-1], "prev"))
    same_list(Pages(back.answers[::-1]), truth[: 20 * (len(goods.answers) - 1)], "`prev`")


def test_entries_come_and_go_meanwhile(shop: Shop, database: Connection, stretch: Stretch) -> None:
    """The next page begins behind the last entry shown, whatever has come before it or become of it meanwhile."""
    query = {**stretch.query, "limit": LIMIT, "sort": "-total_amount"}
    truth = stretch.truth("-total_amount")
    first = get(shop, "/v1/orders", query)
    with placed(database, truth[0]) as new:
        second = get(shop, "/v1/orders", {**query, "cursor": needed(first, "next")})
    if ids_of(second) == truth[LIMIT - 1 : 2 * LIMIT - 1]:
        wrong(
            "offset_in_a_cursor",
            did=f"{first.did}, then placed an order that belongs on that page, and followed `next`",
            got="the last order of the first page once more, as the first of the second",
            expected="the order behind it: the cursor says behind which entry, not how many there are before",
        )
    same(second, truth[LIMIT : 2 * LIMIT])
    assert new not in ids_of(second)
    last = ids_of(first)[-1]
    database.execute(text(TOTAL), {"more": -4900, "order": last})  # to the end of the list
    try:
        second = shop.get("/v1/orders", **query, cursor=needed(first, "next"))
    finally:
        database.execute(text(TOTAL), {"more": 4900, "order": last})
    if second.status != 200 or ids_of(second)[:1] != truth[LIMIT : LIMIT + 1]:
        wrong(
            "cursor_names_a_row",
            did=f"{first.did}, then lowered the total of the last order on it, and followed `next`",
            got=second.status if second.status != 200 else f"{len(ids_of(second))} orders, those behind its new place",
            expected="the page behind the place that the order had when it was shown",
        )


def test_products_are_counted_too(shop: Shop, database: Connection) -> None:
    """A page of products at an offset is what it was, and its `prev` is all that comes before it."""
    goods = get(shop, "/v1/products", {"limit": LIMIT, "offset": 1})
    truth = list(database.scalars(text(f"{FOR_SALE} ORDER BY name, id LIMIT {LIMIT + 1}")))
    same(goods, truth[1:])
    if goods.rows > 3 * (LIMIT + 1):
        differs(
            did=goods.did,
            got=f"{goods.rows} rows from the database",
            expected=f"about the {LIMIT} that it shows",
            matters="A page that fetches the whole list costs more with every entry that the list gets.",
        )
    same(get(shop, "/v1/products", {"limit": LIMIT, "cursor": needed(goods, "prev")}), truth[:1])


@pytest.mark.usefixtures("stretch")  # which makes the index
@pytest.mark.parametrize("towards", ["next", "prev"])
def test_a_deep_page_reads_no_more(shop: Shop, database: Connection, towards: str) -> None:
    """Far down the list, a page reads about as many orders as it shows, either way."""
    deep = get(shop, "/v1/orders", {"limit": LIMIT, "offset": DEEP})
    answer = get(shop, "/v1/orders", {"limit": LIMIT, "cursor": needed(deep, towards)})
    begin = DEEP + LIMIT if towards == "next" else DEEP - LIMIT
    same(answer, list(database.scalars(text(RANKED_IDS), {"limit": LIMIT, "offset": begin})))
    reads = {statement.sql: orders_read(database, statement) for statement in answer.statements}
    counted = [sql for sql in reads if re.search(r"\bcount\s*\(", sql, re.IGNORECASE)]
    most = 4 * (LIMIT + 1)
    evidence = {
        "did": f"{answer.did}, {begin:,} orders down the list, and had PostgreSQL explain what the shop asked",
        "got": f"{sum(reads.values()):,} orders read to show {LIMIT}",
        "expected": f"at most {most}: there is an index on (placed_at DESC, id DESC)",
    }
    if sum(reads.values()) <= most:
        return
    if counted and sum(read for sql, read in reads.items() if sql not in counted) <= most:
        wrong("counts_the_total", **evidence)
    if any(re.search(r"\bOR\b", sql) for sql, read in reads.items() if read > most):
        wrong("reads_from_the_start", **evidence)
    differs(**evidence, matters="What the last page costs then grows with the list, and every page before it less.")


def test_a_cursor_that_was_changed_is_refused(shop: Shop, newest: Pages, stretch: Stretch) -> None:
    """What the shop has not signed is refused, as something wrong with the request."""
    cursor = needed(newest.answers[1], "next")
    for other in forged(cursor):
        answer = shop.get("/v1/orders", **stretch.query, limit=LIMIT, cursor=other)
        if answer.status == 200:
            wrong(
                "unsigned_cursor",
                did=f"took {cursor}, changed what it says, and asked {answer.did}",
                got="200: the shop went where it was told",
                expected="422: the shop did not make that cursor",
            )
    for other in (*damaged(cursor), "", "x", "bnVsbA", "Ω", cursor + cursor):
        answer = shop.get("/v1/orders", **stretch.query, limit=LIMIT, cursor=other)
        if answer.status >= 500:
            wrong(
                "nonsense_is_a_server_error",
                did=answer.did,
                got=answer.status,
                expected="422: the caller sent something that is no cursor",
            )
        refused(answer, "cursor", "What is not checked can be made up.")


def test_a_cursor_belongs_to_its_list(shop: Shop, newest: Pages, stretch: Stretch, regulars: list[str]) -> None:
    """A cursor is refused with other filters, in another order, and in another list; any limit will do."""
    cursor = needed(newest.answers[1], "next")
    matters = "The page begins somewhere in a list that the client has never seen the beginning of."
    for other in (
        {"status": "paid"},
        {"placed_after": "2020-01-01T00:00:00Z"},
        {"sort": "placed_at"},
        {"sort": "-status"},
    ):
        answer = shop.get("/v1/orders", **{**stretch.query, "limit": LIMIT, "cursor": cursor, **other})
        if answer.status == 200:
            wrong(
                "cursor_of_another_list",
                did=f"took a cursor of {newest.answers[1].did.partition('&cursor')[0]}, and asked {answer.did}",
                got="200, and a page from somewhere in another list",
                expected="422: the cursor is not one of that list",
            )
        refused(answer, "cursor", matters)
    one, other_customer = (f"/v1/customers/{customer}/orders" for customer in regulars)
    theirs = needed(get(shop, one, {"limit": LIMIT}), "next")
    answer = shop.get(other_customer, limit=LIMIT, cursor=theirs)
    if answer.status == 200:
        wrong(
            "cursor_of_another_customer",
            did=f"took a cursor of {one}, and asked {answer.did}",
            got="200, and a page of the other customer's orders",
            expected="422: the cursor is one customer's",
        )
    refused(answer, "cursor", matters)
    refused(shop.get("/v1/products", limit=LIMIT, cursor=theirs), "cursor", matters)
    query = {**stretch.query, "limit": LIMIT + 2, "cursor": cursor}
    same(get(shop, "/v1/orders", query), stretch.truth("-placed_at")[2 * LIMIT : 3 * LIMIT + 2])


def test_every_process_takes_the_cursor(start: StartShop, newest: Pages, stretch: Stretch) -> None:
    """A cursor holds in every process that has the same key, and in none that has not."""
    query = {**stretch.query, "limit": LIMIT, "cursor": needed(newest.answers[0], "next")}
    with start() as other:
        answer = other.get("/v1/orders", **query)
        if answer.status in REFUSED:
            wrong(
                "key_of_the_process",
                did=f"took a cursor from one process of the shop, and asked another {answer.did}",
                got=f"{answer.status}: the process does not know it",
                expected="the next page: both processes were started with the same CURSOR_KEY",
            )
        same(answer, newest.ids[1])
    with start(CURSOR_KEY="") as stranger:  # which then has a key of its own, or none
        answer = stranger.get("/v1/orders", **query)
        refused(answer, "cursor", "A key that is not CURSOR_KEY cannot be changed when it has become known.")
        own = get(stranger, "/v1/orders", {**stretch.query, "limit": LIMIT})
        same(get(stranger, "/v1/orders", {**query, "cursor": needed(own, "next")}), newest.ids[1])


def test_a_cursor_tells_no_internal_key(newest: Pages, database: Connection) -> None:
    """The keys of rows do not leave the shop, in a cursor either."""
    for page in newest.answers[:2]:
        key = database.scalar(text(KEY_OF), {"order": ids_of(page)[-1]})
        cursor = needed(page, "next")
        for words in (cursor, *(part.decode(errors="replace") for part in parts(cursor))):
            if re.search(rf"(?<![\w.]){key}(?![\w.])", words):
                wrong(
                    "internal_key_shown",
                    did=f"decoded the cursor of {page.did} from base64",
                    got=words,
                    expected=f"nothing that tells that the last order on the page is number {key}",
                )


def test_fields_and_cursors(shop: Shop, stretch: Stretch) -> None:
    """A page has its cursors whatever fields it shows."""
    query = {**stretch.query, "limit": LIMIT, "fields": "total"}
    answer = shop.get("/v1/orders", **query)
    if answer.status == 500 or (answer.status == 200 and not answer.body["meta"].get("next")):
        wrong(
            "cursor_from_what_is_shown",
            did=f"{answer.did}, which does not show what the list is sorted by",
            got=f"{answer.status}{logged_error(shop) or ', and no `next`'}",
            expected="the page, and its `next`",
        )
    require(shop, answer)
    second = get(shop, "/v1/orders", {**stretch.query, "limit": LIMIT, "cursor": needed(answer, "next")})
    same(second, stretch.truth("-placed_at")[LIMIT : 2 * LIMIT])


def test_fields(shop: Shop, regulars: list[str]) -> None:
    """`fields` names what an entry shows, and that alone, in every list."""
    for path, names in (
        ("/v1/orders", ["status", "customer"]),
        (f"/v1/customers/{regulars[0]}/orders", ["id", "items"]),
        ("/v1/products", ["attributes", "price", "name", "id", "sku"]),
    ):
        whole = get(shop, path, {"limit": LIMIT}).body["data"]
        answer = get(shop, path, {"limit": LIMIT, "fields": ",".join(names)})
        expected = [{name: entry[name] for name in names} for entry in whole]
        if answer.body["data"] != expected:
            differs(
                did=answer.did,
                got=f"first {answer.body['data'][:1]}",
                expected=f"first {expected[:1]}, as without `fields`",
                matters="A client asks for less because it wants less, and takes what is missing for a fault.",
            )
    matters = "A misspelt name that is passed over in silence looks like a value that is not there."
    for path, fields in (("/v1/orders", "id,password"), ("/v1/orders", ""), ("/v1/products", "id,items")):
        refused(shop.get(path, fields=fields), "fields", matters)


def test_fields_save_work(shop: Shop, stretch: Stretch) -> None:
    """What is not shown is not read: an order's own fields cost no customer, item or product."""
    query = {**stretch.query, "limit": LIMIT, "offset": 1, "sort": "total_amount"}
    names = ["id", "status", "placed_at", "total"]
    whole = get(shop, "/v1/orders", query).body["data"]
    answer = get(shop, "/v1/orders", {**query, "fields": ",".join(names)})
    expected = [{name: order[name] for name in names} for order in whole]
    if answer.body["data"] != expected:
        got = f"first {answer.body['data'][:1]}"
        matters = "A client that asks for less wants the same, and less of it."
        differs(did=answer.did, got=got, expected=f"first {expected[:1]}, as without `fields`", matters=matters)
    others = {
        table
        for statement in answer.statements
        for table in re.findall(r"\b(?:FROM|JOIN)\s+\"?(customers|order_items|products)", statement.sql)
    }
    if others:
        wrong(
            "fields_after_the_work",
            did=answer.did,
            got=f"{len(answer.statements)} statements, which read {', '.join(sorted(others))}",
            expected="one statement, which reads orders",
        )
    if answer.rows > 2 * (LIMIT + 1) or len(answer.statements) >= LIMIT:
        differs(
            did=answer.did,
            got=f"{answer.rows} rows from {len(answer.statements)} statements",
            expected=f"the {LIMIT} rows that are shown, and one more, from one statement",
            matters="Who asks for less waits as long as everyone else.",
        )


LIKE = [
    ("colour=blue&material=oak", """attributes @> '{"colour": "blue", "material": "oak"}'"""),
    ("size=S&tag=new", """attributes ->> 'size' = 'S' AND attributes -> 'tags' ? 'new'"""),
]


def test_filters_hold(shop: Shop, database: Connection, stretch: Stretch) -> None:
    """Filters keep what they name, and nothing else."""
    answer = get(shop, "/v1/orders", {**stretch.query, "status": "paid", "limit": STRETCH})
    paid = f"{ENTRIES.removesuffix('ORDER BY ')} AND status = 'paid' ORDER BY {order_by('-placed_at')}"
    same(answer, list(database.scalars(text(paid), stretch.query)))
    for query, condition in LIKE:
        answer = shop.ask(Request("GET", f"/v1/products?limit=100&{query}"))
        require(shop, answer)
        truth = list(database.scalars(text(f"{FOR_SALE} AND {condition} ORDER BY name, id")))
        assert truth
        same(answer, truth)


def test_what_was_right_stays_so(shop: Shop) -> None:
    """The size of a page has its limits, and what makes no sense is refused as before."""
    for limit, number in ((None, 20), (100, 100)):
        answer = get(shop, "/v1/orders", {"fields": "id", **({"limit": limit} if limit else {})})
        if len(answer.body["data"]) != number:
            differs(
                did=answer.did,
                got=f"{len(answer.body['data'])} entries",
                expected=number,
                matters="Clients count on the page that they get today.",
            )
    matters = "The naive shop refuses it, and somebody relies on that."
    for query in ("limit=101", "limit=0", "offset=-1", "status=lost", "customer=7", "placed_after=yesterday"):
        refused(shop.get(f"/v1/orders?{query}"), query.partition("=")[0], matters)
    for tag in ("", "%00", "x" * 101):
        refused(shop.get(f"/v1/products?tag={tag}"), "tag", matters)
    unknown = shop.get("/v1/customers/00000000-0000-4000-8000-000000000000/orders")
    if unknown.status != 404:
        differs(did=unknown.did, got=unknown.status, expected=404, matters="There is no such customer.")


# --- Recognising mistakes ---------------------------------------------------------------------------------------------


def _recognise_lost(pages: Pages, truth: list[str], stretch: Stretch) -> None:
    """Orders that tie with the last order of a page are on none."""
    lost = [entry for entry in truth if entry not in pages.all_ids]
    evidence = {
        "did": f"followed `next` from {pages.answers[0].did} to the end",
        "expected": f"each of the {len(truth)} orders on one page",
    }
    if lost and set(lost) <= stretch.together:
        got = f"{len(lost)} orders on no page, all placed at the very moment of an order at a page's end"
        wrong("ties_lost", got=got, **evidence)
    if lost and set(lost) <= stretch.together | stretch.close and set(lost) & stretch.close:
        if set(lost) & stretch.together:
            return
        got = f"{len(lost)} orders on no page, all placed within the millisecond of an order at a page's end"
        wrong("milliseconds_in_the_cursor", got=got, **evidence)


def _recognise_repeated(pages: Pages, truth: list[str]) -> None:
    """The last order of a page is also the first of the next."""
    pairs = list(zip(pages.ids, pages.ids[1:], strict=False))
    if len(pairs) > 1 and all(one[-1:] == other[:1] for one, other in pairs if one and other):
        wrong(
            "ties_repeated",
            did=f"followed `next` from {pages.answers[0].did}",
            got="on each page, first of all, the last order of the page before",
            expected=f"each of the {len(truth)} orders on one page",
        )


def _recognise_one_row(pages: Pages, stretch: Stretch, sort: str, truth: list[str]) -> None:
    """All keys were compared in the direction of the first."""
    place = stretch.database.execute(text(KINDS), {"order": pages.ids[0][-1]}).one()._asdict()
    names = [word.lstrip("+-") for word in sort.split(",")]
    key = stretch.database.scalar(text(KEY_OF), {"order": pages.ids[0][-1]})
    row, there = ", ".join([*names, "id"]), ", ".join(f":{name}" for name in (*names, "id"))
    sign = "<" if sort.startswith("-") else ">"
    statement = ENTRIES.replace(
        " ORDER BY ", f" AND ({row}) {sign} ({there}) ORDER BY {order_by(sort)} LIMIT {2 * LIMIT}"
    )
    if pages.ids[1:2] == [list(stretch.database.scalars(text(statement), {**stretch.query, **place, "id": key}))]:
        wrong(
            "mixed_signs_as_one_row",
            did=f"followed `next` from {pages.answers[0].did}",
            got=f"what is {sign} in all keys alike: ({row}) {sign} (…)",
            expected=f"the {2 * LIMIT} orders that come next by {sort}: one key rises where the other falls",
        )
    assert truth


# --- Words and small change -------------------------------------------------------------------------------------------

RANKED_IDS = RANKED.replace("SELECT id", "SELECT public_id::text")


def get(shop: Shop, path: str, query: Query) -> Answer:
    """Ask for a page that is there.

    Raises:
        NotRight: the answer is not a page.
    """
    answer = shop.get(path, **query)
    require(shop, answer)
    return answer


def require(shop: Shop, answer: Answer) -> None:
    """Go on if the answer is a page.

    Raises:
        NotRight: it is not.
    """
    if answer.status != 200:
        said = "" if answer.status == 500 else f" {answer.body}"
        differs(
            did=answer.did,
            got=f"{answer.status}{logged_error(shop) if answer.status == 500 else said}",
            expected="200, and the page",
            matters="A page that is answered with an error shows nothing at all.",
        )
    body = answer.body
    if not isinstance(body, dict) or not isinstance(body.get("data"), list) or not isinstance(body.get("meta"), dict):
        differs(
            did=answer.did,
            got=str(body)[:200],
            expected="an object with `data`, a list, and `meta`, an object",
            matters="That is the envelope of every list of this shop.",
        )


def refused(answer: Answer, field: str, matters: str) -> None:
    """Go on if the request was refused, because of this field where the answer tells of fields.

    Raises:
        NotRight: it was not.
    """
    errors = answer.body.get("errors") if isinstance(answer.body, dict) else None
    if answer.status not in REFUSED or (errors is not None and field not in str(errors)):
        got = answer.status if answer.status not in REFUSED else f"{answer.status} {errors}"
        differs(did=answer.did, got=got, expected=f"422, with an error that names `{field}`", matters=matters)


def ids_of(answer: Answer) -> list[str]:
    """The public ids on a page."""
    return [entry.get("id", "") for entry in answer.body["data"]]


def cursor_of(answer: Answer, towards: str) -> str | None:
    """The cursor that a page gives, if it gives one."""
    cursor: str | None = answer.body["meta"].get(towards)
    return cursor


def needed(answer: Answer, towards: str) -> str:
    """The cursor that a page must give.

    Raises:
        NotRight: it gives none.
    """
    cursor = cursor_of(answer, towards)
    if not cursor:
        differs(
            did=answer.did,
            got=f"`{towards}`: {cursor!r}",
            expected=f"a cursor: there is a page {'after' if towards == 'next' else 'before'} this one",
            matters="Whoever stands on this page can leave it in one direction only.",
        )
    return cursor


def same(answer: Answer, truth: Sequence[str]) -> None:
    """Go on if the page shows these entries.

    Raises:
        NotRight: it shows others.
    """
    ids = ids_of(answer)
    if ids != list(truth):
        place = next((n for n, pair in enumerate(zip(ids, truth, strict=False)) if pair[0] != pair[1]), None)
        got = f"{len(ids)} entries" if place is None else f"in place {place + 1} the entry {ids[place]}"
        expected = f"{len(truth)}" if place is None else f"there {truth[place]}"
        matters = "An entry on the wrong page is missed by everyone who leafs through the list."
        differs(did=answer.did, got=got, expected=expected, matters=matters)


def same_list(pages: Pages, truth: list[str], by: str) -> None:
    """Go on if the pages show these entries, each once, on full pages.

    Raises:
        NotRight: they do not.
    """
    ids = pages.all_ids
    did = f"followed {by} from {pages.answers[0].did}, {len(pages.answers)} pages"
    if ids != truth:
        lost, doubled, others = set(truth) - set(ids), len(ids) - len(set(ids)), set(ids) - set(truth)
        wrongly = f"{len(lost)} are missing, {doubled} come twice, {len(others)} do not belong there"
        differs(
            did=did,
            got=f"{len(ids)} entries: {wrongly if lost or doubled or others else 'not in order'}",
            expected=f"all {len(truth)} entries, each once, in order",
            matters="Exports, synchronisation and bookkeeping leaf through lists, and nobody counts afterwards.",
        )
    if any(not page for page in pages.ids):
        differs(did=did, got="a page with nothing on it", expected="entries on every page", matters="It leads nowhere.")


@contextmanager
def placed(database: Connection, like: str) -> Iterator[str]:
    """An order more, a moment after one like it, while the block runs; its public id."""
    order = database.scalar(text(PLACE), {"order": like})
    try:
        yield str(order)
    finally:
        database.execute(text(DELETE), {"order": order})


def orders_read(database: Connection, statement: Statement) -> int:
    """How many rows of orders PostgreSQL reads for a statement."""
    plan = plan_again(database, statement)
    if plan is None:
        return 0
    return sum(node.rows + node.rows_removed for node in plan.nodes if node.relation == "orders")


def parts(cursor: str) -> Iterator[bytes]:
    """What the parts of a cursor say, as far as they are base64."""
    for part in re.split(r"[^\w=+/-]+", cursor):
        padded = part.rstrip("=") + "=" * (-len(part.rstrip("=")) % 4)
        try:
            yield urlsafe_b64decode(padded)
        except ValueError:
            continue


def forged(cursor: str) -> Iterator[str]:
    """The cursor with one digit of what it says changed, for whoever can read it."""
    for part in re.split(r"[^\w=+/-]+", cursor):
        bare = part.rstrip("=")
        try:
            said = urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
        except ValueError:
            continue
        for digits in list(re.finditer(rb"\d", said))[:30:5]:
            place = digits.start()
            other = said[:place] + str((int(digits[0]) + 1) % 10).encode() + said[place + 1 :]
            yield cursor.replace(part, urlsafe_b64encode(other).decode().rstrip("=") + part[len(bare) :])


def damaged(cursor: str) -> Iterator[str]:
    """The cursor with a letter changed here and there, and cut off."""
    for place in range(0, len(cursor) - 8, max(1, len(cursor) // 6)):
        if cursor[place].isalnum():
            yield cursor[:place] + ("B" if cursor[place] == "A" else "A") + cursor[place + 1 :]
    yield cursor[: len(cursor) // 2]
    yield cursor[1:]
