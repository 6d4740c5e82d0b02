"""Checks of `foundations/business_logic`.

They place orders at two processes of the shop, by both ways in, and look into the database at what became of them.
Races are forced: rows of the stock are locked by sessions of the check's own until those who want them are seen to
wait. Conflicts are made by triggers, and counted by a sequence, which no rollback sets back. The warehouse is a server
of the check's own. None of them looks at the file. The first check that fails is what the learner reads, so a check
stands where what it needs has been checked before.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from shopfloor.checks import waiting
from shopfloor.checks.answers import require_status
from shopfloor.checks.judge import StartShop
from shopfloor.checks.logged import logged_error
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.checks.statements import run_all
from shopfloor.checks.waiting import in_background

Json = dict[str, Any]

TOKEN = "a-token-of-the-marketplace"  # noqa: S105 - of a marketplace that does not exist
ATTEMPTS = 5
TOTAL_MAX = 100_000_000  # minor units
PATIENCE = 3.0  # seconds until what must happen at once has not happened
until = partial(waiting.until, patience=PATIENCE)
WAITED = 1.0  # seconds after which those who want a lock stand before it, also on a slow machine
PLENTY = 1000
BUYERS, LAST = 3, 2  # buyers at each of two workers, and how many there are for all of them
ENDLESS = 3 * ATTEMPTS  # conflicts, after which there is peace: also for those that would never have stopped
UNKNOWN = UUID(int=0xABCDEF)
SAID = "order placed"
WITH_AN_ERROR = "22012"  # division_by_zero: nobody got in the way, and it would be the same again
DEADLOCK = "40P01"
SERIALIZATION = "40001"


# --- The warehouse ----------------------------------------------------------------------------------------------------


@dataclass
class Warehouse:
    """A service that is told of orders, and can be slow to hear.

    Attributes:
        heard: the orders, as they were told.
    """

    heard: list[Json] = field(default_factory=list)
    url: str = ""
    _free: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Answer nobody while the block runs."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def hear(self, order: Json) -> None:
        """Take an order; return when it is time to answer."""
        self.heard.append(order)
        self._free.wait(5)


@pytest.fixture(scope="session")
def warehouse() -> Iterator[Warehouse]:
    """One for all checks."""
    warehouse = Warehouse()
    warehouse._free.set()  # noqa: SLF001 - its own module

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            warehouse.hear(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        warehouse.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        try:
            yield warehouse
        finally:
            server.shutdown()
            thread.join()


# --- What the shop is, and what is in it ------------------------------------------------------------------------------

# A deadlock of the shop's is found soon, and it is the shop's session that is ended, not the check's.
SOON = """
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = %L', current_database(), '30ms'); END $$
"""


@pytest.fixture(scope="session")
def settings(warehouse: Warehouse, database: Connection) -> dict[str, str]:
    """A shop with a warehouse and a marketplace, and a limit on what an order may cost."""
    database.execute(text(SOON))
    return {
        "WAREHOUSE_URL": warehouse.url,
        "MARKETPLACE_TOKEN": TOKEN,
        "ORDER_TOTAL_MAX": str(TOTAL_MAX),
        "ORDER_ATTEMPTS": str(ATTEMPTS),
        "ORDER_WAIT_SECONDS": "0.002",
    }


@pytest.fixture(scope="session")
def other(start: StartShop) -> Iterator[Shop]:
    """A second worker: the same database."""
    with start() as shop:
        yield shop


@dataclass(frozen=True)
class Product:
    """Something that can be ordered."""

    id: int
    public_id: str
    price: int


@dataclass(frozen=True)
class Shelf:
    """What the checks order.

    Attributes:
        customer: the public id of one.
        products: some that are for sale, by their keys.
        withdrawn: one that is not.
        foreign: one that is sold in another currency.
    """

    customer: str
    products: list[Product]
    withdrawn: Product
    foreign: Product
    database: Connection

    def basket(self, *lines: tuple[Product, int]) -> Json:
        """An order for some quantities of some products."""
        items = [{"product_id": product.public_id, "quantity": quantity} for product, quantity in lines]
        return {"customer_id": self.customer, "items": items}

    def have(self, product: Product, on_hand: int, reserved: int = 0) -> None:
        """Set how many there are."""
        statement = "UPDATE stock SET on_hand = :on_hand, reserved = :reserved WHERE product_id = :id"
        self.database.execute(text(statement), {"on_hand": on_hand, "reserved": reserved, "id": product.id})

    def reserved(self, product: Product) -> int:
        """How many are promised."""
        statement = "SELECT reserved FROM stock WHERE product_id = :id"
        return int(self.database.scalar(text(statement), {"id": product.id}) or 0)

    def orders(self) -> int:
        """How many orders there are."""
        return int(self.database.scalar(text("SELECT count(*) FROM orders")) or 0)


@pytest.fixture(scope="session")
def shelf(database: Connection) -> Shelf:
    """Products that there are plenty of."""
    query = "SELECT id, public_id::text AS public_id, price_amount AS price FROM products WHERE {} ORDER BY id LIMIT {}"
    products = [Product(*row) for row in database.execute(text(query.format("withdrawn_at IS NULL", 9)))]
    (gone,) = [Product(*row) for row in database.execute(text(query.format("withdrawn_at IS NOT NULL", 1)))]
    *products, foreign = products
    database.execute(text("UPDATE products SET currency = 'CHF' WHERE id = :id"), {"id": foreign.id})
    customer = str(database.scalar(text("SELECT public_id FROM customers ORDER BY id LIMIT 1")))
    shelf = Shelf(customer, products, gone, foreign, database)
    for product in (*products, gone, foreign):
        shelf.have(product, PLENTY)
    return shelf


# --- The checks: the rules --------------------------------------------------------------------------------------------


def test_an_order_is_placed(shop: Shop, shelf: Shelf, warehouse: Warehouse) -> None:
    """An order has today's prices, its stock is reserved, the log says so, and the warehouse is told once."""
    lamp, chair = shelf.products[1], shelf.products[0]
    warehouse.heard.clear()
    before = [shelf.reserved(product) for product in (lamp, chair)]
    answer = require(shop, post(shop, shelf.basket((lamp, 2), (chair, 3))), 201)
    lines = {item["product"]["id"]: (item["quantity"], item["unit_price"]["amount"]) for item in answer.body["items"]}
    expect(answer.did, lines, {lamp.public_id: (2, lamp.price), chair.public_id: (3, chair.price)}, OF_MONEY)
    expect(answer.did, answer.body["total"]["amount"], 2 * lamp.price + 3 * chair.price, OF_MONEY)
    after = [shelf.reserved(product) for product in (lamp, chair)]
    did = f"{answer.did} for 2 and 3 of two products, and looked at what is reserved of them"
    expect(did, [now - then for then, now in zip(before, after, strict=True)], [2, 3], OF_STOCK)
    expect(f"{answer.did}, and listened at the warehouse", ids(warehouse), [answer.body["id"]], OF_THE_WAREHOUSE)
    if said(shop, at_least=1) != 1:
        differs(
            did=answer.did,
            got=f"{said(shop)} lines in the log",
            expected=f'one line "{SAID}" at level info, as the naive file has it',
            matters="It is what support looks for when a customer asks where the order is.",
        )


