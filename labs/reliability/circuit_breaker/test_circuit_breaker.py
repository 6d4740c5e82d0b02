"""Checks of `reliability/circuit_breaker`.

They pay orders and ask for quotes over HTTP, and count what reaches the providers. Nothing is asserted of how long
anything takes: a check that asks whether a breaker let somebody through too early compares two moments at the provider,
and the breaker's recovery time lies between them however slow the machine is. The recovery times that have to pass are
spent on other checks, and these are made beside the rest.
"""

import itertools
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import pytest
from sqlalchemy import Connection, text

from shopfloor.checks import waiting
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.services.fault_plan import Plan as FaultPlan
from shopfloor.services.payments import DECLINED, Charges
from shopfloor.services.providers import Provider, running

MINIMUM, SUCCESSES = 4, 4
LONG = 60  # seconds: longer than the checks take
SHORTEST_RECOVERY = 0.045  # seconds, of the shops whose breakers are to recover; more where the machine is slow
WINDOW = 0.4  # of the shop that is to forget
TOGETHER = 20
SLOW = 8
PAGES_LONG_AGO = 6  # of quotes, each of which makes two calls
PATIENCE = 2.0  # seconds, for what takes milliseconds; many recovery times for what takes some of them
until = partial(waiting.until, patience=PATIENCE)
RECOVERIES = 30
BUSY_ROUNDS = 5
DOWN = FaultPlan(rates={"reset": 1})
PATIENT = {"READ_TIMEOUT_SECONDS": "30", "DEADLINE_SECONDS": "30"}  # where a call is to hang for as long as it should

CLOSED, HALF_OPEN, OPEN = 0, 1, 2
STATES = {CLOSED: "0 (closed)", HALF_OPEN: "1 (half-open)", OPEN: "2 (open)", None: "no such series"}


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    """A breaker that judges after four calls, and once open stays so for as long as the checks run."""
    return {
        "RETRY_ATTEMPTS": "1",  # a call is one request at the provider
        "READ_TIMEOUT_SECONDS": "0.05",
        "BREAKER_WINDOW_SECONDS": str(LONG),
        "BREAKER_MINIMUM_CALLS": str(MINIMUM),
        "BREAKER_FAILURE_RATE": "0.5",
        "BREAKER_RECOVERY_SECONDS": str(LONG),
        "BREAKER_SUCCESSES": str(SUCCESSES),
        "POOL_SIZE": str(TOGETHER + 5),  # so that nobody waits for the database who should be asking a provider
    }


# --- Orders -----------------------------------------------------------------------------------------------------------

UNPAID = """
WITH chosen AS (
    SELECT id FROM orders o WHERE total_amount > 0 AND EXISTS (SELECT FROM order_items WHERE order_id = o.id)
    ORDER BY id LIMIT 400
), without_payments AS (DELETE FROM payments WHERE order_id IN (SELECT id FROM chosen))
UPDATE orders SET status = 'pending' WHERE id IN (SELECT id FROM chosen) RETURNING public_id::text
"""
CARD_DECLINED = """
UPDATE orders SET public_id = (left(public_id::text, 28) || :ending)::uuid WHERE public_id::text = :order
RETURNING public_id::text
"""
PAYMENTS_OF = """
SELECT p.status, p.idempotency_key::text AS key FROM payments p JOIN orders o ON o.id = p.order_id
WHERE o.public_id::text = :order ORDER BY p.id
"""


@pytest.fixture(scope="module")
def unpaid(database: Connection) -> Iterator[str]:
    """Orders that are still to be paid, one after another; when they are at an end, the same ones, unpaid again."""
    return itertools.chain.from_iterable(database.scalars(text(UNPAID)).all() for _ in itertools.count())


@pytest.fixture(scope="module")
def declined(database: Connection, unpaid: Iterator[str]) -> str:
    """An order whose customer's card is always declined."""
    return str(database.scalar(text(CARD_DECLINED), {"ending": DECLINED, "order": next(unpaid)}))


