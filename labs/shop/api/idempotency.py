"""Paying an order: a request that must not happen twice. Here, one that is sent twice is two requests."""

from uuid import UUID, uuid4

import click
from flask import Blueprint, Flask, Response, current_app, jsonify, request
from sqlalchemy import select
from werkzeug.exceptions import BadGateway, Conflict, NotFound, UnprocessableEntity

from shop import database, outside
from shop.foundations.serialization import payment_json
from shop.models import Order, Payment
from shop.reliability import circuit_breaker
from shop.reliability.failures import ProviderError, Refused, Unavailable

blueprint = Blueprint("idempotency", __name__, url_prefix="/v1", cli_group=None)


class PaymentRequired(Conflict):
    """The provider will not take the money (402): the order is still to be paid."""

    code = 402
    name = "Payment Required"


def init_app(app: Flask) -> None:
    """Add the route that pays an order, and the command that settles what could not be paid."""
    app.register_blueprint(blueprint)


@blueprint.post("/orders/<uuid:public_id>/payments")
def pay_order(public_id: UUID) -> tuple[Response, int]:
    """Take the order's total from the customer through the payment provider.

    The body may say what the customer has agreed to: `{"amount": {"amount": 1999, "currency": "EUR"}}`.
    """
    session = database.session()
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
    try:
        payment = _charge(order)
    except Refused as error:
        raise PaymentRequired("The payment was declined. The order is still to be paid.") from error
    except Unavailable as error:
        raise BadGateway("The payment provider failed. The order is still to be paid.") from error
    return jsonify(payment_json(payment)), 202 if payment.status == "pending" else 201


@blueprint.cli.command("settle")
def settle() -> None:
    """Charge the payments that are pending, until the first that fails."""
    session = database.session()
    query = select(Order).join(Payment).where(Payment.status == "pending", Order.status == "pending").order_by(Order.id)
    for order in session.scalars(query.distinct()).all():
        try:
            payment = _charge(order)
        except ProviderError as error:
            raise click.ClickException(f"The payment provider failed: {error}.") from error
        click.echo(f"{order.public_id}: {payment.status}")


def _charge(order: Order) -> Payment:
    """Charge an order and write down what came of it.

    One whose payment is pending is charged under the key of that payment: if the money was taken the first time, it is
    not taken again.

    Raises:
        ProviderError: there is no payment.
    """
    session = database.session()
    payment = next((payment for payment in order.payments if payment.status == "pending"), None) or Payment(
        order_id=order.id, amount=order.total_amount, currency=order.currency, idempotency_key=uuid4()
    )
    try:
        payment.provider_reference = outside.charge(payment, order).reference
        payment.status = "succeeded"
    except Unavailable as error:
        status = circuit_breaker.fallback(error)
        facts = {"order": order.public_id, "placed_at": order.placed_at}
        current_app.logger.warning("the payment provider failed: %s", error, extra=facts)
        if status is None:
            raise
        payment.status = status
    if payment.status == "succeeded":
        order.status = "paid"
    session.add(payment)
    session.commit()
    current_app.logger.info("payment %s", payment.status, extra={"order": order.public_id})
    return payment
