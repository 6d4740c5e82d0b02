"""Checks of `api/idempotency`.

They pay orders over HTTP as clients do that did not get their answer, and count at the payment provider what was
charged. None of them looks at the file. Races are forced: the provider hangs while the others come, and kills the shop
between the charge and its answer. Time passes by making rows older. The first check that fails is what the learner
reads, so those that recognise a mistake come before those that only see its effects.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, text

from shopfloor.checks.judge import RunCommand, StartShop
from shopfloor.checks.learner import LearnerFailed
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.services.fault_plan import Plan as FaultPlan
from shopfloor.services.payments import DECLINED, Charges
from shopfloor.services.provider_http import Answer as Told
from shopfloor.services.provider_http import Request as Asked
from shopfloor.services.providers import Provider, running

TOGETHER = 20
PATIENCE = 1.5  # seconds without anything happening, where the next thing takes milliseconds
CLAIM_SECONDS = 60
PAY = "POST /v1/orders/…/payments"
HANGING = FaultPlan(rates={"hang": 1})


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    """A key is asked for; nobody takes over while the checks run; and there are connections for all."""
    return {
        "IDEMPOTENCY_KEY_REQUIRED": "true",
        "IDEMPOTENCY_CLAIM_SECONDS": str(CLAIM_SECONDS),
        "RETRY_ATTEMPTS": "1",
        "POOL_SIZE": str(2 * TOGETHER),
        "READ_TIMEOUT_SECONDS": "30",
        "DEADLINE_SECONDS": "30",
    }


class Fatal(Charges):
    """The payment provider. While it works a shop can die: the charge is made, and nobody hears of it.

    Attributes:
        kill: ends that shop, at the next charge.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kill: Callable[[], None] | None = None

    def answer(self, request: Asked) -> Told:
        """Charge, and kill."""
        answer = super().answer(request)
        if self.kill:
            self.kill()
            self.kill = None
        return answer


@pytest.fixture(scope="session")
def service() -> Fatal:
    """What the payment provider does."""
    return Fatal()


@pytest.fixture(scope="session")
def providers(service: Fatal) -> Iterator[dict[str, Provider]]:
    """The payment provider."""
    with running(Provider(service)) as provider:
        yield {"payments": provider}


# --- Orders, requests, and what is known of them ----------------------------------------------------------------------

CHOOSE = """
SELECT id, public_id::text, status FROM orders o
WHERE total_amount > 0 AND NOT EXISTS (SELECT FROM payments WHERE order_id = o.id AND status = 'pending')
ORDER BY id LIMIT 30
"""
RESTATUS = text("UPDATE orders SET status = :status WHERE id = :id")
CARD_DECLINED = """
UPDATE orders SET public_id = (left(public_id::text, 28) || :ending)::uuid WHERE public_id::text = :order
RETURNING public_id::text
"""


@pytest.fixture(scope="module")
def orders(database: Connection) -> Iterator[Iterator[str]]:
    """Orders of the seed data that are still to be paid, each of them once; put back afterwards."""
    rows = database.execute(text(CHOOSE)).all()
    last = database.scalar(text("SELECT coalesce(max(id), 0) FROM payments"))
    database.execute(RESTATUS, [{"id": row.id, "status": "pending"} for row in rows])
    database.execute(text("DELETE FROM idempotency_keys"))
    try:
        yield iter([row.public_id for row in rows])
    finally:
        database.execute(text("DELETE FROM payments WHERE id > :last"), {"last": last})
        database.execute(text("DELETE FROM idempotency_keys"))
        database.execute(RESTATUS, [{"id": row.id, "status": row.status} for row in rows])