# --- Asking, and what reaches the provider ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What came of a request.

    Attributes:
        reached: how many calls reached the provider meanwhile.
    """

    answer: Answer
    reached: int


@dataclass
class Counter:
    """Where orders of one shop are paid, or quotes are given, and the provider behind it."""

    shop: Shop
    dependency: str
    provider: Provider
    orders: Iterator[str]
    recovery: float = LONG
    stuck: ClassVar[set[Shop]] = set()  # in vain they were given time once, and a verdict should not take a minute

    def request(self, order: str | None = None) -> Request:
        """Pay an order, or ask what its delivery costs; another one each time."""
        order = order or next(self.orders)
        if self.dependency == "payments":
            return Request("POST", f"/v1/orders/{order}/payments")
        return Request("GET", f"/v1/orders/{order}/delivery-quotes")

    def ask(self, order: str | None = None) -> Asked:
        """Ask once."""
        before = self.provider.counts().requests
        answer = self.shop.ask(self.request(order))
        return Asked(answer, self.provider.counts().requests - before)

    @contextmanager
    def together(self, count: int) -> Iterator[list[Future[Answer]]]:
        """Ask in as many threads at once; what still hangs when the block ends is let go."""
        requests = [self.request() for _ in range(count)]
        with ThreadPoolExecutor(count) as threads:
            try:
                yield [threads.submit(self.shop.ask, request) for request in requests]
            finally:
                self.provider.plan = FaultPlan()

    def state(self) -> int | None:
        """What `/metrics` says of its breaker."""
        page = str(self.shop.get("/metrics").body)
        series = rf'^circuit_breaker_state\{{dependency="{self.dependency}"[^}}]*\}} (\S+)$'
        found = re.search(series, page, re.MULTILINE)
        return int(float(found[1])) if found else None

    def is_let_through(self, *, pause: float = 0.1) -> Asked | None:
        """Ask again and again, after pauses of so many recovery times, until one reaches the provider; None if none."""
        deadline = time.monotonic() + self._patience()
        while time.monotonic() < deadline:
            asked = self.ask()
            if asked.reached:
                return asked
            time.sleep(pause * self.recovery)
        self.stuck.add(self.shop)
        return None

    @contextmanager
    def hanging_probe(self) -> Iterator[bool]:
        """Ask again and again until a call reaches the provider, where it hangs during the block; whether one did."""
        self.provider.plan = FaultPlan(script=("hang",))
        deadline = time.monotonic() + self._patience()
        with ThreadPoolExecutor(1) as thread:
            try:
                while time.monotonic() < deadline and not self.provider.counts().now:
                    asking = thread.submit(self.shop.ask, self.request())
                    until(partial(self._over_or_hanging, asking))
                yield self.provider.counts().now > 0
            finally:
                self.provider.plan = FaultPlan()

    def _patience(self) -> float:
        patience = RECOVERIES * self.recovery
        return patience / 10 if self.shop in self.stuck else patience

    def _over_or_hanging(self, asking: Future[Answer]) -> bool:
        return asking.done() or self.provider.counts().now > 0


Start = Callable[..., Any]


@dataclass(frozen=True)
class Left:
    """A shop that was brought into a state and left alone."""

    shop: Shop
    recovery: float = LONG
    at: float = field(default_factory=time.monotonic)

    def wait(self, seconds: float) -> Shop:
        """Until so much time has passed since."""
        time.sleep(max(0.0, self.at + seconds - time.monotonic()))
        return self.shop


@pytest.fixture(scope="module")
def healthy(start: Start) -> Iterator[Shop]:
    """A shop whose providers are mostly well."""
    with start(**PATIENT) as shop:
        yield shop


@pytest.fixture(scope="module")
def forgetful(start: Start, providers: dict[str, Provider], unpaid: Iterator[str]) -> Iterator[Left]:
    """A shop whose breakers look back a moment. Long ago twelve quotes of it went well, and two payments did not."""
    with start(**PATIENT, BREAKER_WINDOW_SECONDS=str(WINDOW)) as shop:
        desk = Counter(shop, "delivery", providers["delivery"], unpaid)
        for _ in range(PAGES_LONG_AGO):
            desk.ask()
        providers["payments"].plan = DOWN
        till = Counter(shop, "payments", providers["payments"], unpaid)
        for _ in range(MINIMUM // 2):
            till.ask()
        yield Left(shop)


def time_to_recover(shop: Shop) -> float:
    """Seconds in which a crowd comes and goes on this machine, several times over."""
    began = time.monotonic()
    shop.together([Request("GET", "/livez")] * TOGETHER)
    return max(SHORTEST_RECOVERY, 2 * (time.monotonic() - began))


@pytest.fixture(scope="module")
def quick(start: Start, providers: dict[str, Provider], unpaid: Iterator[str], forgetful: Left) -> Iterator[Left]:
    """A shop whose breaker for payments a crowd has opened, and which recovers soon. Its clock was set back then."""
    recovery = time_to_recover(forgetful.shop)
    with start(**PATIENT, BREAKER_RECOVERY_SECONDS=str(recovery)) as shop:
        till = Counter(shop, "payments", providers["payments"], unpaid)
        providers["payments"].plan = DOWN
        shop.together([till.request() for _ in range(TOGETHER)])  # which opens as many connections to the database
        shop.turn_clock(-3600)
        yield Left(shop, recovery)


# --- It opens ---------------------------------------------------------------------------------------------------------


def test_a_provider_that_fails_is_asked_no_more(
    shop: Shop, start: Start, payments: Provider, unpaid: Iterator[str]
) -> None:
    """After four calls that all failed, whichever way, the payment provider is not asked any more."""
    till = Counter(shop, "payments", payments, unpaid)
    payments.plan = FaultPlan(script=("error 500", "reset", "hang", "malformed"))
    for number in range(1, MINIMUM + 1):
        asked = till.ask()
        _recognise_swallowed(asked)
        if not asked.reached:
            wrong(
                "opens_on_a_lone_error",
                did=f"{number} payments, of which the first {number - 1} failed, with BREAKER_MINIMUM_CALLS={MINIMUM}",
                got=f"payment {number} did not reach the provider",
                expected=f"it is asked: fewer than {MINIMUM} calls say nothing",
            )
    extra = sum(till.ask().reached for _ in range(MINIMUM))
    if extra:
        _recognise_forgotten_breaker(start, payments, unpaid, shop)
        differs(
            did=f"{MINIMUM} payments that failed (error 500, reset, no answer, half of one), then {MINIMUM} more",
            got=f"{extra} of the {MINIMUM} more reached the provider",
            expected="none of them: all of the last four calls failed, and half of them would have been enough",
            matters="Every customer waits for a provider that is down, with a thread of the shop each, and every"
            " call makes it harder for the provider to come back.",
        )


def test_half_of_the_calls_is_enough(shop: Shop, delivery: Provider, unpaid: Iterator[str]) -> None:
    """The delivery company has a breaker of its own, which opens when half of the calls fail."""
    desk = Counter(shop, "delivery", delivery, unpaid)
    delivery.plan = FaultPlan(script=("reset", "ok") * 10)  # each page of quotes makes two calls, side by side
    first = desk.ask()
    if not first.reached:
        wrong(
            "one_breaker_for_all",
            did=f"{first.answer.did}, while the payment provider had been failing, and the delivery company had not",
            got=f"{first.answer.status}, and nothing reached the delivery company",
            expected="it is asked: whoever is well goes on working when another is sick",
        )
    _recognise_swallowed(first)
    reached = [desk.ask().reached for _ in range(9)]
    if all(reached):
        wrong(
            "consecutive_failures",
            did="20 calls to the delivery company, of which every other one failed, with BREAKER_FAILURE_RATE=0.5",
            got="every single one reached it",
            expected="its breaker opens after a few: half of them failed",
        )


# --- While it is open -------------------------------------------------------------------------------------------------


def test_while_open_nobody_is_asked(shop: Shop, payments: Provider, unpaid: Iterator[str]) -> None:
    """An open breaker stays open until its time has passed, whatever the time of day."""
    till = Counter(shop, "payments", payments, unpaid)
    shop.turn_clock(3600)
    try:
        asked = till.ask()
    finally:
        shop.turn_clock(-3600)
    if asked.reached:
        wrong(
            "wall_clock",
            did=f"set the clock on by an hour while the breaker was open, with BREAKER_RECOVERY_SECONDS={LONG}",
            got="the next payment reached the provider: the breaker believes that an hour has passed",
            expected="it stays open: a clock that is corrected is no time that passes",
        )


def test_who_pays_meanwhile_is_told_the_truth(
    shop: Shop, payments: Provider, unpaid: Iterator[str], database: Connection
) -> None:
    """Whoever pays while the breaker is open is told at once that the payment is pending, and it is recorded so."""
    till, order = Counter(shop, "payments", payments, unpaid), next(unpaid)
    asked = till.ask(order)
    records = database.execute(text(PAYMENTS_OF), {"order": order}).all()
    if asked.answer.status == 201 or "succeeded" in {record.status for record in records}:
        wrong(
            "fallback_that_lies",
            did=f"{asked.answer.did}, while the breaker was open",
            got=f"{asked.answer.status}, status {_field(asked.answer, 'status')!r}; the provider made"
            f" {len(payments.made())} charges for it",
            expected="202, pending: nobody has taken any money",
        )
    got = f"{asked.answer.status}, and {_listed(record.status for record in records) or 'nothing'} recorded"
    if asked.answer.status != 202 or [record.status for record in records] != ["pending"]:
        differs(
            did=f"{asked.answer.did}, while the breaker was open",
            got=got,
            expected="202, and one payment recorded as pending",
            matters="The customer has done their part. A pending payment is charged later; an error is their problem.",
        )


def test_who_asks_for_quotes_is_told_when_to_come_back(shop: Shop, delivery: Provider, unpaid: Iterator[str]) -> None:
    """While the delivery company's breaker is open there are no quotes, and the answer says when to ask again."""
    asked = Counter(shop, "delivery", delivery, unpaid).ask()
    after = asked.answer.headers.get("retry-after", "")
    if asked.answer.status != 503 or not after.isdigit() or not 1 <= int(after) <= LONG:
        differs(
            did=f"{asked.answer.did}, while the breaker was open",
            got=f"{asked.answer.status}, Retry-After: {after or 'missing'}",
            expected=f"503, with Retry-After from 1 to {LONG}: the retry_after of NotAsked, in seconds",
            matters="A client that is not told when to come back comes back at once.",
        )


