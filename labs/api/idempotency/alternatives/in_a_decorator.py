"""A decorator for any view that may be repeated; the view itself sees to it that its work is done once.

The answer is stored in a transaction after that of the payment. Between the two a process can die as well. So a view
that takes over from another is told, and finds what that one has done.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

import click
from flask import Blueprint, Flask, Response, current_app, jsonify, request
from sqlalchemy import ColumnElement, delete, func, select, update
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


class UnderWay(Conflict):
    """The first request under this key has no answer yet (409)."""

    def get_headers(self, *args: Any) -> list[tuple[str, str]]:
        """Those of any error, and when to ask again."""
        return [*super().get_headers(*args), ("Retry-After", "1")]


def init_app(app: Flask) -> None:
    """Add the route that pays an order, and the commands for what could not be paid and what may be forgotten."""
    app.register_blueprint(blueprint)


def repeatable(view: Callable[..., tuple[Response, int]]) -> Callable[..., Response]:
    """Have a view answer each request once, under the request's Idempotency-Key.

    The view gets `again`: whether somebody may have begun the same request before.
    """

    @functools.wraps(view)
    def wrapper(**arguments: Any) -> Response:
        key = _key()
        if key is None:
            return current_app.make_response(view(**arguments, again=False))
        known = _claim(key)
        if known.status is not None:
            return _replayed(known)
        try:
            try:
                response = current_app.make_response(view(**arguments, again=known.claimed_at != known.created_at))
            except PaymentRequired as error:  # of the errors, the only answer
                response = current_app.make_response(current_app.handle_user_exception(error))
            _store(known, response)
        except BaseException:
            _let_go(known)
            raise
        return response

    return wrapper


@blueprint.post("/orders/<uuid:public_id>/payments")
@repeatable
def pay_order(public_id: UUID, again: bool) -> tuple[Response, int]:
    """Take the order's total from the customer through the payment provider."""
    with _transaction() as session:
        paid = Payment.status == "succeeded", Order.public_id == public_id, Order.status == "paid"
        payment = session.scalar(select(Payment).join(Payment.order).where(*paid)) if again else None
        if payment:
            return jsonify(payment_json(payment)), 201
        order = _order_to_pay(session, public_id)
        payment = _open_payment(session, order)
    try:
        outcome = _ask(payment, order)
    except Unavailable as error:
        raise BadGateway("The payment provider failed. Repeat the request under the same key.") from error
    with _transaction() as session:
        payment = _write_down(session, payment, *outcome)
    if payment.status == "failed":
        raise PaymentRequired("The payment was declined. The order is still to be paid.")
    return jsonify(payment_json(payment)), 202 if payment.status == "pending" else 201


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


def _claim(key: str) -> IdempotencyKey:
    """A key that nobody else works under, or one with its answer. A row that was there before has an older creation.

    Raises:
        UnprocessableEntity: the key belongs to another request.
        UnderWay: that request has no answer yet.
    """
    patience = timedelta(seconds=settings_of(current_app).idempotency_claim_seconds)
    fingerprint, now = _fingerprint(), func.now()
    with _transaction() as session:
        session.execute(delete(IdempotencyKey).where(IdempotencyKey.key == key, _expired()))
        row = insert(IdempotencyKey).values(key=key, fingerprint=fingerprint, created_at=now, claimed_at=now)
        claimed = session.scalar(row.on_conflict_do_nothing().returning(IdempotencyKey))
        if claimed:
            return claimed
        known = session.scalar(select(IdempotencyKey).where(IdempotencyKey.key == key).with_for_update())
        if known and known.fingerprint != fingerprint:
            raise UnprocessableEntity("This Idempotency-Key was used for another request.")
        if known and known.status is None and _is_free(session, known, patience):
            known.claimed_at = now
            session.flush()
            session.refresh(known)
        elif known is None or known.status is None:
            raise UnderWay("A request with this Idempotency-Key is being worked on.")
        return known


def _is_free(session: Session, known: IdempotencyKey, patience: timedelta) -> bool:
    return known.claimed_at is None or bool(session.scalar(select(func.now() - known.claimed_at > patience)))


def _expired() -> ColumnElement[bool]:
    return IdempotencyKey.created_at < func.now() - timedelta(hours=settings_of(current_app).idempotency_key_hours)


def _store(key: IdempotencyKey, response: Response) -> None:
    body = response.get_data(as_text=True)
    answer = {"status": response.status_code, "content_type": response.content_type, "body": body}
    with _transaction() as session:
        session.execute(update(IdempotencyKey).where(IdempotencyKey.key == key.key).values(**answer))


def _replayed(key: IdempotencyKey) -> Response:
    """The answer that the request had."""
    answer = Response(key.body, status=key.status, content_type=key.content_type)
    answer.headers["Idempotent-Replayed"] = "true"
    return answer


def _let_go(claim: IdempotencyKey) -> None:
    """Let a repeat begin at once: there is no answer to keep."""
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
    body = request.get_json(silent=True)
    if isinstance(body, dict) and body.get("amount", total) != total:
        raise UnprocessableEntity("That is not the order's total.")
    return order


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
