"""Checks of `data/n_plus_one`.

They ask over HTTP, and read off the wire what the shop asks PostgreSQL for it. None of them looks at the file: whatever
brings the right page in a few statements and without surplus rows is right. The first check that fails is what the
learner reads, so those that recognise a mistake come before those that only see its effects.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from shopfloor.checks.answers import require_status
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Shop
from shopfloor.checks.wire import Statement

Json = dict[str, Any]

FEW, MANY = 5, 50
ATTEMPTS = 4  # declined payments that one order is given, so that it has two collections with several members
ADDED = 10**12  # to that order's total: some digits more on the wire, each time that it is sent


@dataclass(frozen=True)
class Place:
    """A part of the list that has an order without items near its beginning, and withdrawn products.

    Attributes:
        offset: how many orders come before it.
        keys: of its orders.
        empty: public id of the order without items.
        full: key of the order with the most items, and payments.
        full_id: its public id.
        items: how many it has.
        single_id: public id of an order with one item.
    """

    offset: int
    keys: list[int]
    empty: str
    full: int
    full_id: str
    items: int
    single_id: str


@dataclass(frozen=True)
class Page:
    """A page that was asked for, and what it should show."""

    answer: Answer
    truth: list[Json]

    @property
    def orders(self) -> list[Json]:
        """What it shows: the orders of a list, or the one that was asked for."""
        orders: list[Json] = self.answer.body.get("data", [self.answer.body])
        return orders


# --- What the database says -------------------------------------------------------------------------------------------

PLACE_OF_THE_OLDEST_WITHOUT_ITEMS = """
SELECT place
FROM (SELECT id, row_number() OVER (ORDER BY placed_at DESC, id DESC) AS place FROM orders) AS placed
WHERE NOT EXISTS (SELECT FROM order_items WHERE order_id = placed.id)
ORDER BY place DESC LIMIT 1
"""
NEWEST = "SELECT id FROM orders ORDER BY placed_at DESC, id DESC LIMIT :limit OFFSET :offset"
NEWEST_WITH_ITEMS = """
SELECT public_id::text FROM orders o WHERE EXISTS (SELECT FROM order_items WHERE order_id = o.id)
ORDER BY placed_at DESC, id DESC LIMIT :limit OFFSET :offset
"""
SIZES = """
SELECT o.id, o.public_id::text, count(i.id) AS items FROM orders o LEFT JOIN order_items i ON i.order_id = o.id
WHERE o.id = ANY(:keys) GROUP BY o.id ORDER BY items, o.id
"""
ORDERS = """
SELECT o.id AS key, o.public_id, o.status, o.placed_at, o.total_amount, o.currency, c.public_id AS customer, c.name
FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.id = ANY(:keys)
"""
ITEMS = """
SELECT i.order_id, p.public_id, p.sku, p.name, i.quantity, i.unit_price
FROM order_items i JOIN products p ON p.id = i.product_id WHERE i.order_id = ANY(:keys) ORDER BY i.id
"""
BUSIEST = """
SELECT c.public_id::text FROM customers c JOIN orders o ON o.customer_id = c.id
GROUP BY c.id ORDER BY count(*) DESC LIMIT 1
"""
EARLIER = """
SELECT o.id FROM orders o JOIN customers c ON c.id = o.customer_id
WHERE c.public_id::text = :customer AND o.placed_at < :placed_before
ORDER BY o.status DESC, o.total_amount, o.id LIMIT :limit OFFSET :offset
"""
DECLINED = """
INSERT INTO payments (order_id, provider_reference, amount, currency, status)
SELECT id, 'declined by a check', total_amount, currency, 'failed' FROM orders, generate_series(1, :attempts)
WHERE id = :order
"""
LONGER_TOTAL = "UPDATE orders SET total_amount = total_amount + :added WHERE id = :order"
OTHER_CUSTOMER_NAME = """
UPDATE customers SET name = reverse(name) WHERE id = (SELECT customer_id FROM orders WHERE id = :order)
"""
OTHER_QUANTITY = """
UPDATE order_items SET quantity = quantity + :one WHERE id = (SELECT min(id) FROM order_items WHERE order_id = :order)
"""
OTHER_PRODUCT_NAME = """
UPDATE products SET name = reverse(name)
WHERE id = (SELECT product_id FROM order_items WHERE order_id = :order ORDER BY id LIMIT 1)
"""


def change(database: Connection, order: int, *, back: bool = False) -> None:
    """Change an order's total, its customer's name, its first item's quantity and product's name; or change them back.

    Nothing but the total changes its length.
    """
    sign = -1 if back else 1
    for statement in (LONGER_TOTAL, OTHER_CUSTOMER_NAME, OTHER_QUANTITY, OTHER_PRODUCT_NAME):
        database.execute(text(statement), {"added": sign * ADDED, "one": sign, "order": order})


def truth_of(database: Connection, keys: list[int]) -> list[Json]:
    """The orders with these keys, in this order, as the shop should show them."""
    items = defaultdict(list)
    orders = {order.key: order for order in database.execute(text(ORDERS), {"keys": keys})}
    for item in database.execute(text(ITEMS), {"keys": keys}):
        items[item.order_id].append(
            {
                "product": {"id": str(item.public_id), "sku": item.sku, "name": item.name},
                "quantity": item.quantity,
                "unit_price": {"amount": item.unit_price, "currency": orders[item.order_id].currency},
            }
        )
    return [
        {
            "id": str(order.public_id),
            "status": order.status,
            "placed_at": order.placed_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "total": {"amount": order.total_amount, "currency": order.currency},
            "customer": {"id": str(order.customer), "name": order.name},
            "items": items[order.key],
        }
        for order in (orders[key] for key in keys)
    ]


def keys_of(database: Connection, statement: str, **parameters: Any) -> list[int]:
    """The keys of the orders that a statement selects."""
    return list(database.scalars(text(statement), parameters))


# --- What is asked, once for all checks -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(database: Connection) -> Iterator[Place]:
    """The part of the list that the checks look at. One of its orders has been declined payment several times."""
    offset = int(database.scalar(text(PLACE_OF_THE_OLDEST_WITHOUT_ITEMS)) or 0) - 3
    keys = keys_of(database, NEWEST, limit=MANY, offset=offset)
    sizes = database.execute(text(SIZES), {"keys": keys}).all()
    single = next(order for order in sizes if order.items == 1)
    full = sizes[-1]
    assert sizes[0].items == 0
    assert full.items > ATTEMPTS
    # its first item is rewritten, and so no longer lies before the others: who does not ask for an order gets none
    database.execute(text(OTHER_QUANTITY), {"one": 0, "order": full.id})
    database.execute(text(DECLINED), {"order": full.id, "attempts": ATTEMPTS})
    try:
        yield Place(offset, keys, sizes[0].public_id, full.id, full.public_id, full.items, single.public_id)
    finally:
        database.execute(text("DELETE FROM payments WHERE provider_reference = 'declined by a check'"))


@pytest.fixture(scope="module")
def few(shop: Shop, database: Connection, place: Place) -> Page:
    """A small page."""
    return Page(get(shop, "/v1/orders", limit=FEW, offset=place.offset), truth_of(database, place.keys[:FEW]))


@pytest.fixture(scope="module")
def many(shop: Shop, database: Connection, place: Place) -> Page:
    """A large page."""
    return Page(get(shop, "/v1/orders", limit=MANY, offset=place.offset), truth_of(database, place.keys))


@pytest.fixture(scope="module")
def detail(shop: Shop, database: Connection, place: Place) -> Page:
    """The order with the most items."""
    return Page(get(shop, f"/v1/orders/{place.full_id}"), truth_of(database, [place.full]))


@dataclass(frozen=True)
class Changed:
    """A page before and after somebody else changed one order on it: its total, and names and a quantity."""

    before: Page
    after: Page


@pytest.fixture(scope="module")
def changed(shop: Shop, database: Connection, place: Place, many: Page, detail: Page) -> tuple[Changed, Changed]:
    """The large page and the order with the most items, asked for again after that order had been changed."""
    change(database, place.full)
    try:
        page = Page(get(shop, "/v1/orders", limit=MANY, offset=place.offset), truth_of(database, place.keys))
        single = Page(get(shop, f"/v1/orders/{place.full_id}"), truth_of(database, [place.full]))
    finally:
        change(database, place.full, back=True)
    assert detail.truth != single.truth
    return Changed(many, page), Changed(detail, single)


# --- The checks -------------------------------------------------------------------------------------------------------


def test_the_page_shows_its_orders(few: Page, many: Page, database: Connection, place: Place) -> None:
    """The page shows the orders that were asked for: all of them, whole, and in order."""
    _recognise_empty_items(many)
    _recognise_hidden_products(many, database)
    _recognise_lost_orders(many, place, database)
    _recognise_cut_page(many)
    _recognise_lost_order(many)
    same(many)
    same(few)


def test_a_single_order_is_whole(shop: Shop, detail: Page, place: Place, database: Connection) -> None:
    """A single order shows its customer, all its items and their products, or that it has none."""
    same(detail)
    answer = shop.get(f"/v1/orders/{place.empty}")
    if answer.status == 404:
        wrong(
            "inner_join_loses_empty_orders",
            did=f"{answer.did}, an order without items",
            got="404: it is not found",
            expected="200, and the order with an empty list of items",
        )
    require(shop, answer, 200)
    empty = next(order for order in truth_of(database, place.keys[:FEW]) if order["id"] == place.empty)
    same(Page(answer, [empty]))


def test_a_change_shows_at_once(changed: tuple[Changed, Changed]) -> None:
    """What somebody else has committed shows on the very next page."""
    for pair in changed:
        if pair.before.orders == pair.before.truth:  # else another check says what is wrong
            _recognise_stale_rows(pair)
            same(pair.after)


def test_only_the_page_is_read(few: Page, place: Place) -> None:
    """Of all orders only those on the page are read."""
    read = sum(statement.rows for statement in few.answer.statements if first_table(statement) == "orders")
    if read >= place.offset + FEW:
        wrong(
            "loads_everything_and_slices",
            did=few.answer.did,
            got=f"{read:,} rows of orders from the database, for a page that shows {FEW}",
            expected="the rows of the page alone: however long the list, a page costs what it shows",
        )


def test_an_order_is_sent_once(many: Page, changed: tuple[Changed, Changed], place: Place) -> None:
    """Each order comes over the wire once, and not again for each of its items."""
    longer_page = changed[0].after.answer
    before = many.truth[place.keys.index(place.full)]["total"]["amount"]
    longer = len(str(before + ADDED)) - len(str(before))
    copies = (longer_page.bytes - many.answer.bytes) // longer  # nothing else has changed its length
    did = f"{many.answer.did}, and weighed how often one order's total came from the database"
    expected = f"once, though the order has {place.items} items and {ATTEMPTS} payments that were declined"
    if copies > place.items:
        wrong("two_joined_collections", did=did, got=f"{copies} times", expected=expected)
    if copies == place.items:
        wrong("joined_collection", did=did, got=f"{copies} times: once for each of its items", expected=expected)


def test_nothing_is_read_that_is_not_shown(many: Page) -> None:
    """Only tables whose rows the page shows are read."""
    unseen = re.compile(r"\b(payments|stock|categories)\b")
    tables = {table for statement in many.answer.statements for table in unseen.findall(statement.sql)}
    if tables:
        wrong(
            "fetches_what_nobody_shows",
            did=many.answer.did,
            got=f"statements that read {listed(tables)}, and {many.answer.rows} rows in all",
            expected="orders, customers, order_items and products: an order shows nothing else",
        )


def test_statements_do_not_grow_with_the_page(few: Page, many: Page) -> None:
    """A page of fifty orders takes no more statements than a page of five."""
    small, large = Counter(map(first_table, few.answer.statements)), Counter(map(first_table, many.answer.statements))
    if large.total() <= small.total():
        return
    growing = {table: large[table] for table in large if large[table] > small[table]}
    kinds = ", ".join(f"{count} × FROM {table}" for table, count in sorted(growing.items()))
    evidence = {
        "did": many.answer.did,
        "got": f"{large.total()} statements, against {small.total()} for {FEW} orders; what grew: {kinds}",
        "expected": "the same few statements for any number of orders",
    }
    _recognise_repetition(growing, many, evidence)
    differs(
        **evidence,
        matters="Each statement is a way to the database and back, and each waits for the one before. With the database"
        " a millisecond away, the page waits a millisecond more for each.",
    )


def test_rows_do_not_multiply(many: Page) -> None:
    """A page fetches about as many rows as it shows."""
    orders = len(many.truth)
    items = sum(len(order["items"]) for order in many.truth)
    most = 3 * orders + 2 * items  # keys, orders and customers one by one; items and their products one by one
    if many.answer.rows > most:
        largest = max(many.answer.statements, key=lambda statement: statement.rows)
        differs(
            did=many.answer.did,
            got=f"{many.answer.rows} rows; the largest answer has {largest.rows}, FROM {first_table(largest)}",
            expected=f"at most {most}: the page shows {orders} orders with {items} items",
            matters="Every row is read, sent, decoded and made into an object before it is thrown away.",
        )


def test_statements_do_not_grow_with_an_order(shop: Shop, detail: Page, place: Place) -> None:
    """A single order with many items takes no more statements than one with a single item."""
    single = get(shop, f"/v1/orders/{place.single_id}")
    if len(detail.answer.statements) > len(single.statements):
        differs(
            did=f"{detail.answer.did}, an order with {place.items} items",
            got=f"{len(detail.answer.statements)} statements, against {len(single.statements)} for one item",
            expected="the same few for both",
            matters="order_detail is read by every customer who opens an order, and the longest orders are the"
            " slowest. It needs what orders_page needs.",
        )


def test_filters_and_sort_hold(shop: Shop, few: Page, database: Connection) -> None:
    """A customer's history is filtered, sorted and cut as it was asked for, in as few statements."""
    customer = str(database.scalar(text(BUSIEST)))
    asked = {"placed_before": few.truth[0]["placed_at"], "limit": 2 * FEW, "offset": FEW + 2}
    answer = get(shop, f"/v1/customers/{customer}/orders", sort="-status,total_amount", **asked)
    keys = keys_of(database, EARLIER, customer=customer, **asked)
    assert len(keys) == 2 * FEW
    same(Page(answer, truth_of(database, keys)))
    most = len(few.answer.statements) + 1
    if len(answer.statements) > most:
        differs(
            did=answer.did,
            got=f"{len(answer.statements)} statements for {2 * FEW} orders",
            expected=f"at most {most}: those of the list, and one that looks the customer up",
            matters="A history is the same page under another address, and the best customers have the longest.",
        )