# --- It stays closed --------------------------------------------------------------------------------------------------


def test_few_errors_among_many_calls_do_not_open_it(healthy: Shop, delivery: Provider, unpaid: Iterator[str]) -> None:
    """A quarter of the calls failing is less than half, however many calls that makes in the end."""
    desk = Counter(healthy, "delivery", delivery, unpaid)
    delivery.plan = FaultPlan(script=("reset", "ok", "ok", "ok") * 10)
    for number in range(1, 2 * MINIMUM + 3):
        if not desk.ask().reached:
            wrong(
                "failures_never_forgotten",
                did=f"{2 * number - 2} calls to the delivery company, of which every fourth failed, with"
                " BREAKER_FAILURE_RATE=0.5",
                got="the breaker opened, and the next did not reach it",
                expected="every one reaches it: three in four are answered well",
            )


def test_a_refusal_is_no_failure(healthy: Shop, payments: Provider, unpaid: Iterator[str], declined: str) -> None:
    """A provider that declines a card (402) is well."""
    till = Counter(healthy, "payments", payments, unpaid)
    refused = [till.ask(declined).answer.status for _ in range(MINIMUM + 1)]
    asked = till.ask()
    if not asked.reached:
        wrong(
            "counts_refusals",
            did=f"{len(refused)} payments with a card that is declined, then one with a good card",
            got=f"{_listed(refused)}; and the last did not reach the provider: the breaker is open",
            expected="402 each time, and the good card is charged: a provider that says no works",
        )
    if set(refused) != {402} or asked.answer.status != 201:
        differs(
            did=f"{len(refused)} payments with a card that is declined, then one with a good card",
            got=f"{_listed(refused)}, then {asked.answer.status}",
            expected="402 each time, then 201",
            matters="What the call raises goes on to whoever called: they know what to make of a refusal.",
        )


