"""Paying an order: a request that must not happen twice. Here, one that is sent twice is two requests."""

from uuid import UUID, uuid4

from flask import Blueprint, Flask, Response, current_app, jsonify
from sqlalchemy import select
from werkzeug.exceptions import BadGateway, Conflict, NotFound

from shop import database
from shop.foundations.serialization import payment_json
from shop.models import Order, Payment
from shop.reliability import timeouts_retries
from shop.reliability.timeouts_retries import ProviderError

blueprint = Blueprint("idempotency", __name__, url_prefix="/v1")


def init_app(app: Flask) -> None:
    """Add the route that pays an order."""
    app.register_blueprint(blueprint)


@blueprint.post("/orders/<uuid:public_id>/payments")
def pay_order(public_id: UUID) -> tuple[Response, int]:
    """Take the order's total from the customer through the payment provider."""
    session = database.session()
    order = session.scalar(select(Order).where(Order.public_id == public_id))
    if order is None:
        raise NotFound("There is no such order.")
    if order.status != "pending":
        raise Conflict(f"An order that is {order.status} cannot be paid.")
    if order.total_amount == 0:
        raise Conflict("There is nothing to pay.")
    try:
        charge = timeouts_retries.provider().charge(
            amount=order.total_amount,
            currency=order.currency,
            reference=str(order.public_id),
            idempotency_key=str(uuid4()),
        )
    except ProviderError as error:
        current_app.logger.warning("the payment provider failed: %s", error)
        raise BadGateway("The payment provider failed. The order is still to be paid.") from error
    payment = Payment(
        order=order,
        provider_reference=charge.reference,
        amount=order.total_amount,
        currency=order.currency,
        status="succeeded",
    )
    order.status = "paid"
    session.add(payment)
    session.commit()
    return jsonify(payment_json(payment)), 201