def pay(order: str, key: str | None, json: Any = None, **headers: str) -> Request:
    """Pay an order."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", f"/v1/orders/{order}/payments", json, given | ({"Idempotency-Key": key} if key else {}))


def new_key() -> str:
    """One that nobody has used."""
    return str(uuid4())


def charges(provider: Provider, order: str) -> int:
    """How often the provider has charged an order."""
    return sum(charge["reference"] == order for charge in provider.made())


def told(answer: Answer) -> str:
    """An answer in words."""
    said = answer.body.get("detail") or answer.body.get("reference") if isinstance(answer.body, dict) else None
    return f"{answer.status}" + (f" ({said})" if said else "")


def same(one: Answer, other: Answer) -> bool:
    """Whether a client would see no difference."""
    kinds = [answer.headers.get("content-type") for answer in (one, other)]
    return (one.status, one.body) == (other.status, other.body) and kinds[0] == kinds[1]


def paid(shop: Shop, order: str, key: str, json: Any = None, **headers: str) -> Answer:
    """Pay an order that can be paid."""
    answer = shop.ask(pay(order, key, json, **headers))
    if answer.status != 201:
        differs(
            did=f"{PAY}, the first under its key",
            got=told(answer),
            expected="201",
            matters="An order that is still to be paid cannot be paid.",
        )
    return answer


def is_known(database: Connection, key: str) -> bool:
    """Whether there is a committed row with this key, in quotes or without."""
    found = "SELECT count(*) FROM idempotency_keys WHERE position(:key in key) > 0"
    return bool(database.scalar(text(found), {"key": key}))


def until(condition: Callable[[], Any], progress: Callable[[], int] = int, *, patience: float = PATIENCE) -> bool:
    """Wait for a condition; whether it came. While there is progress, time is no matter."""
    deadline, so_far = time.monotonic() + patience, progress()
    while not condition():
        if progress() != so_far:
            deadline, so_far = time.monotonic() + patience, progress()
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def heard(answers: "list[Future[Answer]]") -> int:
    """How many have an answer."""
    return sum(each.done() for each in answers)


def enough(answers: "list[Future[Answer]]", provider: Provider) -> bool:
    """Whether all but one have an answer, and that one is with the provider; or more than one is."""
    at_provider = provider.counts().requests
    return at_provider > 1 or (at_provider == 1 and heard(answers) == len(answers) - 1)


@contextmanager
def asking(provider: Provider) -> Iterator[Callable[[Shop, Request], "Future[Answer]"]]:
    """Ask in threads; what hangs at the provider when the block ends is let go."""
    with ThreadPoolExecutor(TOGETHER) as threads:
        try:
            yield lambda shop, request: threads.submit(shop.ask, request)
        finally:
            provider.plan = FaultPlan()


@pytest.fixture(scope="module")
def other_worker(start: StartShop) -> Iterator[Shop]:
    """The same shop in another process, where clients may do without a key. One of the checks ends it."""
    with start(IDEMPOTENCY_KEY_REQUIRED="false") as shop:
        yield shop


# --- The same again ---------------------------------------------------------------------------------------------------


def test_a_repeat_gets_the_answer_that_there_was(
    shop: Shop, other_worker: Shop, payments: Provider, orders: Iterator[str], database: Connection
) -> None:
    """Sent again under its key, a request gets the answer that it had, from any worker."""
    order, key = next(orders), new_key()
    first = paid(shop, order, key, X_Request_Id="first-attempt", User_Agent="shop-app/1.0")
    again = shop.ask(pay(order, key, X_Request_Id="second-attempt", User_Agent="shop-app/1.1"))
    did, expected = f"{PAY}, and the same request once more", f"{told(first)}, again"
    if again.status == 422:
        wrong("fingerprint_of_headers", did=f"{did}, with another X-Request-Id", got=told(again), expected=expected)
    if again.status == 409 and is_known(database, key):
        wrong("duplicate_is_a_conflict", did=did, got=told(again), expected=expected)
    if not same(again, first):
        differs(
            did=did,
            got=told(again),
            expected=expected,
            matters="A client that did not get its answer cannot find out that the order is paid.",
        )
    elsewhere = other_worker.ask(pay(order, key))
    if not same(elsewhere, first):
        wrong("keys_in_the_process", did=f"{did}, to another worker", got=told(elsewhere), expected=expected)
    database.execute(
        text("UPDATE payments SET status = 'refunded' WHERE provider_reference = :it"), {"it": first.body["reference"]}
    )
    later = shop.ask(pay(order, key))
    if not same(later, first):
        wrong(
            "answer_made_anew",
            did=f"{did}, after the payment was refunded",
            got=f"{told(later)}: {later.body}",
            expected=f"what was answered the first time: {first.body}",
        )
    if (requests := payments.counts().requests) != 1:
        differs(
            did=did,
            got=f"{requests} requests at the provider",
            expected="1",
            matters="A repeat has nothing to ask: its answer is known.",
        )


def test_a_key_belongs_to_one_request(shop: Shop, payments: Provider, orders: Iterator[str]) -> None:
    """Under the same key another request is refused: another body, or another order."""
    order, other, key = next(orders), next(orders), new_key()
    first = paid(shop, order, key)
    total = {"amount": first.body["amount"]}
    reused = shop.ask(pay(order, key, total))
    did = "A payment without a body, and under its key one with {'amount': …}"
    if same(reused, first):
        wrong("body_not_compared", did=did, got=f"{told(reused)}, the answer to the first", expected="422")
    if reused.status != 422:
        differs(did=did, got=told(reused), expected="422", matters="It is another request, and nobody did it.")
    elsewhere = shop.ask(pay(other, key))
    did = "A payment, and under its key that of another order"
    if same(elsewhere, first):
        wrong("path_not_compared", did=did, got=f"{told(elsewhere)}, the answer to the first", expected="422")
    if elsewhere.status != 422 or charges(payments, other):
        differs(
            did=did,
            got=f"{told(elsewhere)}, and {charges(payments, other)} charges of the other order",
            expected="422, and none",
            matters="A client that uses a key twice has a fault, and should hear of it.",
        )
    if not same(again := shop.ask(pay(order, key)), first):
        differs(
            did="The first request again, after these two",
            got=told(again),
            expected=told(first),
            matters="Whoever uses a key by mistake must not take the answer from its owner.",
        )
    key = new_key()
    paid(shop, other, key, total := {"amount": total_of(shop, other)})
    if (reused := shop.ask(pay(other, key, total))).status != 201:
        differs(did="The same body twice", got=told(reused), expected="201", matters="It is the same request.")


def total_of(shop: Shop, order: str) -> Any:
    """What an order costs."""
    return shop.get(f"/v1/orders/{order}").body["total"]


# --- At once ----------------------------------------------------------------------------------------------------------


def test_twenty_at_once_are_one(
    shop: Shop, other_worker: Shop, payments: Provider, orders: Iterator[str], database: Connection
) -> None:
    """Of twenty requests at once under one key, one is worked on; the others hear so, at once."""
    order, key = next(orders), new_key()
    payments.plan = HANGING
    with asking(payments) as ask:
        answers = [ask((shop, other_worker)[place % 2], pay(order, key)) for place in range(TOGETHER)]
        done = until(lambda: enough(answers, payments), lambda: heard(answers))
        received, known = payments.received(), is_known(database, key)
        told_at_once = heard(answers)
    statuses = sorted(each.result().status for each in answers)
    did = f"{TOGETHER} times {PAY} under one key at once, at two workers, while the provider hangs"
    if len({request.idempotency_key for request in received}) > 1:
        got = f"{len(received)} requests at the provider, each under another key: {charges(payments, order)} charges"
        wrong("check_then_act", did=did, got=got, expected="1")
    if not done:
        got = f"{told_at_once} of them have an answer, and for {PATIENCE} s no more"
        mistake = "waits_for_the_first" if known else "one_transaction"
        wrong(mistake, did=did, got=got, expected=f"409 for {TOGETHER - 1}, at once")
    if statuses != [201] + (TOGETHER - 1) * [409] or len(received) != 1:
        differs(
            did=did,
            got=f"{statuses}, and {len(received)} requests at the provider",
            expected=f"one 201 and {TOGETHER - 1} times 409, and 1 request",
            matters="A client that repeats too early must hear that its request is being worked on, and nothing else.",
        )
    if (again := shop.ask(pay(order, key))).status != 201 or charges(payments, order) != 1:
        differs(
            did="The same request once more, when the provider has answered",
            got=f"{told(again)}, and {charges(payments, order)} charges",
            expected="201, and 1",
            matters="Those that heard 409 come back for their answer.",
        )


# --- What goes wrong in the middle ------------------------------------------------------------------------------------


def test_a_lost_answer_is_asked_for_again(shop: Shop, payments: Provider, orders: Iterator[str]) -> None:
    """When the provider's answer was lost, a repeat asks it again, and the money is taken once."""
    order, key = next(orders), new_key()
    payments.plan = FaultPlan(script=("lost",))
    failed = shop.ask(pay(order, key))
    again = shop.ask(pay(order, key))
    did = f"{PAY}, of which the provider's answer is lost, and the same request once more"
    asked, times = payments.counts().requests, charges(payments, order)
    if failed.status == again.status == 502 and asked == 1:
        wrong("failures_stored", did=did, got="502 and 502; the provider was asked once", expected="502 and 201")
    if again.status == 409 and asked == 1:
        wrong("failure_keeps_the_claim", did=did, got=f"502 and {told(again)}", expected="502 and 201")
    if times > 1:
        keys = len({request.idempotency_key for request in payments.received()})
        got = f"{told(failed)} and {told(again)}: {times} charges, under {keys} keys"
        wrong("new_key_for_each_attempt", did=did, got=got, expected="1 charge")
    if (failed.status, again.status, times) != (502, 201, 1):
        differs(
            did=did,
            got=f"{told(failed)} and {told(again)}: {times} charges",
            expected="502 and 201: 1 charge",
            matters="The customer is told that the order is not paid, or pays twice.",
        )