def test_a_lost_answer_is_not_charged_twice(
    healthy: Shop, payments: Provider, unpaid: Iterator[str], database: Connection
) -> None:
    """A payment whose answer was lost is pending, and to pay again takes the money once."""
    till, order = Counter(healthy, "payments", payments, unpaid), next(unpaid)
    payments.plan = FaultPlan(script=("lost",))
    statuses = [till.ask(order).answer.status for _ in range(2)]
    charges = [charge for charge in payments.made() if charge["reference"] == order]
    did = "paid an order whose provider took the money and lost its answer, and paid it again"
    if len(charges) > 1:
        wrong(
            "pending_only_when_open",
            did=did,
            got=f"{_listed(statuses)}, and {len(charges)} charges: the second had a key of its own",
            expected="202, then 201, and one charge",
        )
    records = [record.status for record in database.execute(text(PAYMENTS_OF), {"order": order})]
    if statuses != [202, 201] or records != ["succeeded"]:
        differs(
            did=did,
            got=f"{_listed(statuses)}; recorded: {_listed(records)}",
            expected="202, then 201; recorded: one payment, succeeded",
            matters="What is known of a payment must be what is written, before and after.",
        )


def test_calls_do_not_wait_for_each_other(healthy: Shop, payments: Provider, unpaid: Iterator[str]) -> None:
    """Eight slow payments are under way at the same time while the breaker is closed."""
    till = Counter(healthy, "payments", payments, unpaid)
    payments.plan = FaultPlan(rates={"hang": 1})
    with till.together(SLOW):
        until(lambda: payments.counts().now == SLOW)
        most = payments.counts().most
    if most < SLOW:
        wrong(
            "lock_held_during_the_call",
            did=f"{SLOW} payments at once, each of which takes its time at the provider",
            got=f"{most} at the provider at any one time, and the others waited for it in the shop",
            expected=f"all {SLOW}: who asks a slow provider stands in nobody's way",
        )