def test_the_rules_hold_at_every_door(shop: Shop, shelf: Shelf) -> None:
    """What the shop refuses over its own API it refuses from the marketplace as well."""
    dearest = max(shelf.products, key=lambda product: product.price)
    refused = {
        "a product that is withdrawn": (409, shelf.basket((shelf.withdrawn, 1))),
        "products of two currencies": (422, shelf.basket((shelf.products[0], 1), (shelf.foreign, 1))),
        f"an order above ORDER_TOTAL_MAX, {TOTAL_MAX}": (422, shelf.basket((dearest, 1))),
        "a product that does not exist": (422, shelf.basket((Product(0, str(UNKNOWN), 0), 1))),
    }
    statement = text("UPDATE products SET price_amount = :price WHERE id = :id")
    shelf.database.execute(statement, {"price": TOTAL_MAX + 1, "id": dearest.id})
    through, counted = [], shelf.orders()
    for words, (status, basket) in refused.items():
        answer = post(shop, basket)
        if answer.status != status:
            differs(
                did=f"{answer.did} with {words}",
                got=answer.status,
                expected=status,
                matters="It is a rule of the shop.",
            )
        (taken,) = require(shop, import_orders(shop, basket), 200).body["data"]
        if taken["status"] != status:
            through.append((words, taken["status"]))
    shelf.database.execute(statement, {"price": dearest.price, "id": dearest.id})
    if through:
        evidence = {
            "did": "POST /marketplace/orders with what POST /v1/orders refuses",
            "got": "; ".join(f"{words}: {status}" for words, status in through),
            "expected": "the same refusals. Both call place_order",
        }
        if len(through) < len(refused) - 1:
            wrong("rule_in_the_handler", **evidence)
        differs(
            **evidence, matters="A rule that stands in one of two handlers is a rule of that handler, not the shop's."
        )
    expect("counted the orders after all these refusals", shelf.orders(), counted, OF_NOTHING)