def test_an_order_is_charged_once_whatever_the_keys(shop: Shop, payments: Provider, orders: Iterator[str]) -> None:
    """Two requests for one order at once, each under a key of its own, charge it once."""
    order = next(orders)
    payments.plan = HANGING
    with asking(payments) as ask:
        first = ask(shop, pay(order, new_key()))
        until(lambda: payments.counts().requests == 1)
        second = ask(shop, pay(order, new_key()))
        until(lambda: second.done() or payments.counts().requests > 1, patience=PATIENCE / 2)
    answers = [first.result(), second.result()]
    if (times := charges(payments, order)) != 1:
        wrong(
            "charge_for_each_key",
            did=f"{PAY} twice at once, under two keys, as from two tabs of a browser",
            got=f"{' and '.join(map(told, answers))}: {times} charges",
            expected="1 charge",
        )


def test_a_refusal_is_an_answer(shop: Shop, payments: Provider, orders: Iterator[str], database: Connection) -> None:
    """A declined card is an answer, and is kept; under a new key the customer may try another card."""
    order = database.scalar(text(CARD_DECLINED), {"ending": DECLINED, "order": next(orders)})
    key = new_key()
    first, again = shop.ask(pay(order, key)), shop.ask(pay(order, key))
    did = f"{PAY} with a card that is declined, and the same request once more"
    if first.status != 402 or not same(first, again) or payments.counts().requests != 1:
        differs(
            did=did,
            got=f"{told(first)} and {told(again)}; the provider was asked {payments.counts().requests} times",
            expected="402 and the same 402; once",
            matters="A repeat is no new attempt to pay: a card that has money by now would be charged for it.",
        )
    shop.ask(pay(order, new_key()))
    keys = [request.idempotency_key for request in payments.received()]
    if len(keys) == 2 and len(set(keys)) == 1:
        got = "the provider was asked under the same key, and told the same"
        wrong("key_of_the_order", did=f"{did}; then under a new key", got=got, expected="a key of its own")
    if len(keys) != 2:
        differs(
            did=f"{did}; then under a new key",
            got=f"{len(keys)} requests at the provider",
            expected="2",
            matters="A customer whose card was declined can never pay.",
        )