def test_the_state_is_visible(shop: Shop, healthy: Shop, providers: dict[str, Provider], unpaid: Iterator[str]) -> None:
    """The state of each breaker is at /metrics."""
    for where, expected in ((shop, OPEN), (healthy, CLOSED)):
        for dependency in ("payments", "delivery"):
            state = Counter(where, dependency, providers[dependency], unpaid).state()
            if state != expected:
                differs(
                    did=f'circuit_breaker_state{{dependency="{dependency}"}} at /metrics, of a breaker that is'
                    f" {'open' if expected == OPEN else 'closed'}",
                    got=STATES.get(state, state),
                    expected=STATES[expected],
                    matters="An open breaker hides an outage from everyone but those who look at it.",
                )


# --- It recovers ------------------------------------------------------------------------------------------------------


def test_a_late_failure_is_old_news(healthy: Shop, start: Start, unpaid: Iterator[str]) -> None:
    """A call that began before the outage and fails after it does not open the breaker again."""
    recovery = time_to_recover(healthy) / 4
    with ThreadPoolExecutor(1) as thread, ExitStack() as stack:
        up = stack.enter_context(ExitStack())
        provider = up.enter_context(running(Provider(Charges())))
        shop = stack.enter_context(start(**PATIENT, PAYMENTS_URL=provider.url, BREAKER_RECOVERY_SECONDS=str(recovery)))
        till = Counter(shop, "payments", provider, unpaid, recovery)
        provider.plan = FaultPlan(script=("hang", *["reset"] * MINIMUM))
        slow = thread.submit(shop.ask, till.request())
        until(lambda: provider.counts().now)
        for _ in range(MINIMUM):
            till.ask()
        till.is_let_through(pause=1.5)  # longer than the recovery: what else may be wrong with it is seen below
        before = till.state()
        _recognise_hasty(before)
        for _ in range(SUCCESSES - 2):
            till.is_let_through(pause=1.5)
        before = till.state()
        _expect_state(before, HALF_OPEN, f"after {SUCCESSES - 1} probes that succeeded in a row, and no failure")
        up.close()  # ends the one that hangs
        slow.result()
        after = till.state()
    did = f"a payment that hung from before the outage on, and failed after {SUCCESSES - 1} probes had succeeded"
    if after == OPEN:
        wrong(
            "late_failures_count",
            did=did,
            got=f"the state at /metrics went from {STATES[before]} to {STATES[after]}",
            expected=f"it stays {STATES[HALF_OPEN]}: that call says nothing of how the provider is now",
        )
    _expect_state(after, HALF_OPEN, did)


