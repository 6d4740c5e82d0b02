"""Checks of `data/caching`.

They ask several processes of the shop over HTTP, read off the wire what these ask PostgreSQL and Valkey, and look into
Valkey. Races are forced: tables are locked and commits held while others go on, and what a shop says to Valkey is held
back. None of them looks at the file. The first check that fails is what the learner reads, so a check stands where what
it needs has been checked before.
"""

import json
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import Connection, text

from shopfloor.checks import waiting
from shopfloor.checks.answers import require_status
from shopfloor.checks.judge import StartShop
from shopfloor.checks.learner import LearnerFailed
from shopfloor.checks.logged import logged_error
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.checks.statements import run_all
from shopfloor.checks.waiting import Run, in_background

Json = dict[str, Any]

TTL = 300  # seconds: the shop's own setting
PATIENT, SHORT = "4", "0.05"  # seconds that a shop waits for the cache: so long that none is lost, and so short
TOO_LONG = 1.0  # seconds to an answer without a cache: twenty times the short one
PATIENCE = 1.5  # seconds until what must happen at once has not happened
until = partial(waiting.until, patience=PATIENCE)
LONGEST_LOCK = 10.0  # seconds
READERS = 50
WINDOW = (30, 10)  # days and limit of the list that is changed
WINDOWS = [WINDOW, (30, 5), (7, 10), (1, 15), (11, 5)]
OVERSOLD = 10**6  # more than there is of anything
ABSENT = UUID(int=0xABCDEF)
OTHERS_KEY = "another-application:basket"
SEARCHING, EMPTYING = {"keys", "scan"}, {"flushdb", "flushall"}
UNPICKLED = "a stranger's code ran in the shop"


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    """A shop that waits for a slow machine."""
    return {"CACHE_TTL_SECONDS": str(TTL), "CACHE_TIMEOUT_SECONDS": PATIENT}


@pytest.fixture(scope="session")
def other(start: StartShop) -> Iterator[Shop]:
    """A second worker: the same database and the same Valkey."""
    with start() as shop:
        yield shop


# --- What the database says -------------------------------------------------------------------------------------------

PRODUCT = """
SELECT p.public_id::text AS id, p.sku, p.name, c.name AS category, p.price_amount, p.currency, p.attributes,
       p.withdrawn_at IS NOT NULL AS withdrawn, p.version, s.on_hand - s.reserved AS free
FROM products p JOIN categories c ON c.id = p.category_id JOIN stock s ON s.product_id = p.id
WHERE p.public_id = CAST(:id AS uuid)
"""
SOLD = """
SELECT p.public_id::text AS id, p.sku, p.name, sum(i.quantity) AS sold
FROM order_items i JOIN orders o ON o.id = i.order_id JOIN products p ON p.id = i.product_id
WHERE o.placed_at > (SELECT max(placed_at) FROM orders) - make_interval(days => :days)
  AND o.status <> 'cancelled' AND p.withdrawn_at IS NULL
GROUP BY p.id ORDER BY sold DESC, p.id LIMIT :limit
"""
FOR_SALE = """
SELECT public_id::text FROM products p JOIN stock s ON s.product_id = p.id
WHERE withdrawn_at IS NULL AND on_hand - reserved > 5 ORDER BY p.id LIMIT 12
"""
WITHDRAWN = "SELECT public_id::text FROM products WHERE withdrawn_at IS NOT NULL ORDER BY id LIMIT 1"
RESERVE = """
UPDATE stock SET reserved = reserved + :more
WHERE product_id = (SELECT id FROM products WHERE public_id = CAST(:id AS uuid))
"""
CREATE = """
WITH product AS (
    INSERT INTO products (public_id, sku, name, category_id, price_amount, currency, attributes)
    SELECT CAST(:id AS uuid), 'NEW-1', 'Something new', min(id), 100, 'EUR', '{}' FROM categories RETURNING id)
INSERT INTO stock (product_id, on_hand) SELECT id, 7 FROM product
"""
REMOVE = (
    "DELETE FROM stock WHERE product_id = (SELECT id FROM products WHERE sku = 'NEW-1')",
    "DELETE FROM products WHERE sku = 'NEW-1'",
)


