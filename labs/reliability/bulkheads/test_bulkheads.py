"""Checks of `reliability/bulkheads`.

They ask over HTTP, and look from the other side: how many calls the providers have under way at once, and which come at
all. A provider that hangs answers when it is told to, so a check holds calls for as long as it needs, and no race is
left to chance. None of them looks at the file: semaphores, counters, queues and pools are all right.
"""

import itertools
import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Barrier
from typing import Any, Protocol

import pytest
from sqlalchemy import Connection, text

from shopfloor.checks import waiting
from shopfloor.checks.logged import logged_error
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.services.fault_plan import Plan
from shopfloor.services.providers import Provider

HANGING, WELL = Plan(rates={"hang": 1.0}), Plan()
PATIENCE = 2.0  # seconds that a check gives to what should take a few milliseconds
until = partial(waiting.until, patience=PATIENCE)
VALKEY_SECONDS = 0.3  # for a command, while a crowd comes: longer than it takes to come, also on a busy machine
SETTLED = 0.03  # seconds in which a request comes from its last statement to the bulkhead, which nobody can see

# The shop that most checks ask: one call at once, two may wait, and they wait longer than any check.
SIZE, QUEUE, CROWD = 1, 2, 8
CONNECTIONS = SIZE + QUEUE + 2

# Shops of their own: one whose waiters soon lose patience, one where nobody waits, one where many wait for little.
HASTY_SIZE, HASTY_QUEUE, HASTY_SECONDS = 2, 1, 0.15
LINE, LINE_SECONDS, LINE_CALL_SECONDS = 12, 0.15, 0.04
STRETCHED = (1, 2, 3, 5, 5, 5)  # how many times as slow everything in that line is, at each attempt


class Start(Protocol):
    """Serves the shop anew."""

    def __call__(self, **settings: str) -> Any:
        """As `shopfloor.checks.judge.StartShop`."""


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    """Of the shop that most checks ask."""
    return {
        "BULKHEAD_SIZE": str(SIZE),
        "BULKHEAD_QUEUE": str(QUEUE),
        "BULKHEAD_WAIT_SECONDS": "4.8",
        "POOL_SIZE": str(CONNECTIONS),
        # A call lasts for as long as a check has its provider hang, and is made once.
        "READ_TIMEOUT_SECONDS": "60",
        "DEADLINE_SECONDS": "60",
        "RETRY_ATTEMPTS": "1",
    }


# --- Many requests, and how far they are ------------------------------------------------------------------------------