@pytest.mark.beside
def test_one_probe_at_a_time(quick: Left, payments: Provider, unpaid: Iterator[str]) -> None:
    """Of twenty who ask when the time has passed, one is let through, and the others are refused at once."""
    till = Counter(quick.wait(quick.recovery), "payments", payments, unpaid)
    payments.plan = FaultPlan(script=("hang",) * TOGETHER)
    began = time.monotonic()
    with till.together(TOGETHER) as asking:
        until(lambda: settled(asking, payments) or payments.counts().now > allowed(began, quick.recovery))
        let_through, limit = payments.counts().now, allowed(began, quick.recovery)
        waiting = sum(not each.done() for each in asking) - let_through
        state = till.state() if 0 < let_through <= limit else None
    did = f"{TOGETHER} payments at once, when BREAKER_RECOVERY_SECONDS had passed since the breaker opened"
    if let_through > limit:
        wrong(
            "every_caller_is_a_probe",
            did=did,
            got=f"{let_through} of them were at the provider at the same time",
            expected="one: the others are refused until it has come back",
        )
    if not let_through:
        differs(
            did=f"set the clock back by an hour while the breaker was open; then {did}",
            got="none reached the provider",
            expected="one does, to see whether it is well again: the time of day has no part in that",
            matters="A breaker that does not try again turns an outage of a minute into one without end.",
        )
    if waiting > 0:
        differs(
            did=did,
            got=f"one reached the provider, which was slow, and {waiting} others waited with it",
            expected="the others are refused at once",
            matters="Whoever waits holds a thread of the shop, and that is what the breaker is there to spare.",
        )
    if state == OPEN:
        wrong(
            "counts_what_was_not_asked",
            did=did,
            got=f"one reached the provider, the others were refused, and the state at /metrics became {STATES[OPEN]}"
            " before that one had come back",
            expected=f"{STATES[HALF_OPEN]}: only the provider's answer can tell how the provider is",
        )
    _expect_state(state, HALF_OPEN, "while that one probe was at the provider")


@pytest.mark.beside
def test_one_success_is_not_enough(quick: Left, payments: Provider, unpaid: Iterator[str]) -> None:
    """After the first probe that succeeds the breaker is still half-open."""
    state = Counter(quick.shop, "payments", payments, unpaid, quick.recovery).state()
    _recognise_hasty(state)
    _expect_state(state, HALF_OPEN, f"after one probe that succeeded, with BREAKER_SUCCESSES={SUCCESSES}")


@pytest.mark.beside
def test_a_probe_that_is_refused_has_come_back(
    quick: Left, payments: Provider, unpaid: Iterator[str], declined: str
) -> None:
    """A probe whose card is declined is over: the next one is let through."""
    till = Counter(quick.shop, "payments", payments, unpaid, quick.recovery)
    refused = till.ask(declined)
    if refused.reached and till.is_let_through() is None:
        wrong(
            "probe_lost_by_a_refusal",
            did="a probe whose card was declined (402), then other payments",
            got=f"none of those reached the provider for {RECOVERIES} recovery times",
            expected="the next is let through: the probe has come back, and the provider works",
        )


