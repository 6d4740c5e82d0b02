"""Whether the key is known is looked up before the work, and the key is written down after it. Requests that come in
between find nothing.

The time in between is the provider's: hundreds of milliseconds, more when it is slow, and slow is when clients repeat.
So the check fails just when it is needed. A test that sends one request after the other passes. The primary key of the
table does its work in the end: it refuses the second row, when the second charge has been made.

Write the key first and commit it; let one statement decide who may go on (INSERT with ON CONFLICT).

Read: "Twenty at once" in the chapter Idempotency.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

import click
from flask import Blueprint, Flask, Response, current_app, jsonify, request
from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, joinedload
from werkzeug.exceptions import BadGateway, BadRequest, Conflict, NotFound, UnprocessableEntity

from shop import database, outside
from shop.foundations.serialization import payment_json
from shop.models import IdempotencyKey, Order, Payment, PaymentStatus
from shop.reliability import circuit_breaker
from shop.reliability.failures import ProviderError, Refused, Unavailable
from shop.settings import settings_of

blueprint = Blueprint("idempotency", __name__, url_prefix="/v1", cli_group=None)

LONGEST_KEY = 255
BATCH = 1000


class PaymentRequired(Conflict):
    """The provider will not take the money (402): the order is still to be paid."""

    code = 402
    name = "Payment Required"


def init_app(app: Flask) -> None:
    """Add the route that pays an order, and the commands for what could not be paid and what may be forgotten."""
    app.register_blueprint(blueprint)


@blueprint.post("/orders/<uuid:public_id>/payments")
def pay_order(public_id: UUID) -> Response:
    """Take the order's total from the customer through the payment provider."""
    key = _key()
    with _transaction() as session:
        known = _known(session, key) if key else None
        if known:
            return _replayed(known)
        order = _order_to_pay(session, public_id)
        payment = _new_payment(order)
    try:
        outcome = _ask(payment, order)
    except Unavailable as error:
        raise BadGateway("The payment provider failed. The order is still to be paid.") from error
    with _transaction() as session:
        response = _response(_write_down(session, payment, *outcome))
        if key:
            stored = insert(IdempotencyKey).values(key=key, fingerprint=_fingerprint(), **_parts(response))
            session.execute(stored.on_conflict_do_nothing())
    return response


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


def _known(session: Session, key: str) -> IdempotencyKey | None:
    """The key with what was answered under it, if it was used before and has not expired.

    Raises:
        UnprocessableEntity: the key belongs to another request.
    """
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.key == key, _expired()))
    known = session.get(IdempotencyKey, key)
    if known and known.fingerprint != _fingerprint():
        raise UnprocessableEntity("This Idempotency-Key was used for another request.")
    return known


def _expired() -> ColumnElement[bool]:
    return IdempotencyKey.created_at < func.now() - timedelta(hours=settings_of(current_app).idempotency_key_hours)


def _parts(response: Response) -> dict[str, Any]:
    return {
        "status": response.status_code,
        "content_type": response.content_type,
        "body": response.get_data(as_text=True),
    }


def _replayed(key: IdempotencyKey) -> Response:
    """The answer that the request had."""
    answer = Response(key.body, status=key.status, content_type=key.content_type)
    answer.headers["Idempotent-Replayed"] = "true"
    return answer


# --- The payment's key: the charge ------------------------------------------------------------------------------------


def _order_to_pay(session: Session, public_id: UUID) -> Order:
    """An order.

    Raises:
        werkzeug.exceptions.HTTPException: it cannot be paid, or not like this.
    """
    order = session.scalar(select(Order).where(Order.public_id == public_id))
    if order is None:
        raise NotFound("There is no such order.")
    if order.status != "pending":
        raise Conflict(f"An order that is {order.status} cannot be paid.")
    if order.total_amount == 0:
        raise Conflict("There is nothing to pay.")
    total = {"amount": order.total_amount, "currency": order.currency}
    body = request.get_json(silent=True)
    if isinstance(body, dict) and body.get("amount", total) != total:
        raise UnprocessableEntity("That is not the order's total.")
    return order


def _new_payment(order: Order) -> Payment:
    return Payment(
        order_id=order.id,
        amount=order.total_amount,
        currency=order.currency,
        status="pending",
        idempotency_key=uuid4(),
        created_at=datetime.now(UTC),
    )


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
    recorded = session.merge(payment)
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
