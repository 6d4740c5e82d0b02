"""Checks of `reliability/timeouts_retries`.

They play the payment provider and the delivery company, and look at the shop from there: which requests came, when, and
under which key. None of them looks at the file. Durations are the settings of each shop that is started here. Where a
time limit is the point, a check waits many times as long before it says that there is none.

Most of what is to be seen takes time and no work. So scenes are played in shops of their own, beside one another,
and the checks look at what came of them. The first check that fails is what the learner reads, so those that recognise
a mistake come before those that only see its effects.
"""

import re
import socket
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Connection, text

from shopfloor.checks.judge import StartShop
from shopfloor.checks.logged import logged_error
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.checks.tap import tapping
from shopfloor.services.delivery import Couriers
from shopfloor.services.fault_plan import Plan as FaultPlan
from shopfloor.services.payments import Charges
from shopfloor.services.providers import Provider, Received, running

PATIENCE = 1.5  # seconds: ten times what a shop here may take, so that a busy machine changes nothing
PAY = "POST /v1/orders/…/payments"
QUOTES = "GET /v1/orders/…/delivery-quotes"

WAIT = 0.05  # RETRY_WAIT_SECONDS where the waits are the point
TOGETHER = 20
STORM, SLOW_STORM, SLOW_WAIT = 12, 16, 0.3
CALLS_THAT_EARN = 12
KEPT = 5


# --- Shops, and orders to ask about -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    """Much time, several attempts, hardly a wait, and retries without end."""
    return {
        "CONNECT_TIMEOUT_SECONDS": "2",
        "READ_TIMEOUT_SECONDS": "2",
        "DEADLINE_SECONDS": "2.5",
        "RETRY_ATTEMPTS": "5",
        "RETRY_WAIT_SECONDS": "0.001",
        "RETRY_BUDGET": "1000",
        "RETRY_BUDGET_SHARE": "1",
        "POOL_SIZE": str(2 * TOGETHER),  # a payment holds a connection to the database while it waits for the provider
    }


class Orders:
    """Orders that nobody else asks about.

    Attributes:
        quoted: one with items.
        paid: one that can be picked up.
    """

    UNPAID = 120

    def __init__(self, keys: list[str]) -> None:
        self.quoted, self.paid, *self._unpaid = keys

    def unpaid(self) -> str:
        """One more that can be paid."""
        return self._unpaid.pop()

    def some_unpaid(self, number: int) -> list[str]:
        """As many, which are not used up: for payments that fail."""
        return self._unpaid[:number]


CHOOSE = """
SELECT id, public_id::text, status FROM orders
WHERE total_amount > 0 AND EXISTS (SELECT FROM order_items WHERE order_id = orders.id) ORDER BY id LIMIT :number
"""


@pytest.fixture(scope="module")
def orders(database: Connection) -> Iterator[Orders]:
    """Some orders of the seed data, made unpaid; and put back afterwards."""
    rows = database.execute(text(CHOOSE), {"number": 2 + Orders.UNPAID}).all()
    last = database.scalar(text("SELECT max(id) FROM payments"))
    restatus = text("UPDATE orders SET status = :status WHERE id = :id")
    database.execute(restatus, [{"id": row.id, "status": "pending"} for row in rows])
    database.execute(restatus, {"id": rows[1].id, "status": "paid"})
    try:
        yield Orders([row.public_id for row in rows])
    finally:
        database.execute(text("DELETE FROM payments WHERE id > :last"), {"last": last})
        database.execute(restatus, [{"id": row.id, "status": row.status} for row in rows])


@pytest.fixture(scope="module")
def thrifty(start: StartShop, providers: dict[str, Provider]) -> Iterator[tuple[Shop, list[object]]]:
    """A shop with few retries to spend; and the connections that it made to its payment provider."""
    made: list[object] = []

    def converse() -> Unheard:
        made.append(None)
        return Unheard()

    at = urlsplit(providers["payments"].url)
    with (
        tapping((str(at.hostname), int(at.port or 0)), converse) as tap,
        start(
            RETRY_WAIT_SECONDS="0.001",
            RETRY_BUDGET="4",
            RETRY_BUDGET_SHARE="0.5",
            PAYMENTS_URL=f"http://127.0.0.1:{tap.port}",
        ) as shop,
    ):
        yield shop, made