@pytest.mark.beside
def test_a_failed_probe_opens_it_again(quick: Left, payments: Provider, unpaid: Iterator[str]) -> None:
    """After a probe that failed, nobody is asked for the whole recovery time, and then somebody is."""
    till = Counter(quick.shop, "payments", payments, unpaid, quick.recovery)
    payments.plan = DOWN
    began = time.monotonic()
    probe = till.is_let_through()
    state = till.state()
    if probe and (state == CLOSED or (state != OPEN and time.monotonic() - began < quick.recovery)):
        differs(
            did=f"two or three probes that succeeded, with BREAKER_SUCCESSES={SUCCESSES}, then one that failed",
            got=f"the state at /metrics is {STATES.get(state, state)}",
            expected=STATES[OPEN],
            matters="A provider that answers now and then is not well, and under the whole load it will not be.",
        )
    if probe and probe.answer.status != 202:
        differs(
            did=f"{probe.answer.did}, a probe, while the provider failed",
            got=probe.answer.status,
            expected="202: a probe is a payment like any other, and is pending when it fails",
            matters="The probe is somebody's payment.",
        )
    if not (probe and _probes_again(till)):
        _recognise_put_off(till)
        differs(
            did="payments all the time, after a probe had " + ("failed" if probe else "been refused (402)"),
            got=f"none reached the provider for {RECOVERIES} recovery times",
            expected="one does after each recovery time",
            matters="A breaker that does not try again turns an outage of a minute into one without end.",
        )


@pytest.mark.beside
def test_a_probe_that_never_comes_back_is_given_up(quick: Left, payments: Provider, unpaid: Iterator[str]) -> None:
    """While a probe hangs, another one is let through in the end, and enough successes close the breaker."""
    till = Counter(quick.shop, "payments", payments, unpaid, quick.recovery)
    with till.hanging_probe() as hangs:
        given_up = hangs and till.is_let_through()
    if hangs and given_up is None:
        wrong(
            "waits_for_ever_for_its_probe",
            did="a probe that the provider never answered, then other payments",
            got=f"none of those reached the provider for {RECOVERIES} recovery times",
            expected="one does: a probe that has not come back in the recovery time is not waited for",
        )
    for _ in range(SUCCESSES):
        if till.state() == HALF_OPEN:
            till.is_let_through()
    _expect_state(till.state(), CLOSED, f"after {SUCCESSES} probes that succeeded in a row")


@pytest.mark.beside
def test_closed_again_it_begins_anew(quick: Left, payments: Provider, unpaid: Iterator[str]) -> None:
    """A lone error after the recovery does not open the breaker again."""
    till = Counter(quick.shop, "payments", payments, unpaid, quick.recovery)
    payments.plan = FaultPlan(script=("reset",))
    till.ask()
    asked = till.ask()
    if not asked.reached:
        wrong(
            "old_failures_count_again",
            did="one call that failed after the breaker had closed, then another call",
            got="it did not reach the provider: the breaker is open again",
            expected="it does: the failures that opened the breaker were before the recovery",
        )


# --- It forgets -------------------------------------------------------------------------------------------------------