def product_of(database: Connection, product: str) -> Json:
    """A product's page as it should be."""
    row = database.execute(text(PRODUCT), {"id": product}).one()
    return {
        "id": row.id,
        "sku": row.sku,
        "name": row.name,
        "category": row.category,
        "price": {"amount": row.price_amount, "currency": row.currency},
        "attributes": row.attributes,
        "available": 0 if row.withdrawn else max(row.free, 0),
        "withdrawn": row.withdrawn,
        "version": row.version,
    }


def sold_of(database: Connection, window: tuple[int, int]) -> list[Json]:
    """The bestsellers as they should be."""
    days, limit = window
    rows = database.execute(text(SOLD), {"days": days, "limit": limit})
    return [{"id": row.id, "sku": row.sku, "name": row.name, "sold": int(row.sold)} for row in rows]


@dataclass(frozen=True)
class Page:
    """One of the two kinds of pages.

    Attributes:
        path: with its query.
        truth: what it should show now.
        shown: what of an answer's body is compared with that.
        table: one that every computation of it reads, and nothing else does.
    """

    path: str
    truth: Callable[[], Any]
    shown: Callable[[Any], Any]
    table: str


@dataclass(frozen=True)
class Pages:
    """What the checks ask for.

    Attributes:
        product: public id of one that is among the bestsellers.
        detail: its page.
        best: a list that it is in.
        products: a dozen that are for sale.
    """

    product: str
    detail: Page
    best: Page
    products: list[str]

    @property
    def both(self) -> tuple[Page, Page]:
        """One of each kind."""
        return self.detail, self.best


@pytest.fixture(scope="session")
def pages(database: Connection) -> Pages:
    """One product for all checks, its page, and a list that it is in."""
    product = str(sold_of(database, WINDOW)[1]["id"])
    return Pages(
        product,
        Page(f"/v1/products/{product}", lambda: product_of(database, product), lambda body: body, "categories"),
        best_page(database, WINDOW),
        list(database.scalars(text(FOR_SALE))),
    )


def best_page(database: Connection, window: tuple[int, int]) -> Page:
    """A list of bestsellers."""
    days, limit = window
    path = f"/v1/bestsellers?days={days}&limit={limit}"
    return Page(path, lambda: sold_of(database, window), lambda body: body["data"], "order_items")


# --- The checks: what is shown, and what it costs ---------------------------------------------------------------------


def test_pages_show_what_is_so(shop: Shop, pages: Pages, database: Connection) -> None:
    """Products and bestsellers are shown as the database has them, the first time and the second."""
    gone = str(database.scalar(text(WITHDRAWN)))
    withdrawn = Page(f"/v1/products/{gone}", lambda: product_of(database, gone), lambda body: body, "categories")
    lists = [best_page(database, window) for window in WINDOWS]
    for _ in range(2):
        for page in lists:
            _recognise_other_list(shop.get(page.path), page, lists)
        for page in (pages.detail, withdrawn):
            same(shop, page)


def test_stock_is_as_it_is_now(shop: Shop, pages: Pages, database: Connection) -> None:
    """How many can be had is as the last order left it, on the very next page."""
    before = same(shop, pages.detail).body
    for more in (1, OVERSOLD, -OVERSOLD - 1):
        database.execute(text(RESERVE), {"id": pages.product, "more": more})
        answer, truth = shop.get(pages.detail.path), pages.detail.truth()
        if answer.status == 200 and answer.body["available"] == before["available"] != truth["available"]:
            wrong(
                "caches_the_stock",
                did=f"{answer.did}, changed what is reserved of it in the database, and asked again",
                got=f"available: still {answer.body['available']}",
                expected=f"available: {truth['available']}. Every order changes it, and none calls your file",
            )
        before = same(shop, pages.detail, answer).body


