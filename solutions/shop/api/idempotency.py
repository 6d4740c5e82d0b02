"""Paying an order: a request that may be sent twice, and happens once.

Two keys see to it. The client's names its request: sent again under the same key, it gets the answer that it had. The
payment's names the charge: it is committed before the provider is asked, and goes there with every attempt,
whoever makes it.

Source: draft-ietf-httpapi-idempotency-key-header-07.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

import click
from flask import Blueprint, Flask, Response, current_app, jsonify, request
from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, joinedload
from werkzeug.exceptions import BadGateway, BadRequest, Conflict, NotFound, UnprocessableEntity

from shop import database, outside
from shop.foundations import validation
from shop.foundations.serialization import payment_json
from shop.models import IdempotencyKey, Order, Payment, PaymentStatus
from shop.reliability import circuit_breaker
from shop.reliability.failures import ProviderError, Refused, Unavailable
from shop.settings import settings_of
from shop.shapes import Agreed

blueprint = Blueprint("idempotency", __name__, url_prefix="/v1", cli_group=None)

LONGEST_KEY = 255
BATCH = 1000


class PaymentRequired(Conflict):
    """The provider will not take the money (402): the order is still to be paid."""

    code = 402
    name = "Payment Required"


class UnderWay(Conflict):
    """The first request under this key has no answer yet (409)."""

    def get_headers(self, *args: Any) -> list[tuple[str, str]]:
        """Those of any error, and when to ask again."""
        return [*super().get_headers(*args), ("Retry-After", "1")]


def init_app(app: Flask) -> None:
    """Add the route that pays an order, and the commands for what could not be paid and what may be forgotten."""
    app.register_blueprint(blueprint)


# [start:pay]
@blueprint.post("/orders/<uuid:public_id>/payments")
def pay_order(public_id: UUID) -> Response:
    """Take the order's total from the customer through the payment provider."""
    key = _key()
    with _transaction() as session:
        claim = _claim(session, key) if key else None
        if claim and claim.status is not None:
            return _replayed(claim)
        order = _order_to_pay(session, public_id)
        payment = _open_payment(session, order)
    try:
        outcome = _ask(payment, order)  # no transaction is open meanwhile, and no connection is held
        with _transaction() as session:
            stored = session.get(IdempotencyKey, key, with_for_update=True) if key else None
            response = _response(_write_down(session, payment, *outcome))
            if stored and stored.status is None:
                _store(stored, response)
    except Unavailable as error:  # nobody knows whether the money was taken
        _let_go(claim)
        raise BadGateway("The payment provider failed. Repeat the request under the same key.") from error
    except Exception:
        _let_go(claim)
        raise
    return response


# [end:pay]


@blueprint.cli.command("settle")
def settle() -> None:
    """Charge the payments that are pending, until the first that fails."""
    pending = (Payment.status == "pending", Order.status == "pending")
    query = select(Payment).join(Payment.order).where(*pending).options(joinedload(Payment.order))
    with _transaction() as session:
        payments = session.scalars(query.distinct(Payment.order_id).order_by(Payment.order_id, Payment.id)).all()
    for payment in payments:
        try:
            outcome = _ask(payment, payment.order)
        except ProviderError as error:
            raise click.ClickException(f"The payment provider failed: {error}.") from error
        with _transaction() as session:
            status = _write_down(session, payment, *outcome).status
        click.echo(f"{payment.order.public_id}: {status}")


# [start:forget]
@blueprint.cli.command("forget-keys")
def forget_keys() -> None:
    """Delete the keys that have expired, some at a time: no long transaction, and nobody waits for a lock."""
    batch = select(IdempotencyKey.key).where(_expired()).limit(BATCH).with_for_update(skip_locked=True)
    statement = delete(IdempotencyKey).where(IdempotencyKey.key.in_(batch)).returning(IdempotencyKey.key)
    forgotten, last = 0, BATCH
    while last == BATCH:
        with _transaction() as session:
            last = len(session.scalars(statement).all())
        forgotten += last
    click.echo(f"{forgotten} keys forgotten")


# [end:forget]


@contextmanager
def _transaction() -> Iterator[Session]:
    """A transaction of its own. What was read in it can still be looked at when it has been committed."""
    with Session(database.engine(), expire_on_commit=False) as session, session.begin():
        yield session


# --- The client's key: the request ------------------------------------------------------------------------------------


def _key() -> str | None:
    """The key of this request, with or without the quotes of a structured field; none if it has none and needs none.

    Raises:
        BadRequest: it is missing, or is none.
    """
    key = request.headers.get("Idempotency-Key", "").strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not key and settings_of(current_app).idempotency_key_required:
        raise BadRequest("The header Idempotency-Key is missing.")
    if len(key) > LONGEST_KEY or not key.isascii() or not key.isprintable():
        raise BadRequest(f"An Idempotency-Key has at most {LONGEST_KEY} characters, all of them printable ASCII.")
    return key or None


def _fingerprint() -> str:
    """What makes a request the same one: what is asked, of which order, and in which words. No header is part of it."""
    return hashlib.sha256(f"{request.method} {request.path}\n".encode() + request.get_data()).hexdigest()