def test_nothing_is_shown_where_nothing_is(shop: Shop) -> None:
    """Past the end of the list the page is empty, and an order that does not exist is not found."""
    same(Page(get(shop, "/v1/orders", limit=FEW, offset=10**9), []))
    require(shop, shop.get(f"/v1/orders/{UUID(int=0)}"), 404)


# --- Mistakes, recognised by what only they do ------------------------------------------------------------------------


def _recognise_empty_items(page: Page) -> None:
    """No order has an item."""
    if page.orders and not any(order["items"] for order in page.orders):
        with_items = sum(bool(order["items"]) for order in page.truth)
        wrong(
            "items_left_empty",
            did=page.answer.did,
            got=f"{len(page.orders)} orders, and not one of them with an item",
            expected=f"{len(page.truth)} orders, {with_items} of them with items",
        )


def _recognise_hidden_products(page: Page, database: Connection) -> None:
    """What is shown is right but for the items whose product is withdrawn, none of which is there."""
    withdrawn = set(database.scalars(text("SELECT public_id::text FROM products WHERE withdrawn_at IS NOT NULL")))
    kept = {
        order["id"]: [item for item in order["items"] if item["product"]["id"] not in withdrawn] for order in page.truth
    }
    hidden = sum(len(order["items"]) - len(kept[order["id"]]) for order in page.truth)
    assert hidden
    if page.orders and all(order["id"] in kept and order["items"] == kept[order["id"]] for order in page.orders):
        wrong(
            "only_products_for_sale",
            did=page.answer.did,
            got=f"no item whose product has been withdrawn; {hidden} such items are missing from their orders",
            expected="every item of every order, whatever became of the product since",
        )