def test_the_marketplace_can_order(shop: Shop, shelf: Shelf, warehouse: Warehouse) -> None:
    """What the marketplace sends is placed like any other order, and the warehouse is told of it."""
    warehouse.heard.clear()
    chair = shelf.products[0]
    before = shelf.reserved(chair)
    answer = require(shop, import_orders(shop, shelf.basket((chair, 1)), shelf.basket((chair, 2))), 200)
    expect(answer.did, [taken["status"] for taken in answer.body["data"]], [201, 201], OF_STOCK)
    expect(f"{answer.did}, and looked at what is reserved", shelf.reserved(chair) - before, 3, OF_STOCK)
    told = [taken["id"] for taken in answer.body["data"]]
    expect(f"{answer.did}, and listened at the warehouse", ids(warehouse), told, OF_THE_WAREHOUSE)


def test_what_is_promised_is_gone(shop: Shop, shelf: Shelf) -> None:
    """What is reserved for others cannot be ordered; what is left can, to the last."""
    chair = shelf.products[0]
    shelf.have(chair, 10, reserved=8)
    answer = post(shop, shelf.basket((chair, 3)))
    if answer.status == 201:
        wrong(
            "forgets_what_is_reserved",
            did=f"{answer.did} for 3 of a product, of which 10 are on hand and 8 of these reserved",
            got=201,
            expected="409: 2 can be had",
        )
    require(shop, answer, 409)
    require(shop, post(shop, shelf.basket((chair, 2))), 201)
    shelf.have(chair, PLENTY)


# --- The checks: all or nothing ---------------------------------------------------------------------------------------


def test_all_or_nothing(shop: Shop, shelf: Shelf) -> None:
    """When the second line cannot be had, nothing is left of the first."""
    for first, second in (shelf.products[:2], shelf.products[1::-1]):
        shelf.have(first, PLENTY)
        shelf.have(second, 1)
        answer = require(shop, post(shop, shelf.basket((first, 4), (second, 2))), 409)
        if left := shelf.reserved(first):
            wrong(
                "commits_line_by_line",
                did=f"{answer.did} for 4 of one product and 2 of another, of which there is 1",
                got=f"409, and {left} of the first product are reserved for an order that does not exist",
                expected="409, and nothing reserved",
            )
        shelf.have(second, PLENTY)


def test_an_error_leaves_nothing(shop: Shop, shelf: Shelf) -> None:
    """When writing the order down fails, nothing is reserved, and it is not tried again."""
    chair = shelf.products[0]
    shelf.have(chair, PLENTY)
    counted = shelf.orders()
    with trouble(shelf.database, WITH_AN_ERROR, times=ENDLESS) as times:
        answer = post(shop, shelf.basket((chair, 1)))
    did = f"{answer.did}, while the database fails with a division by zero (SQLSTATE {WITH_AN_ERROR}) at the order"
    if times() > 1:
        wrong(
            "repeats_anything",
            did=did,
            got=f"{times()} attempts",
            expected="one: only SQLSTATE 40001 and 40P01 say that another attempt may end otherwise",
        )
    require(shop, answer, 500)
    expect(f"{did}, and counted", (shelf.orders() - counted, shelf.reserved(chair)), (0, 0), OF_NOTHING)