# [start:claim]
def _claim(session: Session, key: str) -> IdempotencyKey:
    """Have this request and no other work under a key; or the key with what was answered under it.

    One statement decides, so that of twenty requests at once one gets the row. A row that is there can be had by
    whoever comes after it has expired, or after its request was given up; the database's clock says when that is, one
    clock for all workers.

    Raises:
        UnprocessableEntity: the key belongs to another request.
        UnderWay: that request has no answer yet.
    """
    patience = timedelta(seconds=settings_of(current_app).idempotency_claim_seconds)
    fingerprint = _fingerprint()
    unanswered = and_(IdempotencyKey.fingerprint == fingerprint, IdempotencyKey.status.is_(None))
    claimed_at = IdempotencyKey.claimed_at
    given_up = and_(unanswered, or_(claimed_at.is_(None), claimed_at < func.now() - patience))
    row: dict[str, Any] = {"fingerprint": fingerprint, "created_at": func.now(), "claimed_at": func.now()}
    row |= {"status": None, "content_type": None, "body": None}
    claim = insert(IdempotencyKey).values(key=key, **row)
    claim = claim.on_conflict_do_update(index_elements=["key"], set_=row, where=or_(_expired(), given_up))
    claimed = session.scalar(claim.returning(IdempotencyKey))
    if claimed:
        return claimed
    known = session.get(IdempotencyKey, key)
    if known and known.fingerprint != fingerprint:
        raise UnprocessableEntity("This Idempotency-Key was used for another request.")
    if known is None or known.status is None:  # none: it was forgotten between the two statements
        raise UnderWay("A request with this Idempotency-Key is being worked on.")
    return known


# [end:claim]


def _expired() -> ColumnElement[bool]:
    return IdempotencyKey.created_at < func.now() - timedelta(hours=settings_of(current_app).idempotency_key_hours)


def _store(key: IdempotencyKey, response: Response) -> None:
    key.status, key.content_type = response.status_code, response.content_type
    key.body = response.get_data(as_text=True)


def _replayed(key: IdempotencyKey) -> Response:
    """The answer that the request had."""
    answer = Response(key.body, status=key.status, content_type=key.content_type)
    answer.headers["Idempotent-Replayed"] = "true"
    return answer


def _let_go(claim: IdempotencyKey | None) -> None:
    """Let a repeat begin at once: there is no answer to keep. A claim that somebody has taken over stays theirs."""
    if claim:
        ours = (IdempotencyKey.key == claim.key, IdempotencyKey.claimed_at == claim.claimed_at)
        with _transaction() as session:
            session.execute(update(IdempotencyKey).where(*ours).values(claimed_at=None))


# --- The payment's key: the charge ------------------------------------------------------------------------------------


def _order_to_pay(session: Session, public_id: UUID) -> Order:
    """An order, locked: payments of the same order are begun one after another, whatever their clients' keys.

    Raises:
        werkzeug.exceptions.HTTPException: it cannot be paid, or not like this.
    """
    order = session.scalar(select(Order).where(Order.public_id == public_id).with_for_update())
    if order is None:
        raise NotFound("There is no such order.")
    if order.status != "pending":
        raise Conflict(f"An order that is {order.status} cannot be paid.")
    if order.total_amount == 0:
        raise Conflict("There is nothing to pay.")
    total = {"amount": order.total_amount, "currency": order.currency}
    agreed = validation.body(Agreed).amount if request.get_data() else None  # a body that is misread takes no money
    if agreed is not None and agreed.model_dump() != total:
        raise UnprocessableEntity("That is not the order's total.")
    return order


# [start:open]
def _open_payment(session: Session, order: Order) -> Payment:
    """The payment of an order whose outcome is not known yet, or else a new one.

    It is committed with its key before the provider hears of it. Whatever becomes of this process, whoever comes next
    finds the key under which the money may have been taken.
    """
    unknown = select(Payment).where(Payment.order_id == order.id, Payment.status == "pending").order_by(Payment.id)
    payment = session.scalar(unknown.limit(1))
    if payment is None:
        amount, currency = order.total_amount, order.currency
        payment = Payment(
            order_id=order.id, amount=amount, currency=currency, status="pending", idempotency_key=uuid4()
        )
        session.add(payment)
        session.flush()
    return payment


# [end:open]


def _ask(payment: Payment, order: Order) -> tuple[PaymentStatus, str | None]:
    """Have the provider charge a payment: what has become of it, and the provider's reference.

    Raises:
        Unavailable: that is not known. The payment stays pending, and is charged under the same key next time.
    """
    try:
        return "succeeded", outside.charge(payment, order).reference
    except Refused as error:
        if error.status == HTTPStatus.PAYMENT_REQUIRED:
            return "failed", None
        raise Unavailable(f"it did not understand: {error}") from error
    except Unavailable as error:
        facts = {"order": order.public_id, "placed_at": order.placed_at}
        current_app.logger.warning("the payment provider failed: %s", error, extra=facts)
        status = circuit_breaker.fallback(error)
        if status is None:
            raise
        return status, None


def _write_down(session: Session, payment: Payment, status: PaymentStatus, reference: str | None) -> Payment:
    """Record what has become of a payment, unless somebody was quicker, such as `flask settle`."""
    order = session.get_one(Order, payment.order_id, with_for_update=True)
    recorded = session.get_one(Payment, payment.id, with_for_update=True)
    if recorded.status == "pending":
        recorded.status, recorded.provider_reference = status, reference
        if status == "succeeded":
            order.status = "paid"
        current_app.logger.info("payment %s", status, extra={"order": order.public_id})
    return recorded


def _response(payment: Payment) -> Response:
    """What whoever pays is told of a payment."""
    if payment.status == "failed":
        declined = PaymentRequired("The payment was declined. The order is still to be paid.")
        return current_app.make_response(current_app.handle_user_exception(declined))
    response = jsonify(payment_json(payment))
    response.status_code = 202 if payment.status == "pending" else 201
    return response
