"""A second way to order: a marketplace sends what its own customers have bought. Given code, no lab changes it.

It stands for every way into a shop that is not the one that somebody had in mind: an import, a command, a job, a
partner. It exists only where `marketplace_token` is set.
"""

import hmac
from typing import Any

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from pydantic import BaseModel, Field
from werkzeug.exceptions import Conflict, HTTPException, Unauthorized

from shop.foundations import business_logic
from shop.foundations.validation import Invalid, NewOrder, body
from shop.settings import settings_of

blueprint = Blueprint("marketplace", __name__, url_prefix="/marketplace")


class Batch(BaseModel):
    """Orders that the marketplace has taken since it last sent some."""

    orders: list[NewOrder] = Field(min_length=1, max_length=100)


def init_app(app: Flask) -> None:
    """Add the marketplace's route, if there is a marketplace."""
    if settings_of(app).marketplace_token:
        app.register_blueprint(blueprint)


@blueprint.post("/orders")
def take_orders() -> Response:
    """Place the marketplace's orders one by one, and tell what became of each."""
    _require_token()
    return jsonify({"data": [_take(new) for new in body(Batch).orders]})


def _take(new: NewOrder) -> dict[str, Any]:
    try:
        return {"status": 201, "id": str(business_logic.place_order(new).public_id)}
    except (Conflict, Invalid) as refused:
        return _refusal(refused)


def _refusal(refused: HTTPException) -> dict[str, Any]:
    detail = refused.errors if isinstance(refused, Invalid) else refused.description
    return {"status": refused.code, "detail": detail}


def _require_token() -> None:
    token = settings_of(current_app).marketplace_token
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if token is None or not hmac.compare_digest(given.encode(), token.get_secret_value().encode()):
        raise Unauthorized("The marketplace's token is missing or wrong.")