def _recognise_lost_orders(page: Page, place: Place, database: Connection) -> None:
    """The page is right but for the orders without items, or it is that of a list in which there are none."""
    ids = [order["id"] for order in page.orders]
    kept = [order["id"] for order in page.truth if order["items"]]
    without = database.scalars(text(NEWEST_WITH_ITEMS), {"limit": MANY, "offset": place.offset}).all()
    if ids in (kept, without):
        wrong(
            "inner_join_loses_empty_orders",
            did=page.answer.did,
            got=f"no order without items: {place.empty} is missing",
            expected="that order in its place, with an empty list of items",
        )


def _recognise_cut_page(page: Page) -> None:
    """There are too few orders, and as many rows of items as there should be orders."""
    rows = sum(max(1, len(order["items"])) for order in page.orders)
    if len(page.orders) < len(page.truth) and rows == MANY:
        wrong(
            "joined_collection_with_limit",
            did=page.answer.did,
            got=f"{len(page.orders)} orders: together they have the {MANY} rows that LIMIT counted",
            expected=f"{len(page.truth)} orders",
        )


def _recognise_lost_order(page: Page) -> None:
    """The right orders are there, in another order."""
    shown_ids, ids = ([order["id"] for order in orders] for orders in (page.orders, page.truth))
    if shown_ids != ids and sorted(shown_ids) == sorted(ids):
        place = next(number for number, (one, other) in enumerate(zip(shown_ids, ids, strict=True)) if one != other)
        wrong(
            "order_of_the_page_lost",
            did=page.answer.did,
            got=f"the right {len(ids)} orders, but in place {place + 1} one of {page.orders[place]['placed_at']}",
            expected=f"in that place the one of {page.truth[place]['placed_at']}: `order_by` says the newest first",
        )