# --- Time passes ------------------------------------------------------------------------------------------------------

AGE = """
UPDATE idempotency_keys SET created_at = created_at - make_interval(mins => :minutes),
                            claimed_at = claimed_at - make_interval(mins => :minutes) WHERE position(:key in key) > 0
"""


def test_keys_expire_after_a_day(shop: Shop, payments: Provider, orders: Iterator[str], database: Connection) -> None:
    """A key is remembered for 24 hours. After that it is a new one."""
    order, other, key = next(orders), next(orders), new_key()
    first = paid(shop, order, key)
    for minutes in (23 * 60 + 50, 20):
        again = shop.ask(pay(order, key)) if minutes == 20 else first
        if not same(again, first):
            differs(
                did=f"{PAY}, and the same request once more after 23 hours and 50 minutes",
                got=told(again),
                expected=told(first),
                matters="A client that was offline for a night comes back too late.",
            )
        database.execute(text(AGE), {"minutes": minutes, "key": key})
    late = shop.ask(pay(other, key))
    did = f"{PAY}, and under its key another order after 24 hours and 10 minutes"
    if late.status != 201 and len({request.idempotency_key for request in payments.received()}) < len(
        payments.received()
    ):
        got = f"{told(late)}: the provider was asked under the key of the first charge, and refused"
        wrong("clients_key_to_the_provider", did=did, got=got, expected="201")
    if late.status in {409, 422} or same(late, first):
        wrong("never_expires", did=did, got=told(late), expected="201, as for any new key")
    if late.status != 201 or charges(payments, other) != 1:
        differs(did=did, got=told(late), expected="201", matters="An order cannot be paid.")
    if not same(again := shop.ask(pay(other, key)), late):
        differs(did=f"{did}; and once more", got=told(again), expected=told(late), matters="It is remembered again.")