STATUSES = "SELECT status FROM orders WHERE public_id::text = ANY(:ids)"

# --- Scenes that are played beside the checks ------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """What came of some requests to a shop.

    Attributes:
        answers: to each of them; None where there was none in time.
        received: what the provider had received by then.
        most: how many of these it had had at once.
        shop: the shop.
    """

    answers: list[Answer | None]
    received: list[Received]
    most: int
    shop: Shop


class Scenes:
    """The scenes, each of which is begun at once."""

    def __init__(self, start: StartShop, orders: Orders, stack: ExitStack) -> None:
        self._start, self._orders, self._stack = start, orders, stack
        self._threads = ThreadPoolExecutor(10)
        hang = FaultPlan(rates={"hang": 1})

        def payments_of(number: int) -> list[Request]:
            return [pay(orders.unpaid()) for _ in range(number)]

        company = self._provider(Provider(Couriers(), FaultPlan(script=("limited 1",))))
        payments = self._provider(Provider(Charges(), FaultPlan(rates={"reset": 1})))
        patient = self._shop(payments, company.url, RETRY_WAIT_SECONDS=str(WAIT), DEADLINE_SECONDS="4.5")
        self.limited = self._play(patient, company, [quotes(orders)], patience=4)
        self.failed = [orders.unpaid() for _ in range(STORM)]
        self.storm = self._play(patient, payments, [pay(order) for order in self.failed], stagger=0.01, patience=4)

        payments = self._provider(Provider(Charges(), hang))
        nowhere, close = stack.enter_context(black_hole())
        once = {"DEADLINE_SECONDS": "30", "RETRY_ATTEMPTS": "1"}
        distant = self._shop(payments, nowhere, CONNECT_TIMEOUT_SECONDS="0.1", READ_TIMEOUT_SECONDS="20", **once)
        self.not_connected = self._play(distant, payments, [quotes(orders)], close)
        quick = self._shop(payments, nowhere, CONNECT_TIMEOUT_SECONDS="20", READ_TIMEOUT_SECONDS="0.1", **once)
        self.not_answered = self._play(quick, payments, payments_of(1))

        payments = self._provider(Provider(Charges(), hang))
        hurried = self._shop(
            payments, nowhere, READ_TIMEOUT_SECONDS="0.1", DEADLINE_SECONDS="0.25", RETRY_ATTEMPTS="1000",
        )  # fmt: skip
        self.many_attempts = self._play(hurried, payments, payments_of(1))

        payments = self._provider(Provider(Charges(), hang))
        drips = stack.enter_context(drip())
        late = self._shop(payments, drips, READ_TIMEOUT_SECONDS="20", DEADLINE_SECONDS="0.2")
        self.late = self._play(late, payments, [quotes(orders), *payments_of(TOGETHER)])

        stack.callback(self._threads.shutdown)  # before the shops end

    def _provider(self, provider: Provider) -> Provider:
        return self._stack.enter_context(running(provider))

    def _shop(self, payments: Provider, delivery_url: str, **settings: str) -> Shop:
        return self._stack.enter_context(self._start(PAYMENTS_URL=payments.url, DELIVERY_URL=delivery_url, **settings))

    def _play(
        self,
        shop: Shop,
        provider: Provider,
        requests: Sequence[Request],
        release: Callable[[], None] | None = None,
        *,
        stagger: float = 0,
        patience: float = PATIENCE,
    ) -> "Future[Scene]":
        """Ask; and when all are answered, or time is over, free those that still wait.

        Args:
            release: does that. If not given, the provider answers what hangs there.
            stagger: so many seconds lie between two requests.
        """

        seen: list[tuple[list[Received], int]] = []

        def over() -> None:
            seen.append((provider.received(), provider.counts().most))
            (release or wake(provider))()

        def play() -> Scene:
            answers = patiently(shop, requests, over, stagger=stagger, patience=patience)
            return Scene(answers, *seen[0], shop)

        return self._threads.submit(play)


@pytest.fixture(scope="module")
def scenes(start: StartShop, orders: Orders) -> Iterator[Scenes]:
    """What is played while those checks run."""
    with ExitStack() as stack:
        yield Scenes(start, orders, stack)


# --- The checks -------------------------------------------------------------------------------------------------------


@pytest.mark.beside
def test_connecting_takes_no_longer_than_its_timeout(scenes: Scenes) -> None:
    """Where no connection can be made, the shop says so after the connect timeout."""
    scene = scenes.not_connected.result()
    (answer,) = scene.answers
    if answer is None:
        evidence = {
            "did": f"{QUOTES}, while connections to the delivery company hang, CONNECT_TIMEOUT_SECONDS=0.1,"
            " READ_TIMEOUT_SECONDS=20",
            "got": f"no answer after {PATIENCE} s",
            "expected": "503 after about 0.1 s",
        }
        if scenes.not_answered.result().answers != [None]:
            wrong("one_timeout_for_all", **evidence)
        differs(
            **evidence,
            matters="A machine that is gone answers nothing at all, not even that it is gone. Linux tries to connect"
            " for two minutes. Each request that waits holds a thread of the shop; with eight of them the shop is"
            " down.",
        )
    require(answer, 503, scene.shop)


@pytest.mark.beside
def test_an_answer_takes_no_longer_than_its_timeout(scenes: Scenes) -> None:
    """Where no answer comes, the shop says so after the read timeout."""
    scene = scenes.not_answered.result()
    (answer,) = scene.answers
    if answer is None:
        wrong(
            "connect_timeout_only",
            did=f"{PAY}, while the payment provider hangs, READ_TIMEOUT_SECONDS=0.1",
            got=f"no answer after {PATIENCE} s, though connecting has its timeout",
            expected="502 after about 0.1 s",
        )
    require(answer, 502, scene.shop)


def test_connections_are_kept(thrifty: tuple[Shop, list[object]], orders: Orders) -> None:
    """Calls one after another share a connection."""
    shop, made = thrifty
    for _ in range(KEPT):
        require(shop.ask(pay(orders.unpaid())), 201, shop)
    if len(made) >= KEPT:
        wrong(
            "connection_for_each_call",
            did=f"{PAY}, {KEPT} times, one after another",
            got=f"{len(made)} connections to the payment provider",
            expected="one that is kept, or a few",
        )


def test_a_lost_answer_is_asked_for_again(shop: Shop, payments: Provider, delivery: Provider, orders: Orders) -> None:
    """When an answer is lost on its way, the shop asks again, if that does no harm."""
    delivery.plan = FaultPlan(script=("lost",))
    answer = shop.ask(quotes(orders))
    if answer.status != 200 and len(delivery.received()) == 2:
        wrong(
            "lost_answer_given_up",
            did=f"{QUOTES}, while the first answer to two quotes is lost on its way",
            got=f"{answer.status}; the delivery company received the two requests, and none again",
            expected="200: a quote may be asked for as often as one likes",
        )
    require(answer, 200, shop)
    payments.plan = FaultPlan(script=("lost", "reset"))
    answer = shop.ask(pay(orders.unpaid()))
    received = payments.received()
    if len({request.idempotency_key for request in received}) > 1:
        wrong(
            "new_key_for_each_attempt",
            did=f"{PAY}, while the first answer is lost on its way and the second attempt is reset",
            got=f"{len(received)} requests under different idempotency keys; the customer was charged"
            f" {len(payments.made())} times",
            expected="the same key each time, and one charge",
        )
    if answer.status != 201 and len(received) == 1:
        wrong(
            "charge_not_repeated",
            did=f"{PAY}, while the first answer is lost on its way",
            got=f"{answer.status}, after a single request; and the customer has been charged",
            expected="201: under its idempotency key a charge may be sent again",
        )
    require(answer, 201, shop)


TRANSIENT = (("error 502", "error 503"), ("error 504", "error 429"))


def test_transient_errors_are_repeated(shop: Shop, payments: Provider, delivery: Provider, orders: Orders) -> None:
    """502, 503, 504 and 429 say that it may be better soon: the shop asks again."""
    for script in TRANSIENT:
        delivery.plan = payments.plan = FaultPlan(script=script)
        for request, status in (quotes(orders), 200), (pay(orders.unpaid()), 201):
            answer = shop.ask(request)
            if answer.status != status:
                differs(
                    did=f"{shown(request)}, while the first two requests are answered {' and '.join(script)}",
                    got=answer.status,
                    expected=f"{status}, at a later attempt",
                    matters="Such an answer comes from a deployment, a gateway or a limit. It is over a moment later,"
                    " and the customer need not know.",
                )


def test_half_an_answer_is_no_answer(shop: Shop, payments: Provider, orders: Orders) -> None:
    """An answer that breaks off half-way is a failure of the provider, not of the shop."""
    payments.plan = FaultPlan(script=("malformed",))
    answer = shop.ask(pay(orders.unpaid()))
    if answer.status not in (201, 502):
        differs(
            did=f"{PAY}, while the provider's JSON ends half-way",
            got=f"{answer.status}{logged_error(shop)}",
            expected="201, at a later attempt, or 502",
            matters="Whoever reads the log would look for the fault in the shop.",
        )


def test_a_pickup_is_ordered_once(shop: Shop, delivery: Provider, orders: Orders) -> None:
    """A pickup is never sent again once it may have arrived: each is one more courier."""
    for script in ("lost", "reset", "error 503", "malformed"):
        delivery.forget()
        delivery.plan = FaultPlan(script=(script,))
        answer = shop.ask(Request("POST", f"/v1/orders/{orders.paid}/pickup"))
        arrived = len(delivery.received())
        if arrived > 1:
            wrong(
                "pickup_repeated",
                did=f"POST /v1/orders/…/pickup, while the delivery company's answer is: {script}",
                got=f"{arrived} requests; {len(delivery.made())} couriers are on their way in all",
                expected="one request: it may have been done, and no key says that another is the same",
            )
        require(answer, 503, shop)
    delivery.plan = FaultPlan()
    answer = shop.ask(Request("POST", f"/v1/orders/{orders.paid}/pickup"))
    require(answer, 201, shop)
    booking = delivery.made()[-1]["id"]
    if answer.body != {"booking": booking}:
        differs(
            did=shown(answer.did),
            got=answer.body,
            expected={"booking": booking},
            matters="Under that number the courier can be called back.",
        )


def test_a_refusal_is_final(shop: Shop, payments: Provider, delivery: Provider, orders: Orders) -> None:
    """What was refused (4xx) is not asked again, and is told as a refusal."""
    for status in (402, 400, 404, 422):
        payments.forget()
        payments.plan = FaultPlan(rates={f"error {status}": 1})
        answer = shop.ask(pay(orders.some_unpaid(1)[0]))
        arrived = len(payments.received())
        evidence = {
            "did": f"{PAY}, which the payment provider answers with {status}",
            "got": f"{answer.status}, after {arrived} requests",
            "expected": "402, after one request",
        }
        if arrived > 1:
            if answer.status == 402:
                wrong("refusal_repeated", **evidence)
            wrong("catches_everything", **evidence)
        if answer.status != 402:
            differs(**evidence, matters="A customer whose card was declined is told that the shop is broken.")
    delivery.plan = FaultPlan(rates={"error 404": 1})
    require(shop.ask(quotes(orders)), 503, shop)
    if len(delivery.received()) > 2:
        wrong(
            "refusal_repeated",
            did=f"{QUOTES}, which the delivery company answers with 404, for each of two quotes",
            got=f"{len(delivery.received())} requests",
            expected="one for each quote",
        )


@pytest.mark.beside
def test_a_failure_is_told(scenes: Scenes, database: Connection) -> None:
    """When every attempt fails the customer is told, and the order is still to be paid."""
    answers = scenes.storm.result().answers
    statuses = set(database.scalars(text(STATUSES), {"ids": scenes.failed}))
    answered = {answer.status if answer else "no answer" for answer in answers}
    evidence = {
        "did": f"{PAY}, while the payment provider resets each connection",
        "got": f"{listed(answered)}; the order is {listed(statuses)} then",
        "expected": "502; the order is pending",
    }
    if 201 in answered:
        wrong("failure_as_success", **evidence)
    if answered != {502} or statuses != {"pending"}:
        differs(**evidence, matters="What is shown to the customer, and what is shipped, hangs on this answer.")


def test_a_long_retry_after_ends_the_call(shop: Shop, delivery: Provider, orders: Orders) -> None:
    """When the provider wants to be left alone for longer than is left, the shop gives up at once and passes it on."""
    delivery.plan = FaultPlan(script=("limited 3",) * 2)
    (answer,) = patiently(shop, [quotes(orders)])
    did = f"{QUOTES}, both answered 429 with Retry-After: 3, DEADLINE_SECONDS=2.5"
    if answer is None:
        wrong(
            "sleeps_as_told",
            did=did,
            got=f"no answer after {PATIENCE} s: it waits, though it cannot end in time",
            expected="503 at once, with Retry-After: 3",
        )
    if len(delivery.received()) > 2:
        wrong(
            "retry_after_ignored",
            did=did,
            got=f"{len(delivery.received())} requests, the third after {1000 * gaps(delivery.received())[1]:.0f} ms",
            expected="two requests, and a 503 at once with Retry-After: 3",
        )
    require_retry_after(did, answer, shop, "3")


def test_retry_after_may_be_a_date(shop: Shop, delivery: Provider, orders: Orders) -> None:
    """A Retry-After that is a date means the same."""
    delivery.plan = FaultPlan(script=("limited 4 date",) * 2)
    (answer,) = patiently(shop, [quotes(orders)])
    did = f"{QUOTES}, both answered 429 with a Retry-After that is a date, 4 s from now, DEADLINE_SECONDS=2.5"
    if answer is None or answer.status == 500 or len(delivery.received()) > 2:
        came = "no answer at once" if answer is None else str(answer.status)
        wrong(
            "retry_after_in_seconds_only",
            did=did,
            got=f"{came}, after {len(delivery.received())} requests",
            expected="503 at once with Retry-After, after two requests",
        )
    require_retry_after(did, answer, shop, "4 or 5")


@pytest.mark.beside
def test_the_waits_grow_and_differ(scenes: Scenes, start: StartShop, payments: Provider, orders: Orders) -> None:
    """Before each further attempt the shop waits longer, by a time that chance decides."""
    waits = Waits(scenes.storm.result(), STORM, WAIT)
    waits.require_attempts(5)
    if waits.are_hidden or not (waits.grow and waits.differ):
        waits = slow_storm(start, payments, orders)
    if not waits.grow:
        if waits.are_steady:
            wrong("fixed_interval", **waits.evidence)
        differs(
            **waits.evidence,
            matters="A provider that is down for long is asked as often as one that is down for a moment.",
        )
    if not waits.differ:
        wrong("backoff_without_jitter", **waits.evidence)


def test_retries_keep_to_a_budget(
    thrifty: tuple[Shop, list[object]], payments: Provider, delivery: Provider, orders: Orders
) -> None:
    """In an outage retries come to an end, however many calls there are; when it is over there are retries again."""
    shop, _ = thrifty
    payments.plan = FaultPlan(rates={"error 503": 1})
    calls = TOGETHER
    shop.together([pay(order) for order in orders.some_unpaid(calls)])
    retries = len(payments.received()) - calls
    did = f"{PAY}, {calls} times, while every request is answered 503"
    most = 4 + (KEPT + calls) // 2
    if retries > most:
        wrong(
            "no_budget",
            did=f"{did}, RETRY_BUDGET=4, RETRY_BUDGET_SHARE=0.5",
            got=f"{retries} retries",
            expected=f"{most} at most: 4, and one for each 2 calls that there were",
        )
    if not retries:
        differs(
            did=f"{did}, RETRY_BUDGET=4",
            got="no retry at all",
            expected="4 at least",
            matters="A budget is there to be spent: it says how many retries are too many.",
        )
    delivery.plan = FaultPlan(script=("reset",))
    answer = shop.ask(quotes(orders))
    if answer.status != 200:
        differs(
            did=f"{did}; then {QUOTES}, while the delivery company resets the first of two requests",
            got=answer.status,
            expected="200: its budget is not that of the payment provider",
            matters="An outage of one takes from the other what it would need for a moment's weakness.",
        )
    payments.plan = FaultPlan()
    for _ in range(CALLS_THAT_EARN):
        require(shop.ask(pay(orders.unpaid())), 201, shop)
    payments.plan = FaultPlan(script=("reset",))
    answer = shop.ask(pay(orders.unpaid()))
    if answer.status != 201:
        differs(
            did=f"{did}; then {CALLS_THAT_EARN} that are well, and one whose first attempt is reset",
            got=answer.status,
            expected="201: calls that are made earn retries",
            matters="After its first outage the shop would never repeat a call again.",
        )


@pytest.mark.beside
def test_the_deadline_holds_across_attempts(scenes: Scenes) -> None:
    """However many attempts there are, the call ends when its deadline comes."""
    scene = scenes.many_attempts.result()
    (answer,) = scene.answers
    if answer is None:
        wrong(
            "no_deadline",
            did=f"{PAY}, while the payment provider hangs, READ_TIMEOUT_SECONDS=0.1, DEADLINE_SECONDS=0.25,"
            " RETRY_ATTEMPTS=1000",
            got=f"no answer after {PATIENCE} s and {len(scene.received)} attempts",
            expected="502 after 0.25 s",
        )
    require(answer, 502, scene.shop)


@pytest.mark.beside
def test_timeouts_are_logged(scenes: Scenes) -> None:
    """Each attempt that timed out leaves a line in the log."""
    scene = scenes.many_attempts.result()
    attempts = len(scene.received)
    lines = len(timeouts(scene.shop.printed(lambda output: len(timeouts(output)) >= attempts)))
    if lines < attempts:
        wrong(
            "silent_attempts",
            did=f"{PAY}, while the payment provider hangs",
            got=f"{attempts} attempts that timed out, and {lines} lines in the log that tell of a timeout",
            expected="a warning for each of them: from the last one alone nobody sees the others",
        )


@pytest.mark.beside
def test_an_attempt_is_cut_to_what_is_left(scenes: Scenes) -> None:
    """An attempt waits for no longer than is left until the deadline."""
    _, *answers = scenes.late.result().answers
    if not any(answers):
        wrong(
            "deadline_between_attempts",
            did=f"{PAY}, while the payment provider hangs, READ_TIMEOUT_SECONDS=20, DEADLINE_SECONDS=0.2",
            got=f"no answer after {PATIENCE} s",
            expected="502 after 0.2 s",
        )


@pytest.mark.beside
def test_waiting_for_a_connection_counts(scenes: Scenes) -> None:
    """The deadline holds for every one of many calls at once."""
    scene = scenes.late.result()
    _, *answers = scene.answers
    for answer in answers:
        if answer is None:
            wrong(
                "waits_for_a_connection",
                did=f"{PAY}, {TOGETHER} at once, while the payment provider hangs, DEADLINE_SECONDS=0.2",
                got=f"{answers.count(None)} have no answer after {PATIENCE} s; the provider has seen {scene.most} of"
                " them at once, at most",
                expected="502 for all of them, after about 0.2 s",
            )
        require(answer, 502, scene.shop)
    if not scene.most:
        differs(
            did=f"{PAY}, {TOGETHER} at once, DEADLINE_SECONDS=0.2",
            got="502 for all of them, and none had reached the provider",
            expected="that they are tried for as long as there is time",
            matters="Whoever gives up before the deadline fails calls that would have gone well.",
        )


@pytest.mark.beside
def test_the_deadline_holds_while_bytes_trickle_in(scenes: Scenes) -> None:
    """An answer of which a byte comes now and then must end before the deadline as well."""
    scene = scenes.late.result()
    trickling, *_ = scene.answers
    if trickling is None:
        wrong(
            "read_timeout_for_the_whole",
            did=f"{QUOTES}, which the delivery company answers with a byte every 20 ms, DEADLINE_SECONDS=0.2",
            got=f"no answer after {PATIENCE} s",
            expected="503 after 0.2 s",
        )
    require(trickling, 503, scene.shop)


@pytest.mark.beside
def test_a_short_retry_after_is_obeyed(scenes: Scenes) -> None:
    """When the provider wants to be left alone for a time that there is, the shop comes back after it."""
    received = scenes.limited.result().received
    did = f"{QUOTES}, one of two answered 429 with Retry-After: 1, DEADLINE_SECONDS=4.5"
    if len(received) != 3:
        differs(
            did=did,
            got=f"{len(received)} requests",
            expected="three: the two quotes, and the limited one again after a second",
            matters="The provider has said when it will be better. To give up is to lose a sale that needed a second.",
        )
    limited = next(request for request in received if request.status == 429)
    waited = received[2].at - limited.at
    if waited < 0.99:
        differs(
            did=did,
            got=f"the second attempt {1000 * waited:.0f} ms after the first",
            expected="1000 ms or more after it",
            matters="A provider that limits its callers counts those who do not listen, and shuts them out.",
        )


# --- What surrounds the shop ------------------------------------------------------------------------------------------


class Unheard:
    """A conversation that a tap passes on without understanding it."""

    def begin(self, _client: socket.socket) -> bytes:
        """Nothing comes before the first request."""
        return b""

    def asked(self, data: bytes) -> None:
        """Whatever it is."""

    def answered(self, data: bytes) -> None:
        """Whatever it is."""


@contextmanager
def black_hole() -> Iterator[tuple[str, Callable[[], None]]]:
    """An address where connections are neither made nor refused, as that of a machine that is gone.

    A listener that takes nobody, before which as many wait as may: what comes then is not answered at all.

    Yields:
        the address, and what makes it refuse them.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = []
        for _ in range(3):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(listener.getsockname())
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", listener.close
        finally:
            for client in waiting:
                client.close()