# --- The checks: many at once -----------------------------------------------------------------------------------------


def test_the_last_are_sold_once(shop: Shop, other: Shop, shelf: Shelf) -> None:
    """Six buyers at two workers want one each of the last two: two have them, and four are told so."""
    lamp = shelf.products[0]
    shelf.have(lamp, LAST)
    request = Request("POST", "/v1/orders", shelf.basket((lamp, 1)))
    with in_background() as run, held(shelf.database, lamp):
        answers = [run(lambda each=each: each.together([request] * BUYERS)) for each in (shop, other)]
        until(lambda: len(waiting(shelf.database)) == 2 * BUYERS, patience=WAITED)
        locked = any(re.search(r"\bFOR (NO KEY )?UPDATE\b", statement.sql) for statement in shop.database.statements)
    each_status = [[answer.status for answer in of_worker.result()] for of_worker in answers]
    statuses = [status for of_worker in each_status for status in of_worker]
    _recognise_oversold(shop, statuses, shelf.reserved(lamp), each_status, locked=locked)
    shelf.have(lamp, PLENTY)


def _recognise_oversold(
    shop: Shop, statuses: list[int], reserved: int, each_status: list[list[int]], *, locked: bool
) -> None:
    placed = statuses.count(201)
    did = f"POST /v1/orders by {len(statuses)} at once, at two workers, for one each of the last {LAST} of a product"
    evidence = {
        "did": did,
        "got": f"{placed} orders placed, and {reserved} reserved",
        "expected": f"{LAST} placed, {LAST} reserved, and 409 for the others",
    }
    if placed > LAST:
        if reserved == placed:
            wrong("adds_after_an_old_check", **evidence)
        if locked:
            wrong("locked_but_stale", **evidence)
        if reserved == LAST and all(of_worker.count(201) <= LAST for of_worker in each_status):
            wrong("lock_in_one_process", **evidence)
        wrong("checks_then_writes", **evidence)
    if (placed, reserved) != (LAST, LAST) or set(statuses) != {201, 409}:
        evidence["got"] += f", with {sorted(statuses)}{logged_error(shop)}"
        differs(**evidence, matters="Whoever is refused while there is one left goes to another shop.")


def test_opposite_baskets(shop: Shop, other: Shop, shelf: Shelf) -> None:
    """Two baskets with the same two products in opposite order do not wait for each other: both are placed."""
    lamp, chair = shelf.products[:2]
    shelf.have(lamp, PLENTY)
    shelf.have(chair, PLENTY)
    baskets = shelf.basket((lamp, 1), (chair, 1)), shelf.basket((chair, 1), (lamp, 1))
    with in_background() as run, held(shelf.database, lamp) as first, held(shelf.database, chair) as second:
        asked = []
        for number, (each, basket) in enumerate(zip((shop, other), baskets, strict=True), 1):
            asked.append(run(lambda each=each, basket=basket: post(each, basket)))
            until(lambda number=number: len(waiting(shelf.database)) == number, patience=WAITED)
        blockers = sorted(waiting(shelf.database).values())
        crossed = blockers == sorted([[first], [second]])
    answers = [one.result() for one in asked]
    statuses = [answer.status for answer in answers]
    did = "POST /v1/orders for products A and B at one worker, and for B and A at another, at the same time"
    if crossed:
        wrong(
            "locks_in_the_basket_order",
            did=did,
            got=f"one has locked A and waits for B, the other has locked B and waits for A. The answers: {statuses}",
            expected="that both lock the same product first, so that one of them waits, holding nothing",
        )
    if statuses != [201, 201]:
        differs(
            did=did,
            got=f"{statuses}{logged_error(shop)}",
            expected=[201, 201],
            matters="There is plenty of both. Popular products are in many baskets at once.",
        )