FILL = """
INSERT INTO idempotency_keys (key, fingerprint, created_at, claimed_at, status, content_type, body)
SELECT :name || n, 'f', now() - make_interval(hours => :hours), now() - make_interval(hours => :hours),
       :status, CASE WHEN :status > 0 THEN 'application/json' END, CASE WHEN :status > 0 THEN '{}' END
FROM generate_series(1, :number) AS n
"""
LEFT = "SELECT rtrim(key, '0123456789'), count(*) FROM idempotency_keys WHERE key LIKE 'check-%' GROUP BY 1"


@pytest.mark.usefixtures("orders")
def test_expired_keys_are_deleted(run: RunCommand, database: Connection) -> None:
    """`flask forget-keys` deletes the keys that have expired, all of them and no others."""
    kinds = {"check-old-": (25, 201, 2100), "check-old-unanswered-": (25, None, 5), "check-young-": (23, 201, 5)}
    kinds["check-under-way-"] = (0, None, 5)
    for name, (hours, status, number) in kinds.items():
        values = {"name": name, "hours": hours, "status": status, "number": number}
        database.execute(text(FILL.replace(":status", "CAST(:status AS integer)")), values)
    ran = run("forget-keys")
    left = dict(database.execute(text(LEFT)).tuples().all())
    did = "flask forget-keys, with 2,105 keys that are 25 hours old and 10 that are younger"
    if ran.code == 0 and "check-under-way-" not in left and left.get("check-young-") == 5:
        got = "also deleted: the keys of requests that are being worked on"
        wrong("sweeps_the_unanswered", did=did, got=got, expected="2,105 deleted, 10 left")
    if ran.code or left != {"check-young-": 5, "check-under-way-": 5}:
        got = f"exit code {ran.code}, {ran.printed.strip().splitlines()[-1:]}, left: {left}"
        differs(
            did=did,
            got=got,
            expected="exit code 0, and the 10 younger ones are left",
            matters="The table grows for ever, with a copy of every answer; or keys are gone that are needed.",
        )


PENDING = """
INSERT INTO payments (order_id, idempotency_key, amount, currency, status)
SELECT id, CAST(:key AS uuid), total_amount, currency, 'pending' FROM orders WHERE public_id::text = :order
"""