def _recognise_stale_rows(pair: Changed) -> None:
    """What was changed is shown as it was before."""
    now, orders, then = (dict(leaves(of)) for of in (pair.after.truth, pair.after.orders, pair.before.truth))
    for at, value in now.items():
        if value != then.get(at) == orders.get(at):
            wrong(
                "process_wide_cache",
                did=f"{pair.after.answer.did}, changed a row of it in the database, and asked again",
                got=f"{at}: still {then.get(at)!r}",
                expected=f"{value!r}, as the database says",
            )


def _recognise_repetition(growing: dict[str, int], page: Page, evidence: dict[str, str]) -> None:
    """Statements that grow with the page: by how many, for what, and what came with them."""
    items = [item for order in page.truth for item in order["items"]]
    distinct = {
        "orders": len(page.truth),
        "order_items": len(page.truth),
        "customers": len({order["customer"]["id"] for order in page.truth}),
        "products": len({item["product"]["id"] for item in items}),
    }
    if all(2 * count <= distinct.get(table, 0) for table, count in growing.items()):
        wrong("query_a_chunk", **evidence)
    if set(growing) == {"products"}:
        wrong("one_level_short", **evidence)
    in_bulk = (statement for statement in page.answer.statements if statement.rows >= len(items))
    if "order_items" in growing and any(first_table(statement) == "order_items" for statement in in_bulk):
        wrong("fetched_but_not_attached", **evidence)