def test_what_is_known_costs_little(shop: Shop, pages: Pages) -> None:
    """A product's page costs at most one statement when it is known, a list of bestsellers none."""
    for page, most in ((pages.detail, 1), (pages.best, 0)):
        same(shop, page)
        answer = shop.get(page.path)
        if len(answer.statements) > most:
            differs(
                did=f"{page.path}, asked for a second time",
                got=f"{len(answer.statements)} statements",
                expected=f"at most {most}" + (": how many can be had" if most else ", its answer being kept"),
                matters="Every visitor sees these pages, and each visit computes anew what the last had computed.",
            )


# --- What a change does -----------------------------------------------------------------------------------------------


def test_a_change_shows_everywhere(shop: Shop, other: Shop, pages: Pages) -> None:
    """After a change every worker shows it at once, on the product's page and in the lists."""
    commands = [command for page in pages.both for each in (shop, other) for command in same(each, page).commands]
    patched = change(shop, pages.product, name=(name := "A name that it did not have"))
    if (kept := pages.detail.truth()["name"]) != name:
        differs(
            did=patched.did,
            got=f"200, and in the database still the name {kept!r}",
            expected="the new name, committed: that is the business of save_product",
            matters="Whoever changed it was told that it has been done.",
        )
    for each in (shop, other):
        for page in pages.both:
            answer = each.get(page.path)
            if is_right(answer, page):
                continue
            did = f"{patched.did} (another name), then {answer.did}" + ("" if each is shop else " of a second worker")
            evidence = {"did": did, "got": "its old name", "expected": "the name that was committed before"}
            if not commands and each is other:
                wrong("dictionary_of_one_process", **evidence)
            if page is pages.best:
                wrong("forgets_the_lists", **evidence)
            differs(**evidence, matters="A price that is shown is a promise, and this one is out of date for minutes.")


def test_what_comes_back_is_listed(shop: Shop, other: Shop, pages: Pages) -> None:
    """A product that is withdrawn leaves the lists, and comes back to them when it is for sale again."""
    for withdrawn in (True, False):
        same(shop, pages.best)
        patched = change(other, pages.product, withdrawn=withdrawn)
        answer = shop.get(pages.best.path)
        if not withdrawn and answer.status == 200 and not names(answer, pages.product):
            wrong(
                "only_lists_it_is_in",
                did=f"{patched.did} (for sale again), then {answer.did}",
                got="a list without it",
                expected="the list with it: it is for sale again, and sold as much as before",
            )
        same(shop, pages.best, answer)


def test_a_change_finds_its_keys(shop: Shop, pages: Pages, valkey: Redis) -> None:
    """A change knows what to forget: it does not go through all keys for it, nor throw all away."""
    for page in pages.both:
        same(shop, page)
    valkey.set(OTHERS_KEY, "3 lamps", ex=60)
    before = calls(valkey)
    patched = change(shop, pages.product, name="A third name")
    asked = {name for name, count in calls(valkey).items() if count > before.get(name, 0)}
    did = f"{patched.did} (another name), and counted what Valkey was asked meanwhile"
    if searched := asked & SEARCHING:
        wrong(
            "searches_all_keys",
            did=did,
            got=f"{listed(searched).upper()}, which goes through every key of the server",
            expected="the keys by their names, a version in them, or a set of them",
        )
    if not valkey.exists(OTHERS_KEY):
        wrong(
            "throws_all_away",
            did=did,
            got=f"{listed(asked & EMPTYING).upper()}: another application's key {OTHERS_KEY} is gone",
            expected="that key as it was, and only what the change concerns forgotten",
        )


# --- What is kept, and for how long -----------------------------------------------------------------------------------