def test_pending_payments_are_settled(
    run: RunCommand, payments: Provider, orders: Iterator[str], database: Connection
) -> None:
    """`flask settle` charges what is pending, under the key that the payment has."""
    order, key = next(orders), new_key()
    database.execute(text(PENDING), {"key": key, "order": order})
    ran = run("settle")
    status = database.scalar(text("SELECT status FROM orders WHERE public_id::text = :order"), {"order": order})
    used = [request.idempotency_key for request in payments.received() if order in request.body.decode()]
    if ran.code or used != [key] or status != "paid":
        differs(
            did="flask settle, with one payment that is pending",
            got=f"exit code {ran.code}; asked under {used}; the order is {status}",
            expected=f"exit code 0; asked under {[key]}; the order is paid",
            matters="Customers who were told 202 never pay, or pay twice.",
        )


# --- The header -------------------------------------------------------------------------------------------------------


def test_keys_are_checked(shop: Shop, other_worker: Shop, payments: Provider, orders: Iterator[str]) -> None:
    """A key must be there where it is required, and have 1 to 255 characters."""
    order = next(orders)
    long = "".join(uuid4().hex for _ in range(200))
    for name, key in (("no Idempotency-Key", None), ("an Idempotency-Key of 6,400 characters", long)):
        answer = shop.ask(pay(order, key))
        did = f"{PAY} with {name}"
        if key and answer.status == 500:
            wrong("key_unchecked", did=did, got=told(answer), expected="400")
        if answer.status != 400 or payments.counts().requests:
            differs(did=did, got=told(answer), expected="400", matters="What is no key protects nobody.")
    empty = replace(pay(order, None), headers={"Idempotency-Key": ""})
    if (answer := shop.ask(empty)).status != 400:
        differs(did=f"{PAY} with an empty key", got=told(answer), expected="400", matters="All share the empty key.")
    quoted = pay(order, f'"{new_key()}"')
    if (answer := shop.ask(quoted)).status != 201:
        differs(did=f"{PAY} with a key in quotes", got=told(answer), expected="201", matters="So the draft has it.")
    if (answer := other_worker.ask(pay(next(orders), None))).status != 201:
        differs(
            did=f"{PAY} without a key, where none is required",
            got=told(answer),
            expected="201",
            matters="Clients that know no keys yet cannot pay.",
        )


# --- The shop dies ----------------------------------------------------------------------------------------------------

GIVEN_UP = """
UPDATE idempotency_keys SET claimed_at = claimed_at - make_interval(secs => :seconds) WHERE position(:key in key) > 0
"""


@pytest.fixture
def dying(other_worker: Shop, service: Fatal) -> Shop:
    """A worker that will die while the provider works on its next charge."""
    service.kill = other_worker.kill
    return other_worker


def test_a_crash_in_the_middle_is_got_over(
    shop: Shop, dying: Shop, payments: Provider, orders: Iterator[str], database: Connection
) -> None:
    """The shop dies after the charge and before it has written that down: a repeat finds out, and charges nothing."""
    order, key = next(orders), new_key()
    with suppress(LearnerFailed):
        dying.ask(pay(order, key))
    known = is_known(database, key)
    database.execute(text(GIVEN_UP), {"seconds": CLAIM_SECONDS + 1, "key": key})
    answers: list[Answer] = []

    def is_over() -> bool:
        answers.append(shop.ask(pay(order, key)))
        return answers[-1].status != 409

    until(is_over)  # at once, unless PostgreSQL has still to notice that the other end of a connection is dead
    answer, elsewhere = answers[-1], shop.ask(pay(order, key))
    keys, times = {request.idempotency_key for request in payments.received()}, charges(payments, order)
    did = f"{PAY}, at a worker that dies between the charge and its answer, and again after {CLAIM_SECONDS} s"
    if times > 1:
        mistake = "new_key_for_each_attempt" if known else "one_transaction"
        wrong(mistake, did=did, got=f"{told(answer)}: {times} charges, under {len(keys)} keys", expected="1 charge")
    if answer.status == 409:
        wrong("claim_without_end", did=did, got=told(answer), expected="201")
    if answer.status != 201 or not same(elsewhere, answer):
        differs(
            did=did,
            got=f"{told(answer)}, and then {told(elsewhere)}",
            expected="201, and the same again",
            matters="The order is paid, and the customer cannot find that out.",
        )