def test_others_go_on(shop: Shop, other: Shop, shelf: Shelf) -> None:
    """While an order waits for one product, orders for others are placed."""
    lamp, *others = shelf.products[:3]
    with in_background() as run, held(shelf.database, lamp) as holder:
        slow = run(lambda: post(shop, shelf.basket((lamp, 1))))
        until(lambda: waiting(shelf.database) or slow.done())
        in_front = {holder, *waiting(shelf.database)}
        asked = [
            run(lambda each=each, product=product: post(each, shelf.basket((product, 1))))
            for each, product in zip((shop, other), others, strict=True)
        ]

        def behind() -> bool:
            found = waiting(shelf.database).items()
            return any(in_front & set(blockers) for session, blockers in found if session not in in_front)

        until(lambda: all(one.done() for one in asked) or behind())
        went_on = all(one.done() for one in asked)
    statuses = [one.result().status for one in (slow, *asked)]
    if not went_on:
        wrong(
            "one_order_at_a_time",
            did="POST /v1/orders for product A, whose row in stock another session holds; meanwhile for B and for C",
            got="the orders for B and C wait for the one for A",
            expected="that they are placed: they have nothing in common",
        )
    expect("POST /v1/orders for one product, and meanwhile for two others", statuses, [201] * 3, OF_STOCK)


def test_one_price(shop: Shop, shelf: Shelf) -> None:
    """When a price changes while an order is being placed, the total is still that of its lines."""
    lamp, chair = shelf.products[:2]
    with in_background() as run, held(shelf.database, lamp):
        asked = run(lambda: post(shop, shelf.basket((lamp, 2), (chair, 1))))
        until(lambda: waiting(shelf.database) or asked.done())
        for product in (lamp, chair):
            statement = text("UPDATE products SET price_amount = price_amount + 100 WHERE id = :id")
            shelf.database.execute(statement, {"id": product.id})
    answer = require(shop, asked.result(), 201)
    shown = require(shop, shop.get(f"/v1/orders/{answer.body['id']}"), 200)
    for product in (lamp, chair):
        statement = text("UPDATE products SET price_amount = :price WHERE id = :id")
        shelf.database.execute(statement, {"price": product.price, "id": product.id})
    lines = sum(item["quantity"] * item["unit_price"]["amount"] for item in shown.body["items"])
    if shown.body["total"]["amount"] != lines:
        wrong(
            "total_read_apart",
            did=f"{answer.did} for two products, whose prices are changed while it waits for the stock of one",
            got=f"a total of {shown.body['total']['amount']}, and lines that come to {lines}",
            expected="lines and a total of one moment: prices are read once",
        )


# --- The checks: what is said, and when -------------------------------------------------------------------------------


def test_nothing_is_said_that_is_not_so(shop: Shop, shelf: Shelf, warehouse: Warehouse) -> None:
    """When the COMMIT fails, neither the log nor the warehouse has heard of an order."""
    warehouse.heard.clear()
    lines, printed = said(shop), len(shop.output)
    with trouble(shelf.database, WITH_AN_ERROR, times=1, at_commit=True):
        answer = post(shop, shelf.basket((shelf.products[0], 1)))
    require(shop, answer, 500)
    shop.get(f"/v1/orders/{UNKNOWN}")  # whose line in the log comes after all that was said before
    shop.printed(lambda output: '"status": 404' in output[printed:], patience=PATIENCE)
    did = f"{answer.did}, whose COMMIT the database refuses"
    if warehouse.heard:
        wrong(
            "tells_before_the_commit",
            did=did,
            got=f"500, and the warehouse has been told of order {ids(warehouse)[0]}, which does not exist",
            expected="500, and a warehouse that has heard nothing",
        )
    if said(shop) > lines:
        wrong(
            "says_so_before_the_commit",
            did=did,
            got=f'500, and in the log: "{SAID}"',
            expected="500, and no such line",
        )