def test_everything_expires(shop: Shop, pages: Pages, valkey: Redis) -> None:
    """What is kept expires, in time, and not all of it at once."""
    valkey.flushall()
    paths = [*(f"/v1/products/{product}" for product in pages.products), pages.best.path]
    kept = [key_kept_by(valkey, lambda path=path: shop.get(path)) for path in paths]
    left = lives(valkey)
    did = f"asked for {len(pages.products)} products and a list, and looked at the keys in Valkey"
    if endless := [key for key, seconds in left.items() if seconds < 0]:
        wrong(
            "never_expires",
            did=did,
            got=f"{len(endless)} keys without an expiry, such as {shown(endless[0])}",
            expected=f"an expiry on every key, of at most {TTL} s on what is kept of a page",
        )
    if longest := [key for key in kept if left[key] > TTL]:
        differs(
            did=did,
            got=f"{shown(longest[0])} expires in {left[longest[0]]:.0f} s",
            expected=f"at most CACHE_TTL_SECONDS, which is {TTL}",
            matters="The setting is the promise of how long a page may be wrong when nobody says that it has changed.",
        )
    ends = [left[key] for key in kept[:-1]]
    if max(ends) - min(ends) < 0.01 * TTL:
        wrong(
            "expires_all_at_once",
            did=did,
            got=f"what was kept together expires together, within {max(ends) - min(ends):.1f} s",
            expected=f"spread over some part of the {TTL} s",
        )
    prefixes = {re.match(rb"[\w.-]*\W?", key)[0] for key in left}
    if len(prefixes) > 1:
        differs(
            did=did,
            got=f"keys such as {shown(min(left))} and {shown(max(left))}",
            expected="a word in front that all of them share, and a separator",
            matters="Others use the same Valkey. Without a name in front, whose key is whose is luck.",
        )


def test_what_does_not_exist_is_known(shop: Shop, valkey: Redis, database: Connection) -> None:
    """That a product does not exist is remembered, for a short while."""
    path = f"/v1/products/{ABSENT}"
    valkey.flushall()
    require(shop, shop.get(path), 404)
    answer = shop.get(path)
    require(shop, answer, 404)
    did = f"{path}, which does not exist, asked for twice"
    if answer.statements:
        wrong(
            "absent_is_not_kept",
            did=did,
            got=f"{len(answer.statements)} statements the second time",
            expected="none: that it does not exist is known",
        )
    left = lives(valkey)
    brief = {key: seconds for key, seconds in left.items() if 0 < seconds <= TTL / 10}
    database.execute(text(CREATE), {"id": str(ABSENT)})
    try:
        if brief:
            valkey.delete(*brief)  # as if their time had come
        answer = shop.get(path)
        if answer.status == 404:
            wrong(
                "absent_for_as_long",
                did=f"{did}; then it was created, and what expires within {TTL / 10:.0f} s had expired",
                got=f"404, and it stays so for {max(left.values()):.0f} s",
                expected=f"200: what does not exist is remembered for at most a tenth of CACHE_TTL_SECONDS, {TTL} s",
            )
        require(shop, answer, 200)
    finally:
        for statement in REMOVE:
            database.execute(text(statement))
        valkey.flushall()


# --- When the cache is not what it should be --------------------------------------------------------------------------


def test_what_is_found_is_not_believed(shop: Shop, pages: Pages, valkey: Redis) -> None:
    """What lies in the cache and is not of the right shape is no answer, and runs no code."""
    for page in pages.both:
        valkey.flushall()
        key = key_kept_by(valkey, lambda page=page: shop.get(page.path))
        for words, value in poisons(valkey.get(key)):
            valkey.set(key, value, keepttl=True)
            answer = shop.get(page.path)
            did = f"put {words} in the place of what was kept, {shown(key)}, then {answer.did}"
            right = is_right(answer, page)
            _recognise_unpickled(shop, did, patience=0 if right else 0.5)  # what was printed may be read a little later
            if not right:
                wrong(
                    "believes_what_it_finds",
                    did=did,
                    got=f"{answer.status}: {excerpt(answer.body)}",
                    expected="the right answer, computed: what is not of the shape that your file writes was not kept",
                )
    _recognise_unpickled(shop, did, patience=0)
    valkey.flushall()


def _recognise_unpickled(shop: Shop, did: str, patience: float) -> None:
    if UNPICKLED in shop.printed(lambda output: UNPICKLED in output, patience=patience):
        wrong(
            "unpickles_what_it_finds",
            did=did,
            got=f'code that the value named ran within the shop, and printed "{UNPICKLED}"',
            expected="that it is data, or nothing",
        )