@contextmanager
def drip() -> Iterator[str]:
    """The address of a server that begins every answer well, and goes on with a byte every 20 ms for three seconds."""
    ended = threading.Event()

    def answer(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(150):
                if ended.wait(0.02):
                    return
                client.sendall(b" ")

    def serve() -> None:
        with suppress(OSError), ThreadPoolExecutor(10) as threads:
            while True:
                threads.submit(answer, listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, daemon=True)
        server.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            server.join()


# --- Words and small change -------------------------------------------------------------------------------------------


def pay(order: str) -> Request:
    """Pay an order."""
    return Request("POST", f"/v1/orders/{order}/payments")


def quotes(orders: Orders) -> Request:
    """Ask what a delivery costs, which takes two requests to the company at once."""
    return Request("GET", f"/v1/orders/{orders.quoted}/delivery-quotes")


def shown(request: object) -> str:
    """A request without the number of its order."""
    return re.sub(r"[0-9a-f-]{36}", "…", str(request))


def wake(provider: Provider) -> Callable[[], None]:
    """What makes a provider answer all that hangs there."""

    def well() -> None:
        provider.plan = FaultPlan()

    return well


def patiently(
    shop: Shop,
    requests: Sequence[Request],
    over: Callable[[], None] = lambda: None,
    *,
    stagger: float = 0,
    patience: float = PATIENCE,
) -> list[Answer | None]:
    """The answer to each request; None where it takes too long.

    Args:
        over: called when all are answered or time is over; should free those that still wait.
        stagger: so many seconds lie between two of them: in step they would get into each other's way.
        patience: how long is too long.
    """
    with ThreadPoolExecutor(len(requests)) as threads:
        asked = []
        for request in requests:
            asked.append(threads.submit(shop.ask, request))
            time.sleep(stagger)
        wait(asked, patience)
        answers = [one.result() if one.done() else None for one in asked]
        over()
    return answers


def by_charge(received: list[Received]) -> list[list[Received]]:
    """The requests of each charge, whatever their key, in the order in which they came."""
    calls = defaultdict(list)
    for request in received:
        calls[request.body].append(request)
    return list(calls.values())


def gaps(received: list[Received]) -> list[float]:
    """The seconds from each request to the next."""
    return [later.at - earlier.at for earlier, later in pairwise(received)]


class Waits:
    """The waits of calls that failed at each attempt, as their provider saw them."""

    def __init__(self, scene: Scene, calls: int, wait: float) -> None:
        self._wait = wait
        self._calls = by_charge(scene.received)
        self._did = f"{PAY} for {calls} orders, each attempt reset, RETRY_WAIT_SECONDS={wait}"

    def require_attempts(self, number: int) -> None:
        """Go on if each call was attempted so often.

        Raises:
            NotRight: tells of one that was not.
        """
        did = f"{self._did}, RETRY_ATTEMPTS={number}"
        fewest, most = min(map(len, self._calls)), max(map(len, self._calls))
        if most > number:
            wrong("retries_multiply", did=did, got=f"{most} requests for one payment", expected=f"{number} at most")
        if fewest < number:
            differs(
                did=did,
                got=f"{fewest} requests for one payment",
                expected=number,
                matters="Operations can say how often a call is attempted, and the shop should keep to it.",
            )

    @cached_property
    def columns(self) -> list[list[float]]:
        """The first waits of all calls, the second waits, and so on; each in order of length."""
        return [sorted(column) for column in zip(*map(gaps, self._calls), strict=True)]

    @property
    def are_hidden(self) -> bool:
        """Whether other delays, of a machine that is busy, are longer than the first of them could be."""
        return statistics.fmean(self.columns[0]) > 1.5 * self._wait

    @property
    def grow(self) -> bool:
        """Whether the last are longer than the first."""
        return statistics.fmean(self.columns[-1]) > 1.5 * statistics.fmean(self.columns[0])

    @property
    def differ(self) -> bool:
        """Whether most of the last differ by more than chance delays would make them."""
        last = self.columns[-1]
        return last[-2] - last[1] > 0.15 * statistics.median(last)

    @property
    def are_steady(self) -> bool:
        """Whether nearly all of the last are about as long as their median, or longer."""
        return self.columns[-1][1] > statistics.median(self.columns[-1]) / 2

    @property
    def evidence(self) -> dict[str, str]:
        """For what is said of them."""
        means = ", ".join(f"{1000 * statistics.fmean(column):.0f} ms" for column in self.columns)
        last = self.columns[-1]
        return {
            "did": self._did,
            "got": f"waits of {means} on average; most of the last: {1000 * last[1]:.0f} to {1000 * last[-2]:.0f} ms",
            "expected": "waits that about double each time, and that differ from call to call by much of their length",
        }


def slow_storm(start: StartShop, payments: Provider, orders: Orders) -> Waits:
    """The waits once more, alone, and so long that no delay of a busy machine can be taken for one."""
    payments.plan = FaultPlan(rates={"reset": 1})
    with start(RETRY_WAIT_SECONDS=str(SLOW_WAIT), RETRY_ATTEMPTS="4", DEADLINE_SECONDS="20") as shop:
        requests = [pay(orders.unpaid()) for _ in range(SLOW_STORM)]
        answers = patiently(shop, requests, wake(payments), stagger=0.02, patience=5)
        scene = Scene(answers, payments.received(), payments.counts().most, shop)
    return Waits(scene, SLOW_STORM, SLOW_WAIT)


def timeouts(output: str) -> list[str]:
    """The lines that tell of a timeout."""
    return [line for line in output.splitlines() if re.search(r"time[ds]?[ _-]?out", line, re.IGNORECASE)]


def require(answer: Answer, status: int, shop: Shop) -> None:
    """Go on if the answer has this status.

    Raises:
        NotRight: it has another.
    """
    error = logged_error(shop) if answer.status == 500 else ""
    evidence = {"did": shown(answer.did), "got": f"{answer.status}{error}", "expected": str(status)}
    if (answer.status, status) == (201, 502):
        wrong("failure_as_success", **evidence)
    if answer.status != status:
        differs(
            **evidence,
            matters="What became of a call is what the customer is told.",
        )


def require_retry_after(did: str, answer: Answer, shop: Shop, expected: str) -> None:
    """Go on if the shop passes on how long to wait.

    Raises:
        NotRight: it does not.
    """
    require(answer, 503, shop)
    told = answer.headers.get("retry-after")
    if told not in expected.split(" or "):
        differs(
            did=did,
            got=f"503 with Retry-After: {told}" if told else "503 without Retry-After",
            expected=f"503 with Retry-After: {expected}, from the `retry_after` of `Unavailable`",
            matters="Whoever asked the shop could know when it is worth while to ask again, and does not.",
        )


def listed(words: set[object]) -> str:
    """Words in a row."""
    return " or ".join(sorted(map(str, words)))