def test_nothing_is_held_while_the_warehouse_is_told(shop: Shop, shelf: Shelf, warehouse: Warehouse) -> None:
    """While the warehouse is told, the order is there for all to see, and no transaction is open."""
    chair = shelf.products[0]
    warehouse.heard.clear()
    with in_background() as run, warehouse.busy():
        asked = run(lambda: post(shop, shelf.basket((chair, 1))))
        until(lambda: warehouse.heard or asked.done())
        there = [shelf.database.scalar(text("SELECT 1 FROM orders WHERE public_id = :id"), {"id": id_})
                 for id_ in ids(warehouse)]  # fmt: skip
        open_ones = idle_in_transaction(shelf.database)
    require(shop, asked.result(), 201)
    expect("placed an order, with a warehouse that is slow to hear, and looked for the order", there, [1], OF_NOTHING)
    if open_ones:
        wrong(
            "transaction_opened_again",
            did="POST /v1/orders, with a warehouse that is slow to hear",
            got=f"meanwhile a session of the shop is idle in a transaction. Its last statement: {open_ones[0]}",
            expected="no open transaction: what the warehouse is told was read before the commit, or its reading ended",
        )


# --- The checks: again, but not for ever ------------------------------------------------------------------------------


def test_conflicts_are_tried_again(shop: Shop, shelf: Shelf, warehouse: Warehouse) -> None:
    """After a deadlock or a serialization failure the order is placed by another attempt, once."""
    for state, at_commit in ((SERIALIZATION, False), (DEADLOCK, False), (SERIALIZATION, True)):
        chair = shelf.products[0]
        shelf.have(chair, PLENTY)
        warehouse.heard.clear()
        counted, lines, printed = shelf.orders(), said(shop), len(shop.output)
        with trouble(shelf.database, state, times=2, at_commit=at_commit):
            answer = post(shop, shelf.basket((chair, 3)))
        did = f"{answer.did}, while the database refuses the first two attempts{' at COMMIT' * at_commit} with {state}"
        if answer.status != 201:
            shop.printed(lambda output, printed=printed: '"status": 5' in output[printed:], patience=PATIENCE)
            _recognise_no_attempt(shop, did, answer, at_commit=at_commit)
        require(shop, answer, 201)
        said(shop, at_least=lines + 1)
        seen = (shelf.orders() - counted, shelf.reserved(chair), len(warehouse.heard), said(shop) - lines)
        words = "orders, reserved, told to the warehouse, said in the log"
        expect(f"{did}, and counted {words}", seen, (1, 3, 1, 1), OF_NOTHING)


def _recognise_no_attempt(shop: Shop, did: str, answer: Answer, *, at_commit: bool) -> None:
    error = logged_error(shop)
    evidence = {"did": did, "got": f"{answer.status}{error}", "expected": "201: the third attempt is not refused"}
    if re.search(r"InFailedSqlTransaction|PendingRollbackError|Can't operate on closed transaction", shop.output):
        wrong("repeats_in_the_broken_transaction", **evidence)
    if at_commit:
        wrong("commit_is_not_repeated", **evidence)
    if answer.status == 500:
        wrong("conflict_is_an_error", **evidence)


def test_trying_ends(shop: Shop, shelf: Shelf) -> None:
    """After ORDER_ATTEMPTS attempts it gives up: 503, and nothing is left."""
    chair = shelf.products[0]
    shelf.have(chair, PLENTY)
    counted = shelf.orders()
    with trouble(shelf.database, SERIALIZATION, times=ENDLESS) as times:
        answer = post(shop, shelf.basket((chair, 1)))
    did = f"{answer.did}, while the database refuses every attempt with {SERIALIZATION}, and ORDER_ATTEMPTS={ATTEMPTS}"
    if times() > ENDLESS:
        wrong(
            "tries_for_ever",
            did=did,
            got=f"{times()} attempts, the last one when the database had stopped refusing",
            expected=f"{ATTEMPTS} attempts, then 503",
        )
    matters = "Fewer give up what would have been an order, and more hold up who has asked, and all the others."
    expect(f"{did}, and counted attempts", times(), ATTEMPTS, matters)
    require(shop, answer, 503)
    expect(f"{did}, and counted", (shelf.orders() - counted, shelf.reserved(chair)), (0, 0), OF_NOTHING)