def test_without_the_cache_all_goes_on(start: StartShop, pages: Pages, valkey: Redis) -> None:
    """With the cache gone, silent or slow, every page is right and every change is made, in a bounded time."""
    with in_background() as run, start(CACHE_TIMEOUT_SECONDS=SHORT) as shop:
        for page in pages.both:
            same(shop, page)
        ills = {
            "gone": shop.cache.tap.being("gone"),
            "silent": shop.cache.tap.being("silent"),
            "slow": shop.cache.tap.slow(2 * float(SHORT)),
        }
        for number, (ill, being) in enumerate(ills.items()):
            patch = Request("PATCH", f"/v1/products/{pages.product}", {"name": f"A name without a cache, {number}"})
            with being:
                for request in (*(Request("GET", page.path) for page in pages.both), patch):
                    _ask_without_cache(run, shop, request, ill)
                if ill != "slow":  # what was kept before, and could not be forgotten, is still there then
                    for page in pages.both:
                        same(shop, page)
    valkey.flushall()


def _ask_without_cache(run: Run, shop: Shop, request: Request, ill: str) -> None:
    """Have an answer soon, and a good one."""
    did = f"{request} with the cache {ill}, and CACHE_TIMEOUT_SECONDS={SHORT}"
    asking = run(lambda: shop.ask(request))
    done, _ = wait([asking], timeout=TOO_LONG)
    if not done:
        wrong(
            "waits_for_a_dead_cache",
            did=did,
            got=f"no answer after {TOO_LONG} s",
            expected="an answer after a few times that timeout at most",
        )
    answer = asking.result()
    if answer.status != 200:
        wrong(
            "cache_down_is_an_error",
            did=did,
            got=f"{answer.status}{logged_error(shop)}",
            expected="200: the database has all that the answer takes",
        )


# --- Many at once -----------------------------------------------------------------------------------------------------


@pytest.mark.beside
def test_not_before_it_is_so(shop: Shop, other: Shop, pages: Pages, database: Connection) -> None:
    """A change is forgotten after the commit: who reads while it is being committed does not keep the old."""
    for page in pages.both:
        same(shop, page)
    with in_background() as run, held_commits(database) as committing:
        shop.forget()
        patched = run(lambda: change(shop, pages.product, name="A fourth name"))
        until(lambda: committing() or patched.done())
        early = list(shop.cache.received)
        for page in pages.both:
            other.get(page.path)
    late = shop.cache.received[len(early) :]
    patched.result()
    for page in pages.both:
        answer = other.get(page.path)
        if not is_right(answer, page):
            evidence = {
                "did": f"PATCH with its COMMIT held back, meanwhile {page.path} of a second worker, then again",
                "got": "what was so before the change, although it is committed",
                "expected": "the name that was committed",
            }
            if early and not late:
                wrong("forgets_before_the_commit", **evidence)
            differs(**evidence, matters="Nobody forgets it again: it stays until it expires.")