class Crowd:
    """Requests that are under way at the same time, each in a thread of its own."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._threads = ThreadPoolExecutor(CROWD + LINE)
        self.sent: list[Sent] = []

    def send(self, *requests: Request) -> "list[Sent]":
        """Send some at once; return as soon as they are on their way."""
        start = Barrier(len(requests))
        sent = [Sent(request, self._threads.submit(self._ask, request, start)) for request in requests]
        self.sent += sent
        return sent

    def _ask(self, request: Request, start: Barrier) -> tuple[Answer, float]:
        start.wait()
        began = time.monotonic()
        return self._shop.ask(request), time.monotonic() - began

    def leave(self) -> None:
        """Wait until all have ended, one way or another."""
        self._threads.shutdown()


@dataclass(frozen=True)
class Sent:
    """A request under way."""

    request: Request
    ended: "Future[tuple[Answer, float]]"

    @property
    def answered(self) -> bool:
        """Whether its answer is there."""
        return self.ended.done() and self.ended.exception() is None

    @property
    def answer(self) -> Answer:
        """Its answer, once it is there; raises LearnerFailed if none came."""
        return self.ended.result()[0]

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended.result()[1]

    @property
    def status(self) -> int:
        """Of the answer; 0 for none."""
        return self.answer.status if self.answered else 0

    @property
    def reference(self) -> str:
        """How the payment provider knows the order that it pays."""
        return self.request.address.split("/")[3]


def answered(sent: list[Sent]) -> list[Sent]:
    """Those of some requests whose answers are there."""
    return [one for one in sent if one.answered]


ORDERS = """
UPDATE orders SET status = 'pending' WHERE id IN (
    SELECT o.id FROM orders o
    WHERE o.total_amount > 0 AND EXISTS (SELECT FROM order_items WHERE order_id = o.id) ORDER BY o.id LIMIT :count
) RETURNING public_id::text
"""


def to_pay(database: Connection, count: int) -> list[Request]:
    """Requests that pay orders, another one each, which are made payable if they are not."""
    orders = sorted(database.scalars(text(ORDERS), {"count": count}))
    return [Request("POST", f"/v1/orders/{order}/payments") for order in orders]


def to_quote(database: Connection) -> Request:
    """A request for what a delivery costs. It takes two calls at once, one for each speed."""
    (order,) = database.scalars(text(ORDERS), {"count": 1})
    return Request("GET", f"/v1/orders/{order}/delivery-quotes")


def came_to_pay(shop: Shop) -> int:
    """How many payments have done, since `shop` last forgot, all that comes before the call."""
    return sum(bool(re.search(r"\bFROM payments\b", statement.sql)) for statement in shop.database.statements)


def references(payments: Provider) -> list[str]:
    """Whose charges came, as text."""
    return [received.body.decode() for received in payments.received()]


# --- What was seen, once for several checks ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Rush:
    """What came of a crowd that paid while the provider hung, and of others meanwhile.

    Attributes:
        did: in words.
        crowd: the payments.
        most: how many of them the provider had at once.
        early: the payments that were answered while it hung.
        catalogue: a request for products meanwhile.
        quotes: a request for what a delivery costs meanwhile.
        shared: whether commands reached Valkey meanwhile.
        freed: whether any payment was made soon after the provider was well again.
        made: how many charges came to it in all.
    """

    did: str
    crowd: list[Sent]
    most: int
    early: list[Sent]
    catalogue: Sent
    quotes: Sent
    shared: bool
    freed: bool
    made: int


@pytest.fixture(scope="module")
def rush(shop: Shop, providers: dict[str, Provider], database: Connection) -> Rush:
    """A crowd pays at once while the provider hangs. Valkey is slow, for whoever asks it."""
    payments = providers["payments"]
    beyond = CROWD - SIZE - QUEUE
    crowd, others = Crowd(shop), Crowd(shop)
    payments.forget()
    payments.plan = HANGING
    try:
        with shop.cache.tap.slow(VALKEY_SECONDS):
            sent = crowd.send(*to_pay(database, CROWD))
            until(lambda: payments.counts().most > SIZE or len(answered(sent)) >= beyond)
        shared = bool(shop.cache.received)
        early = answered(sent)
        catalogue, quotes = others.send(Request("GET", "/v1/products?limit=1"), to_quote(database))
        right_so_far = payments.counts().most <= SIZE and len(early) == beyond
        until(lambda: catalogue.answered and quotes.answered, patience=PATIENCE if right_so_far else 0.3)
        catalogue, quotes = as_now(catalogue), as_now(quotes)
        payments.plan = WELL
        freed = until(lambda: len(answered(sent)) > len(early))
    finally:
        payments.plan = WELL
        crowd.leave()
        others.leave()
    return Rush(
        did=f"{CROWD} payments at once while the provider hangs; BULKHEAD_SIZE={SIZE}, BULKHEAD_QUEUE={QUEUE}",
        crowd=sent,
        most=payments.counts().most,
        early=early,
        catalogue=catalogue,
        quotes=quotes,
        shared=shared,
        freed=freed,
        made=payments.counts().requests,
    )


def as_now(sent: Sent) -> Sent:
    """The same, but if there is no answer by now there never will be."""
    return sent if sent.answered else Sent(sent.request, Future())


@dataclass(frozen=True)
class Hasty:
    """What came of failing calls, and then of callers who waited for a provider that hung, one after another.

    Attributes:
        failed: the payments that the provider refused or failed, one after another.
        holders: as many payments as there are places.
        held: how many of them came to the provider, and hung.
        disowned: how many of them were answered while the provider still had them.
        waiters: the payments that came then, each as soon as the one before had been answered.
        most: how many the provider had at once until it was well again.
        last: a payment after that.
        charged: the charges that came from when it hung, as text.
    """

    failed: list[Answer]
    holders: list[Sent]
    held: int
    disowned: int
    waiters: list[Sent]
    most: int
    last: Answer
    charged: list[str]


FAILURES = {"error 402": 402, "error 503": 502}  # what the provider answers, and what the shop does then


@pytest.fixture(scope="module")
def hasty(start: Start, providers: dict[str, Provider], database: Connection) -> Hasty:
    """Callers who wait for a short time only."""
    payments = providers["payments"]
    limits = {
        "BULKHEAD_SIZE": str(HASTY_SIZE),
        "BULKHEAD_QUEUE": str(HASTY_QUEUE),
        "BULKHEAD_WAIT_SECONDS": str(HASTY_SECONDS),
    }
    with start(**limits) as shop:
        crowd = Crowd(shop)
        requests = iter(to_pay(database, len(FAILURES) + HASTY_SIZE + 3))
        payments.forget()
        payments.plan = Plan(script=tuple(FAILURES))
        failed = [shop.ask(next(requests)) for _ in FAILURES]
        payments.forget()
        payments.plan = HANGING
        try:
            holders = crowd.send(*(next(requests) for _ in range(HASTY_SIZE)))
            until(lambda: payments.counts().now >= HASTY_SIZE or bool(answered(holders)))
            until(lambda: payments.counts().now >= HASTY_SIZE)  # also those whose callers did not wait for it
            held = payments.counts().now
            first = _wait_in_vain(crowd, next(requests), payments)
            second = _wait_in_vain(crowd, next(requests), payments) if first.answered else first
            disowned, most = len(answered(holders)), payments.counts().most
            payments.plan = WELL
            until(lambda: len(answered(holders)) == len(holders))
            last = shop.ask(next(requests))
        finally:
            payments.plan = WELL
            crowd.leave()
    return Hasty(failed, holders, held, disowned, [first, second], most, last, references(payments))


def _wait_in_vain(crowd: Crowd, request: Request, payments: Provider) -> Sent:
    """Send one more than there are places, and give it the time to be refused, or to come through all the same."""
    (waiter,) = crowd.send(request)
    until(lambda: waiter.answered or payments.counts().now > HASTY_SIZE)
    return as_now(waiter)


# --- The checks -------------------------------------------------------------------------------------------------------


def test_no_more_at_once_than_its_size(
    rush: Rush, shop: Shop, start: Start, delivery: Provider, database: Connection
) -> None:
    """Of a crowd that calls a dependency at once, only `bulkhead_size` are with it at any time."""
    _recognise_lost_context(rush, shop)
    if rush.most > SIZE:
        evidence = {"did": rush.did, "got": f"{rush.most} calls at once at the provider", "expected": f"{SIZE}"}
        if rush.shared:
            wrong("read_then_counted", **evidence)
        _recognise_one_for_each_request(start, delivery, database)
        differs(
            **evidence,
            matters="Each call that hangs holds a thread of the server and a connection to the database. With no limit"
            " they are soon all held, and the pages that need no payment provider have none left.",
        )


def test_whoever_finds_no_room_is_refused_at_once(rush: Rush) -> None:
    """Whoever finds all places taken and the queue full is refused at once, and not when something has ended."""
    beyond = CROWD - SIZE - QUEUE
    if len(rush.early) == beyond:
        return
    evidence = {
        "did": rush.did,
        "got": f"{len(rush.early)} of them were answered before the provider was well again",
        "expected": f"{beyond}: there is room for {SIZE} that call and {QUEUE} that wait",
    }
    if rush.made == CROWD:
        wrong("unbounded_queue", **evidence)
    if not rush.freed:
        evidence["got"] += f", and none in the {PATIENCE} s after the provider had answered its one call"
        wrong("waits_holding_the_lock", **evidence)
    differs(
        **evidence,
        matters="Each caller that waits holds a thread and a connection, and most of them wait for nothing. And fewer"
        " places than the settings say turn customers away for nothing.",
    )


def test_a_refusal_is_one_the_shop_understands(rush: Rush, shop: Shop) -> None:
    """A call for which there is no room fails as one that was not made: the payment is answered with 502."""
    for sent in rush.early:
        if sent.status == 502:
            continue
        evidence = {
            "did": f"{sent.request}, for which there was no room",
            "got": f"{sent.status}{logged_error(shop) if sent.status == 500 else ''}",
            "expected": "502: the payment is still to be made, and nobody was asked for it",
        }
        if sent.status == 500 and "'NoneType'" in evidence["got"]:
            wrong("full_is_none", **evidence)
        if sent.status == 503:
            wrong("answer_of_the_web", **evidence)
        differs(
            **evidence,
            matters="What stands around the bulkhead knows NotAsked: it records the payment for later, or says what"
            " became of it. Any other error is a crash to it.",
        )


def test_others_are_untouched(rush: Rush) -> None:
    """While payments hang, deliveries are quoted and the catalogue is shown."""
    if rush.quotes.status == 503:
        wrong(
            "one_for_all",
            did=f"{rush.quotes.request} while payments hang, and the delivery company is well",
            got=f"{rush.quotes.status}: {_detail(rush.quotes.answer)}",
            expected="200: what hangs is another dependency",
        )
    for sent in (rush.quotes, rush.catalogue):
        if sent.status != 200:
            differs(
                did=f"{sent.request} while payments hang",
                got=sent.status or f"no answer within {PATIENCE} s",
                expected=200,
                matters="This page asks nothing of the payment provider. What it lacks is held by payments that wait: a"
                " thread, a place of a shared bulkhead, or a connection to the database.",
            )


def test_those_who_wait_get_their_turn(rush: Rush) -> None:
    """When a call ends, one that waits is made: at the end all who found room have paid."""
    paid = [sent for sent in rush.crowd if sent.status == 201]
    if len(paid) != SIZE + QUEUE or rush.made != SIZE + QUEUE:
        for sent in rush.crowd:
            if not sent.answered:
                sent.answer  # noqa: B018 - raises what there is to say
        differs(
            did=f"{rush.did}; then it is well again",
            got=f"{len(paid)} payments made, {rush.made} charges at the provider",
            expected=f"{SIZE + QUEUE} of either: {SIZE} that called, {QUEUE} that waited",
            matters="A place that is free while somebody waits for it is capacity lost; a charge without a payment is"
            " money that nobody knows of.",
        )


def test_whoever_waits_longest_is_next(rush: Rush, shop: Shop, payments: Provider, database: Connection) -> None:
    """A place that becomes free goes to whoever has waited longest."""
    if rush.most > SIZE:
        differs(
            did=rush.did,
            got=f"{rush.most} calls at once",
            expected=f"{SIZE}, and others that wait for a place",
            matters="There is no order among those who do not wait.",
        )
    for _ in range(3):  # a machine that is busy can hold up the first until the second has passed it, but not each time
        first, second, made = _in_line(shop, payments, database)
        if made == first:
            return
        if made not in (first, second):
            differs(
                did="2 payments waited for the only place; the call that had it ended, whose customer had hung up",
                got=f"{made or 'nothing'} came to the provider next",
                expected="the first of them",
                matters="A place that nobody has is no use.",
            )
    wrong(
        "newest_first",
        did="2 payments waited for the only place, one after the other, and it became free; 3 times",
        got="the one that had come last was made first, each time",
        expected="the one that had waited longest",
    )


def test_a_place_is_given_back_whatever_happens(hasty: Hasty) -> None:
    """Calls that fail give their places back."""
    if hasty.held < HASTY_SIZE:
        wrong(
            "lost_on_an_exception",
            did=f"the provider refused one payment and failed the next; then came {HASTY_SIZE} at once, and hung",
            got=f"{hasty.held} of these at the provider",
            expected=f"{HASTY_SIZE}: a place is free again when the call has ended, well or not",
        )


def test_nobody_waits_for_longer_than_allowed(hasty: Hasty) -> None:
    """Whoever waits is refused after `bulkhead_wait_seconds`; the calls themselves may take longer."""
    if hasty.disowned:
        wrong(
            "wait_limits_the_call",
            did=f"{HASTY_SIZE} payments for which the provider takes longer than BULKHEAD_WAIT_SECONDS={HASTY_SECONDS}",
            got=f"{hasty.disowned} of them answered meanwhile, as if nobody had been asked",
            expected="no answer before the provider's: that limit is for those who wait for a place",
        )
    hang = f"{HASTY_SIZE} payments hang; BULKHEAD_WAIT_SECONDS={HASTY_SECONDS}"
    first, second = hasty.waiters
    did = f"{hang}; another comes"
    if not first.answered and hasty.most <= HASTY_SIZE:
        wrong("waits_for_ever", did=did, got=f"no answer to it after {PATIENCE} s", expected="502 by then")
    did_again = f"{did}, and when it has been refused, one more"
    if first.answered and hasty.most > HASTY_SIZE:
        wrong(
            "gives_back_what_it_never_had",
            did=did_again,
            got=f"{hasty.most} calls at once at the provider",
            expected=f"{HASTY_SIZE}: the place that the first one waited for in vain is not its own to give back",
        )
    if second.answered and second.seconds < HASTY_SECONDS <= first.seconds:
        wrong(
            "queue_place_lost",
            did=did_again,
            got=f"{second.status} at once for the second, where the first had been let wait",
            expected="502 after it has waited, as the first did: nobody else is in the queue any more",
        )
    for waiter in hasty.waiters:
        if waiter.status != 502 or waiter.seconds < HASTY_SECONDS:
            differs(
                did=did,
                got=f"{waiter.status}, after {waiter.seconds:.3f} s" if waiter.answered else "no answer in time",
                expected=f"502, after {HASTY_SECONDS} s",
                matters="Many calls end within moments. A short queue in which one waits for a short time lets a burst"
                " through that would be refused for nothing.",
            )


def test_what_was_refused_is_not_done(hasty: Hasty) -> None:
    """A call that was refused is not made afterwards; one that was made is told of."""
    if any(waiter.reference in charge for waiter in hasty.waiters for charge in hasty.charged):
        wrong(
            "made_for_nobody",
            did="a payment that waited in vain was answered with 502; then the provider was well again",
            got="its charge came to the provider after all",
            expected="no charge: whoever was told that nobody was asked may pay again, or elsewhere",
        )
    for sent in hasty.holders:
        if sent.status != 201:
            differs(
                did=f"{sent.request}, which the provider answered with success in the end",
                got=sent.status,
                expected=201,
                matters="The customer's money is taken, and the shop does not know it.",
            )


def test_errors_come_through(hasty: Hasty, shop: Shop) -> None:
    """Whoever calls learns how the call failed; and after all that, payments are made as before."""
    statuses = [answer.status for answer in hasty.failed]
    expected = list(FAILURES.values())
    if statuses != expected:
        differs(
            did=f"payments, one after another, to which the provider answers {' and '.join(FAILURES)}",
            got=f"the answers {statuses}{logged_error(shop) if 500 in statuses else ''}",
            expected=expected,
            matters="A card that was declined is the customer's to mend, a provider that fails is not: the error that"
            " the call raises must come through as it is.",
        )
    if hasty.last.status != 201:
        evidence = {
            "did": f"{HASTY_SIZE} payments hung, and {len(hasty.waiters)} waited in vain; the provider is well again,"
            " the first have been answered, and one more comes",
            "got": f"{hasty.last.status} for it",
            "expected": "201: nothing is under way",
        }
        if hasty.last.status == 502:
            wrong("handed_to_the_gone", **evidence)
        differs(
            **evidence,
            matters="The bulkhead has fewer places than it had. When the last is lost, nothing is asked any more until"
            " somebody restarts the shop.",
        )


@pytest.mark.beside
def test_no_queue_is_no_queue(start: Start, payments: Provider, delivery: Provider, database: Connection) -> None:
    """With `bulkhead_queue` 0 nobody waits; a quote for which there is no room is answered with 503 and Retry-After."""
    with start(BULKHEAD_SIZE="1", BULKHEAD_QUEUE="0") as shop:
        crowd = Crowd(shop)
        payments.plan = HANGING
        try:
            first, *rest = to_pay(database, 3)
            crowd.send(first)
            until(lambda: payments.counts().now == 1)
            refused = crowd.send(*rest)
            until(lambda: len(answered(refused)) == len(refused) or payments.counts().now > 1)
            early, most = answered(refused), payments.counts().most
            # It takes two calls; should the second be held up until the first has ended, both are made: then once more.
            quotes = next(filter(_is_refused, (_hanging_quotes(shop, delivery, database) for _ in range(3))), None)
        finally:
            payments.plan = WELL
            crowd.leave()
    did = "a payment hangs, and two more come; BULKHEAD_SIZE=1, BULKHEAD_QUEUE=0"
    if not early and most == 1:
        wrong(
            "zero_means_endless",
            did=did,
            got=f"neither was answered within {PATIENCE} s",
            expected="502 for both, at once: a queue of length 0 has room for nobody",
        )
    if len(early) < len(refused) or any(sent.status != 502 for sent in early):
        differs(
            did=did,
            got=f"{len(early)} answered within {PATIENCE} s: {[sent.status for sent in early]}",
            expected="502 for both, at once",
            matters="Whoever sets the queue to 0 wants to refuse rather than wait.",
        )
    retry_after = quotes.headers.get("retry-after", "none") if quotes else "none"
    if not re.fullmatch(r"[1-9]\d?", retry_after):
        differs(
            did="GET .../delivery-quotes, which takes two calls at once; BULKHEAD_SIZE=1, BULKHEAD_QUEUE=0",
            got=f"{quotes.status if quotes else 200}, Retry-After: {retry_after}",
            expected="503, with a Retry-After of some seconds, which NotAsked carries as retry_after",
            matters="A caller who is not told when to come back comes back at once.",
        )


@pytest.mark.beside
def test_the_wait_is_counted_from_arrival(start: Start, payments: Provider, database: Connection) -> None:
    """The wait is counted from arrival, however many others get a place meanwhile."""
    seen = 0
    for stretch in STRETCHED:
        limit = stretch * LINE_SECONDS
        limits = {"BULKHEAD_SIZE": "1", "BULKHEAD_QUEUE": str(LINE), "BULKHEAD_WAIT_SECONDS": str(limit)}
        with start(**limits, POOL_SIZE=str(LINE + 1)) as shop:
            line = _served_in_turn(shop, payments, database, stretch * LINE_CALL_SECONDS, limit)
        if line.waited > 2.5 * limit:
            seen += 1  # a machine that is busy can hold up a call that has begun, but not twice
        elif line.complete and line.waited < 1.5 * limit and line.longest < limit:
            return
        # Else they came too slowly, or were served too slowly to let another's wait begin anew: once more, all slower.
        if seen == 2:
            break
    else:
        return
    wrong(
        "wait_starts_over",
        did=f"{LINE + 1} payments at once, each of which takes {stretch * LINE_CALL_SECONDS:.2g} s; BULKHEAD_SIZE=1,"
        f" BULKHEAD_WAIT_SECONDS={limit:.2g}",
        got=f"{line.made} of them were made, the last after it had waited for {line.waited:.2f} s",
        expected=f"nobody waits for longer than {limit:.2g} s",
    )


# --- Mistakes, recognised by what only they do ------------------------------------------------------------------------


def _recognise_lost_context(rush: Rush, shop: Shop) -> None:
    """Every call fails, as where it is made there is no application."""
    if rush.made == 0 and any(sent.status == 500 for sent in rush.crowd):
        error = logged_error(shop)
        evidence = {"did": rush.did, "got": f"500, and no call at the provider{error}", "expected": "one call there"}
        if "Working outside of application context" in error:
            wrong("workers_without_context", **evidence)
        differs(**evidence, matters="No order can be paid.")


def _recognise_one_for_each_request(start: Start, delivery: Provider, database: Connection) -> None:
    """There is a limit, but each request has one to itself."""
    with start(BULKHEAD_SIZE="1", BULKHEAD_QUEUE="0") as shop:
        refused = any(_is_refused(_hanging_quotes(shop, delivery, database)) for _ in range(3))
    if refused:
        wrong(
            "one_for_each_request",
            did=f"{CROWD} payments at once; then a single request that takes two calls, with BULKHEAD_SIZE=1",
            got="more payments at once than there are places, while the single request was refused its second call",
            expected="one limit for all requests together",
        )


def _hanging_quotes(shop: Shop, delivery: Provider, database: Connection) -> Answer:
    """What is answered to whoever asks for quotes, whose calls hang for a moment."""
    crowd = Crowd(shop)
    delivery.plan = HANGING
    try:
        (quotes,) = crowd.send(to_quote(database))
        until(lambda: delivery.counts().now >= 1)
        until(lambda: delivery.counts().now > 1, patience=SETTLED)
    finally:
        delivery.plan = WELL
        crowd.leave()
    return quotes.answer


def _is_refused(answer: Answer) -> bool:
    return answer.status != 200


def _in_line(shop: Shop, payments: Provider, database: Connection) -> tuple[str, str, str]:
    """Have two payments wait, one after the other, and free the place.

    Returns:
        The reference of the first, that of the second, and that of the next charge: empty for none.
    """
    crowd = Crowd(shop)
    payments.forget()
    payments.plan = HANGING
    try:
        holder, first, second = to_pay(database, 3)
        with shop.asking(holder):  # and left alone with its call: whoever waited for the answer hangs up
            until(lambda: payments.counts().now == 1)
        for request in (first, second):
            (sent,) = crowd.send(request)
            until(lambda: came_to_pay(shop) > 0 or sent.answered)  # noqa: B023 - it is called in this round
            until(lambda: sent.answered, patience=SETTLED)  # noqa: B023 - as above
        payments.plan = Plan(rates=HANGING.rates)  # another plan: who hung is answered, the next hangs
        until(lambda: payments.counts().requests > 1)
        made = references(payments)[1:]
    finally:
        payments.plan = WELL
        crowd.leave()
    names = [request.address.split("/")[3] for request in (first, second)]
    return names[0], names[1], next((name for name in names if made and name in made[0]), "")


@dataclass(frozen=True)
class Line:
    """What came of many who waited for the only place.

    Attributes:
        complete: whether all of them stood in line before the wait of the first could end.
        made: how many calls the provider got.
        waited: seconds from when all were there until the last call came to it.
        longest: most seconds between two calls.
    """

    complete: bool
    made: int
    waited: float
    longest: float


def _served_in_turn(shop: Shop, payments: Provider, database: Connection, call_seconds: float, limit: float) -> Line:
    """Have many wait for the only place while the call that has it hangs; then let them be served in turn.

    Args:
        shop: with one place, and room in the line for all others.
        payments: makes each call wait.
        database: whose orders are paid.
        call_seconds: how long.
        limit: seconds that whoever stands in line may wait.
    """
    payments.forget()
    payments.plan = HANGING
    began = time.monotonic()
    with ThreadPoolExecutor(1) as threads:
        try:
            crowd = threads.submit(shop.together, to_pay(database, LINE + 1))
            until(lambda: came_to_pay(shop) == LINE + 1 or crowd.done())
            all_there = time.monotonic()
            payments.plan = Plan(latency=call_seconds)
            crowd.result()
        finally:
            payments.plan = WELL
    made = [received.at for received in payments.received()]
    return Line(
        complete=all_there - began < limit,
        made=len(made),
        waited=made[-1] - all_there if made else 0.0,
        longest=max((later - one for one, later in itertools.pairwise(made)), default=0.0),
    )


# --- Words and small change -------------------------------------------------------------------------------------------


def _detail(answer: Answer) -> str:
    """What an error says of itself."""
    return str(answer.body.get("error")) if isinstance(answer.body, dict) else str(answer.body)[:80]