# --- Holding things back, and making trouble --------------------------------------------------------------------------

WAITING = """
SELECT pid, pg_blocking_pids(pid) AS blockers FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""
IDLE = """
SELECT regexp_replace(query, '\\s+', ' ', 'g') FROM pg_stat_activity
WHERE datname = current_database() AND state LIKE 'idle in transaction%'
"""
MAKE_TROUBLE = """
CREATE SEQUENCE trouble;
CREATE FUNCTION make_trouble() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN
    IF nextval(''trouble'') <= {times} THEN RAISE EXCEPTION ''not now'' USING ERRCODE = ''{state}''; END IF;
    RETURN NULL;
END';
CREATE CONSTRAINT TRIGGER trouble AFTER INSERT ON orders DEFERRABLE INITIALLY {when}
FOR EACH ROW EXECUTE FUNCTION make_trouble()
"""
END_TROUBLE = "DROP TRIGGER trouble ON orders; DROP FUNCTION make_trouble(); DROP SEQUENCE trouble"


def waiting(database: Connection) -> dict[int, list[int]]:
    """The sessions that wait for a lock, each with those that it waits for."""
    return {row.pid: sorted(row.blockers) for row in database.execute(text(WAITING))}


def idle_in_transaction(database: Connection) -> list[str]:
    """What those sessions did last that are in a transaction and do nothing."""
    return [str(query)[:120] for query in database.scalars(text(IDLE))]


@contextmanager
def held(database: Connection, product: Product) -> Iterator[int]:
    """Hold a product's row in stock while the block runs, as an order does; yields the session that does."""
    with database.engine.connect().execution_options(isolation_level="READ COMMITTED") as holder:
        holder.execute(text("SELECT FROM stock WHERE product_id = :id FOR UPDATE"), {"id": product.id})
        yield int(holder.scalar(text("SELECT pg_backend_pid()")) or 0)
        holder.rollback()


@contextmanager
def trouble(database: Connection, state: str, *, times: int, at_commit: bool = False) -> Iterator[Callable[[], int]]:
    """Have the first attempts to insert an order fail while the block runs; yields what counts them."""
    when = "DEFERRED" if at_commit else "IMMEDIATE"
    counted = 0
    run_all(database, MAKE_TROUBLE.format(times=times, state=state, when=when))
    try:
        yield lambda: counted
    finally:
        counted = int(database.scalar(text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM trouble")) or 0)
        run_all(database, END_TROUBLE)


# --- Words and small change -------------------------------------------------------------------------------------------

OF_MONEY = "What an order costs is decided here, once, and the customer is charged that."
OF_STOCK = "What is reserved is what the warehouse keeps for the order."
OF_NOTHING = "What half of an order leaves behind, nobody ever takes away."
OF_THE_WAREHOUSE = (
    "An order that the warehouse has not heard of is not packed; one that it hears of twice is packed twice."
)


def post(shop: Shop, basket: Json) -> Answer:
    """Order."""
    return shop.ask(Request("POST", "/v1/orders", basket))


def import_orders(shop: Shop, *baskets: Json) -> Answer:
    """Order as the marketplace does."""
    headers: Mapping[str, str] = {"Authorization": f"Bearer {TOKEN}"}
    return shop.ask(Request("POST", "/marketplace/orders", {"orders": list(baskets)}, headers))


def ids(warehouse: Warehouse) -> list[str]:
    """The orders that it has heard of."""
    return [str(order.get("id")) for order in warehouse.heard]


def said(shop: Shop, *, at_least: int = 0) -> int:
    """How often the log says that an order is placed, as soon as that is often enough."""
    return shop.printed(lambda output: output.count(SAID) >= at_least).count(SAID)


def expect(did: str, got: object, expected: object, matters: str) -> None:
    """Go on if it is as expected.

    Raises:
        NotRight: it is not.
    """
    if got != expected:
        differs(did=did, got=got, expected=expected, matters=matters)


require = partial(require_status, matters="The status is what the other side acts upon.")