# --- Words and small change -------------------------------------------------------------------------------------------


def get(shop: Shop, path: str, **query: Any) -> Answer:
    """Ask for something that is there.

    Raises:
        NotRight: the answer is not 200; tells the error that the shop logged.
    """
    answer = shop.get(path, **query)
    require(shop, answer, 200)
    return answer


require = partial(require_status, matters="A page that is answered with an error shows nothing at all.")


def same(page: Page) -> None:
    """Go on if the page shows what it should.

    Raises:
        NotRight: tells the first difference.
    """
    orders, truth = dict(leaves(page.orders)), dict(leaves(page.truth))
    for at in (*truth, *orders):
        if orders.get(at) != truth.get(at):
            differs(
                did=page.answer.did,
                got=f"{at}: {orders.get(at)!r}",
                expected=repr(truth.get(at)),
                matters="A page that is fast and wrong is worse than a slow one: nobody sees that it is wrong.",
            )


def leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Each number and word within JSON under its address, and how long each list is."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, f"{at}.{name}")
    elif isinstance(value, list):
        yield f"{at or 'page'}, length", len(value)
        for number, part in enumerate(value, start=1):
            yield from leaves(part, f"{at}[{number}]" if at else f"order {number}")
    else:
        yield at, value


def first_table(statement: Statement) -> str:
    """The table that a statement names first."""
    found = re.search(r'\bFROM\s+(?:ONLY\s+)?"?(?:public\.)?(\w+)', statement.sql, re.IGNORECASE)
    return found[1] if found else statement.sql[:30]


def listed(words: set[str]) -> str:
    """Words in a row, as a sentence has them."""
    *others, last = sorted(words)
    return f"{', '.join(others)} and {last}" if others else last