@pytest.mark.beside
def test_one_computes_for_all(shop: Shop, other: Shop, pages: Pages, database: Connection, valkey: Redis) -> None:
    """Fifty readers of a list that nobody has computed yet, at two workers, cost one statement."""
    valkey.flushall()
    request = Request("GET", pages.best.path)
    workers = (shop, other)
    with in_background() as run, held(database, pages.best.table) as waiting:
        answers = [run(lambda each=each: each.together([request] * (READERS // 2))) for each in workers]
        until(lambda: all(each.database.statements or each.cache.received for each in workers))
        until(lambda: waiting() > 2, patience=0.1)
    for each, worker in zip(answers, workers, strict=True):
        for answer in {(answer.status, answer.content): answer for answer in each.result()}.values():
            same(worker, pages.best, answer)
    counts = [computations(each, pages.best) for each in workers]
    did = f"{READERS} readers of {pages.best.path} at once, half of them at a second worker, and nothing in the cache"
    if counts == [1, 1]:
        wrong("lock_in_one_process", did=did, got="2 computations, one in each worker", expected="1 computation")
    if sum(counts) > 1:
        wrong("everyone_computes", did=did, got=f"{sum(counts)} computations", expected="1 computation")


@pytest.mark.beside
def test_a_computation_may_fail(shop: Shop, other: Shop, pages: Pages, database: Connection, valkey: Redis) -> None:
    """When a computation fails, the next reader computes at once."""
    valkey.flushall()
    with in_background() as run, held(database, pages.best.table) as waiting:
        failing = run(lambda: shop.get(pages.best.path))
        until(lambda: waiting() or failing.done())
        cancel_waiting(database)
        failing.result()
        next_one = run(lambda: other.get(pages.best.path))
        if not until(lambda: waiting() or next_one.done()):
            expire_locks(valkey)
            wrong(
                "lock_kept_after_an_error",
                did=f"{pages.best.path}, whose database session was ended; then again at a second worker",
                got=f"after {PATIENCE} s it still waits for the one that failed",
                expected="that it computes: the one that failed has given the lock back",
            )
    same(other, pages.best, next_one.result())


@pytest.mark.beside
def test_whoever_computes_may_die(
    start: StartShop, other: Shop, pages: Pages, database: Connection, valkey: Redis
) -> None:
    """When the process that computes dies, the others do not wait for it for ever."""
    valkey.flushall()
    with in_background() as run, held(database, pages.best.table) as waiting:
        with start() as mortal:
            dying = run(lambda: mortal.get(pages.best.path))
            until(lambda: waiting() or dying.done())
        with suppress(LearnerFailed):
            dying.result()
        cancel_waiting(database)
        until(lambda: not waiting())
        left = lives(valkey)
        did = f"{pages.best.path} at a worker that was killed while it computed; then at another"
        if endless := [key for key, seconds in left.items() if seconds < 0]:
            wrong(
                "lock_without_expiry",
                did=did,
                got=f"a key without an expiry is left behind, {shown(endless[0])}",
                expected="an expiry on it: nobody is left who would delete it",
            )
        expire_locks(valkey)
        next_one = run(lambda: other.get(pages.best.path))
        if not until(lambda: waiting() or next_one.done()):
            differs(
                did=f"{did}, when what expires within {LONGEST_LOCK:.0f} s had expired",
                got="it still waits for the dead one",
                expected="that it computes",
                matters="Workers are killed by deployments and by the memory limit. The page is away for as long.",
            )
    same(other, pages.best, next_one.result())


@pytest.mark.beside
def test_a_lock_is_its_owners(shop: Shop, pages: Pages, database: Connection, valkey: Redis) -> None:
    """Whoever took too long does not give back the lock that another holds by now."""
    valkey.flushall()
    with in_background() as run, ExitStack() as silence:
        with held(database, pages.best.table) as waiting:
            shop.forget()
            slow = run(lambda: shop.get(pages.best.path))
            until(lambda: waiting() or slow.done())
            silence.enter_context(shop.cache.tap.being("silent"))
            said = len(shop.cache.received)
        until(lambda: len(shop.cache.received) > said or slow.done())
        locks = short_lived(valkey)
        for key in locks:  # as if its time had come, and another worker had taken it
            valkey.set(key, "another's", px=int(1000 * LONGEST_LOCK))
        silence.close()
        slow.result()
    lost = [key for key in locks if not valkey.exists(key)]
    valkey.flushall()
    if lost:
        wrong(
            "gives_back_anothers_lock",
            did="let a lock expire while its owner computed, and gave it to another; then the first one was done",
            got=f"it deleted {shown(lost[0])}, which was the other's by then",
            expected="that it stays: only whoever finds the own token in it may delete it",
        )


@pytest.mark.beside
def test_a_late_answer_is_not_kept(shop: Shop, other: Shop, pages: Pages, database: Connection, valkey: Redis) -> None:
    """An answer that was computed before a change is not kept after it."""
    for number, page in enumerate(pages.both):
        valkey.flushall()
        with in_background() as run, ExitStack() as silence:
            with held(database, "products") as waiting:
                shop.forget()
                reading = run(lambda page=page: shop.get(page.path))
                until(lambda reading=reading, waiting=waiting: waiting() or reading.done())
                silence.enter_context(shop.cache.tap.being("silent"))
                said = len(shop.cache.received)
            # it has read what is so now, and wants to keep it
            until(lambda reading=reading, said=said: len(shop.cache.received) > said or reading.done())
            change(other, pages.product, name=f"A name that came too early, {number}")
            silence.close()
            reading.result()
        for each in (shop, other):
            answer = each.get(page.path)
            if not is_right(answer, page):
                wrong(
                    "keeps_what_was_so",
                    did=f"{page.path}, held between reading and keeping; PATCH by another worker; then {answer.did}",
                    got="what was so before the change: the late answer was kept over what the change had forgotten",
                    expected="what was committed: a reader that began before the change must not keep its answer",
                )


@pytest.mark.beside
def test_a_change_is_never_left_out(shop: Shop, other: Shop, pages: Pages) -> None:
    """A change is forgotten in Valkey also by a worker that had lost Valkey a moment ago."""
    with shop.cache.tap.being("gone"):
        same(shop, pages.detail)
    for page in pages.both:
        same(other, page)
    patched = change(shop, pages.product, name="A name after an outage")
    for page in pages.both:
        answer = other.get(page.path)
        if not is_right(answer, page):
            wrong(
                "pause_swallows_the_change",
                did=f"{pages.detail.path} without Valkey; with it again, at once {patched.did}; then {answer.did} of a"
                " second worker",
                got="what was so before the change",
                expected="what was committed: Valkey was there to be told",
            )


# --- Mistakes, recognised by what only they do ------------------------------------------------------------------------


def _recognise_other_list(answer: Answer, page: Page, lists: Sequence[Page]) -> None:
    """A list is that of another window."""
    if answer.status == 200 and not is_right(answer, page):
        for another in lists:
            if is_right(answer, another):
                wrong(
                    "key_without_its_parameters",
                    did=f"{another.path}, then {page.path}",
                    got="for the second what is right for the first",
                    expected="each its own list",
                )
    require_same(answer, page)


def poisons(kept: bytes) -> Iterator[tuple[str, bytes]]:
    """What could lie in the cache instead, each in words and in bytes."""
    evil = pickle.dumps(_Stranger())
    yield "a pickle", evil
    if pickled := re.search(rb"\x80[\x02-\x05]", kept):  # behind some words of a library's own, perhaps
        yield "a pickle", kept[: pickled.start()] + evil
    yield "bytes that mean nothing", b"\xff\x00\xfe{"
    yield "nothing", b""
    yield "half of it", kept[: len(kept) // 2]
    yield "JSON of another shape", json.dumps({"surprise": True}).encode()
    yield "JSON of another shape", json.dumps([17]).encode()
    yield "JSON of another shape", json.dumps("words").encode()


class _Stranger:
    """Prints when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return print, (UNPICKLED,)


# --- Holding things back ----------------------------------------------------------------------------------------------

BLOCKED = """FROM pg_locks
WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
WAITING = f"SELECT count(*) {BLOCKED}"
CANCEL = f"SELECT pg_terminate_backend(pid) {BLOCKED}"
HOLD_COMMITS = """
CREATE FUNCTION hold_commit() RETURNS trigger LANGUAGE plpgsql
AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER hold_commit AFTER UPDATE ON products DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION hold_commit();
SELECT pg_advisory_lock(4711)
"""
RELEASE_COMMITS = "SELECT pg_advisory_unlock(4711)"
FORGET_HOLDING = "DROP TRIGGER hold_commit ON products; DROP FUNCTION hold_commit()"


@contextmanager
def held(database: Connection, table: str) -> Iterator[Callable[[], int]]:
    """Let nobody read a table while the block runs; yields what counts those who wait."""
    with database.engine.connect().execution_options(isolation_level="READ COMMITTED") as holder:
        holder.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        yield lambda: int(database.scalar(text(WAITING)) or 0)
        holder.rollback()


@contextmanager
def held_commits(database: Connection) -> Iterator[Callable[[], int]]:
    """Let nobody commit a change of a product while the block runs; yields what counts those who wait."""
    run_all(database, HOLD_COMMITS)
    try:
        yield lambda: int(database.scalar(text(WAITING)) or 0)
    finally:
        run_all(database, RELEASE_COMMITS)
        until(lambda: not database.scalar(text(WAITING)))
        run_all(database, FORGET_HOLDING)


def cancel_waiting(database: Connection) -> None:
    """End the database sessions that wait for a table."""
    database.execute(text(CANCEL))


# --- What is in Valkey ------------------------------------------------------------------------------------------------


def lives(valkey: Redis) -> dict[bytes, float]:
    """Every key with the seconds that are left to it; less than 0 if it does not expire."""
    keys: list[bytes] = [key for key in valkey.scan_iter(count=1000) if key != OTHERS_KEY.encode()]
    with valkey.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.pttl(key)
        left = pipeline.execute()
    return {key: milliseconds / 1000 for key, milliseconds in zip(keys, left, strict=True) if milliseconds != -2}


def short_lived(valkey: Redis) -> list[bytes]:
    """The keys that live no longer than a lock may."""
    return [key for key, seconds in lives(valkey).items() if 0 < seconds <= LONGEST_LOCK]


def expire_locks(valkey: Redis) -> None:
    """As if the time of every lock had come."""
    if locks := short_lived(valkey):
        valkey.delete(*locks)


def key_kept_by(valkey: Redis, ask: Callable[[], object]) -> bytes:
    """The key under which a request kept its answer: of those that it left behind, the one that holds most."""
    before = set(valkey.scan_iter(count=1000))
    ask()
    left = [key for key in valkey.scan_iter(count=1000) if key not in before] or list(before)
    return max(left, key=lambda key: valkey.memory_usage(key) or 0)


def calls(valkey: Redis) -> dict[str, int]:
    """How often Valkey has been asked each of its commands, from within scripts as well."""
    before = valkey.info("commandstats")
    return {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in before.items()}


# --- Words and small change -------------------------------------------------------------------------------------------


def change(shop: Shop, product: str, **changes: Any) -> Answer:
    """Change a product as the back office does."""
    answer = shop.ask(Request("PATCH", f"/v1/products/{product}", changes))
    require(shop, answer, 200)
    return answer


def same(shop: Shop, page: Page, answer: Answer | None = None) -> Answer:
    """Ask for a page that must be as the database has it.

    Raises:
        NotRight: it is not.
    """
    answer = answer or shop.get(page.path)
    require(shop, answer, 200)
    require_same(answer, page)
    return answer


def require_same(answer: Answer, page: Page) -> None:
    """Go on if an answer is what the database says.

    Raises:
        NotRight: tells where it is not.
    """
    if not is_right(answer, page):
        differs(
            did=answer.did,
            got=excerpt(answer.body),
            expected=excerpt(page.truth()),
            matters="A page that is fast and wrong is worse than a slow one: nobody sees that it is wrong.",
        )


def is_right(answer: Answer, page: Page) -> bool:
    """Whether an answer is what the database says."""
    return answer.status == 200 and page.shown(answer.body) == page.truth()


def names(answer: Answer, product: str) -> bool:
    """Whether a product is on a list."""
    return any(entry["id"] == product for entry in answer.body["data"])


def computations(shop: Shop, page: Page) -> int:
    """How often a page was computed."""
    return sum(bool(re.search(rf"\b{page.table}\b", statement.sql)) for statement in shop.database.statements)


require = partial(require_status, matters="A cache may make a page faster. It may not take it away.")


def excerpt(value: object) -> str:
    """The beginning of something long."""
    words = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return words if len(words) <= 160 else f"{words[:157]}..."


def shown(key: bytes) -> str:
    """A key as it can be printed."""
    return key.decode(errors="replace")


def listed(words: set[str]) -> str:
    """Words in a row, as a sentence has them."""
    *others, last = sorted(words) or ["something"]
    return f"{', '.join(others)} and {last}" if others else last