@pytest.mark.beside
def test_what_is_long_ago_is_forgotten(
    forgetful: Left, payments: Provider, delivery: Provider, unpaid: Iterator[str]
) -> None:
    """Calls of before BREAKER_WINDOW_SECONDS have no say: neither the failures nor the successes among them."""
    shop = forgetful.wait(2 * WINDOW)  # twice: a window that is made of parts is only about as long as it should be
    till, desk = Counter(shop, "payments", payments, unpaid), Counter(shop, "delivery", delivery, unpaid)
    payments.plan = delivery.plan = DOWN
    if all(desk.ask().reached for _ in range(PAGES_LONG_AGO - 1)):
        wrong(
            "rate_of_all_time",
            did=f"{2 * PAGES_LONG_AGO} calls to the delivery company that went well, a pause longer than"
            f" BREAKER_WINDOW_SECONDS, then {2 * PAGES_LONG_AGO - 2} calls that failed",
            got="every single one reached it",
            expected=f"the breaker opens after {MINIMUM} of them: all calls in its window failed",
        )
    for _ in range(MINIMUM // 2):
        till.ask()
    if not till.ask().reached:
        differs(
            did="2 payments that failed, a pause longer than BREAKER_WINDOW_SECONDS, 2 more that failed, then another",
            got="it did not reach the provider: the breaker is open",
            expected=f"it does: in the window there were 2 calls, and it takes {MINIMUM} to judge",
            matters="Errors that are days apart are no outage.",
        )


# --- What they have in common -----------------------------------------------------------------------------------------


def allowed(began: float, recovery: float) -> int:
    """How many probes there may have been at once since then: one, and another when one was given up."""
    return 1 + int((time.monotonic() - began) / recovery)


def settled(asking: list[Future[Answer]], provider: Provider) -> bool:
    """Whether each of those who ask has its answer or is at the provider."""
    return sum(not each.done() for each in asking) <= provider.counts().now


def _expect_state(state: int | None, expected: int, when: str) -> None:
    if state != expected:
        differs(
            did=f'circuit_breaker_state{{dependency="payments"}} at /metrics, {when}',
            got=STATES.get(state, state),
            expected=STATES[expected],
            matters="Whether a dependency is asked again, and how carefully, decides how an outage ends.",
        )


def _recognise_swallowed(asked: Asked) -> None:
    if asked.reached and asked.answer.status == 500:
        wrong(
            "swallows_the_exception",
            did=f"{asked.answer.did}, while the provider failed",
            got="500: the shop went on with a result that there is not",
            expected="what the call raised is raised: its caller knows what to do when the provider fails",
        )


def _recognise_forgotten_breaker(start: Start, payments: Provider, unpaid: Iterator[str], shop: Shop) -> None:
    if Counter(shop, "payments", payments, unpaid).state() is None:
        return
    payments.plan = DOWN
    with start(BREAKER_MINIMUM_CALLS="1") as fresh:
        till = Counter(fresh, "payments", payments, unpaid)
        till.ask()
        state, asked = till.state(), till.ask()
    if state == OPEN and asked.reached:
        wrong(
            "breaker_of_a_request",
            did="with BREAKER_MINIMUM_CALLS=1, a payment that failed, then another",
            got=f"the state at /metrics was {STATES[OPEN]}, and the other reached the provider all the same",
            expected="nothing reaches it: what one request has learnt holds for the next, in whatever thread",
        )


def _recognise_hasty(after_one_success: int | None) -> None:
    if after_one_success == CLOSED:
        wrong(
            "closes_on_the_first_success",
            did=f"one probe that succeeded, with BREAKER_SUCCESSES={SUCCESSES}",
            got=f"the state at /metrics is {STATES[CLOSED]}",
            expected=f"{STATES[HALF_OPEN]}, until {SUCCESSES} have succeeded in a row",
        )


def _recognise_put_off(till: Counter) -> None:
    """Nobody was let through while somebody asked all the time."""
    time.sleep(till.recovery)
    if till.ask().reached:
        wrong(
            "counts_what_was_not_asked",
            did=f"payments all the time for {RECOVERIES} recovery times, and one after a pause",
            got="only the one after the pause reached the provider",
            expected="one does after each recovery time, however many are refused meanwhile",
        )


def _probes_again(till: Counter) -> bool:
    """Whether somebody is let through after a probe that has just failed, while payments come all the time.

    On a busy machine the recovery time may be over before the first of them comes, which says nothing: then once more,
    for that one has failed as well.
    """
    for _ in range(BUSY_ROUNDS):
        refused = not till.ask().reached
        if refused and till.is_let_through(pause=0.02) is None:
            return False
        _recognise_early_probe(till.provider, till.recovery)
        if refused:
            break
    return True


def _recognise_early_probe(provider: Provider, recovery: float) -> None:
    failed, following = provider.received()[-2:]
    gap = following.at - (failed.ended or failed.at)
    if gap < recovery:
        wrong(
            "recovery_not_restarted",
            did=f"a probe that failed, with BREAKER_RECOVERY_SECONDS={recovery:.2g}, and other payments right after it",
            got="the next reached the provider at once, a fraction of the recovery time later",
            expected="nobody is asked until the whole recovery time has passed again",
        )


def _field(answer: Answer, name: str) -> Any:
    return answer.body.get(name) if isinstance(answer.body, dict) else None


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))
