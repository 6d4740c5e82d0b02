"""The back office: what those who run the shop may do with it. Given code, no lab changes it.

It stands under `/v1/back-office`, and whoever asks shows a token (RFC 6750). The clerk's opens what is read and
counted; categories are the manager's business. A token that nobody set opens nothing.
"""

import hmac
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from threading import Lock
from time import monotonic
from typing import Annotated, Any, ParamSpec, TypeVar
from uuid import UUID

import httpx2
from flask import Blueprint, Flask, Response, current_app, g, jsonify, request, url_for
from pydantic import Field
from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import (
    BadGateway,
    Conflict,
    Forbidden,
    GatewayTimeout,
    HTTPException,
    NotFound,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
)

from shop import database, outgoing
from shop.foundations import serialization, validation
from shop.models import Category, Order, Product, Stock, Voucher
from shop.settings import settings_of

P = ParamSpec("P")
R = TypeVar("R")
Json = dict[str, Any]

MINUTE = 60.0

blueprint = Blueprint("back_office", __name__, url_prefix="/v1/back-office")


class NewCategory(validation.Strict):
    """A shelf that is put up. Its name is part of its address, so a slash cannot be part of the name."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00/]+$")]


class StockLevel(validation.Strict):
    """How many of a product are in the warehouse."""

    on_hand: Annotated[int, Field(ge=0, le=10**6)]


class Count(StockLevel):
    """How many somebody counted of which product."""

    product_id: UUID


class Stocktake(validation.Strict):
    """What somebody counted in the warehouse."""

    counts: Annotated[list[Count], Field(min_length=1, max_length=500)]


class WrongTokens:
    """When which address showed a wrong token, within the last minute. Thread-safe.

    Each process knows its own alone, so that more processes let more guesses through.

    Args:
        most: how many an address may show in a minute.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._shown: dict[str, list[float]] = {}
        self._lock = Lock()

    def wait(self, address: str) -> float | None:
        """In how many seconds the address may show a token again; None: at once."""
        with self._lock:
            recent = self._recent().get(address, [])
            return recent[-self._most] + MINUTE - monotonic() if len(recent) >= self._most else None

    def note(self, address: str) -> None:
        """The address showed a wrong one."""
        with self._lock:
            self._recent().setdefault(address, []).append(monotonic())

    def _recent(self) -> dict[str, list[float]]:
        since = monotonic() - MINUTE
        kept = ((address, [moment for moment in moments if moment > since]) for address, moments in self._shown.items())
        self._shown = {address: moments for address, moments in kept if moments}
        return self._shown


def init_app(app: Flask) -> None:
    """Add the back office's routes."""
    app.extensions["wrong_tokens"] = WrongTokens(settings_of(app).back_office_wrong_tokens)
    app.register_blueprint(blueprint)


# [start:guard]
@blueprint.before_request
def _authenticate() -> None:
    """Know whose token it is, for all routes of this blueprint and none other."""
    wrong: WrongTokens = current_app.extensions["wrong_tokens"]
    address = request.remote_addr or ""
    wait = wrong.wait(address)
    if wait is not None:
        raise TooManyRequests("Too many wrong tokens came from your address.", retry_after=int(wait) + 1)
    shown = request.authorization.token if request.authorization and request.authorization.type == "bearer" else None
    settings = settings_of(current_app)
    tokens = {"clerk": settings.back_office_clerk_token, "manager": settings.back_office_manager_token}
    for role, token in tokens.items():
        # compared in a time that does not tell how much of it was right
        if shown and token and hmac.compare_digest(shown.encode(), token.get_secret_value().encode()):
            g.role = role
            return
    if shown:
        wrong.note(address)
    challenge = WWWAuthenticate("bearer", {"realm": "back office"})
    raise Unauthorized("The back office is for those who run the shop: show a token.", www_authenticate=challenge)


# [end:guard]


def _for_the_manager(view: Callable[P, R]) -> Callable[P, R]:
    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if g.role != "manager":
            raise Forbidden("This is for the manager.")
        return view(*args, **kwargs)

    return guarded


@blueprint.post("/categories")
@_for_the_manager
def create_category() -> tuple[Response, int, dict[str, str]]:
    """Put up a shelf."""
    session = database.session()
    category = Category(name=validation.body(NewCategory).name)
    session.add(category)
    try:
        session.commit()
    except IntegrityError as error:  # asked for beforehand, two at once would both have been told that it is free
        raise Conflict("There is a category of this name.") from error
    location = url_for(".category", name=category.name)
    return jsonify(_category_json(session, category)), HTTPStatus.CREATED, {"Location": location}


@blueprint.get("/categories/<name>")
def category(name: str) -> Response:
    """A category, and how many products are in it, with those no longer sold."""
    session = database.session()
    return jsonify(_category_json(session, _category(session, name)))


@blueprint.delete("/categories/<name>")
@_for_the_manager
def delete_category(name: str) -> tuple[str, int]:
    """Take down a shelf that is empty."""
    session = database.session()
    category = _category(session, name)
    try:
        session.execute(delete(Category).where(Category.id == category.id))
        session.commit()
    except IntegrityError as error:
        raise Conflict("There are products in it.") from error
    return "", HTTPStatus.NO_CONTENT


@blueprint.put("/products/<uuid:public_id>/stock")
def set_stock(public_id: UUID) -> Response:
    """Write down how many of a product there are, whatever was written there before."""
    level = validation.body(StockLevel)
    session = database.session()
    stock = _set_stock(session, public_id, level.on_hand)
    session.commit()
    return jsonify(_stock_json(stock))


@blueprint.post("/stocktakes")
def take_stock() -> tuple[Response, int]:
    """Write down what was counted: each product for itself, so that one that fails holds up none of the others."""
    session = database.session()
    results = [_counted(session, count) for count in validation.body(Stocktake).counts]
    return jsonify({"data": results, "meta": {"count": len(results)}}), HTTPStatus.MULTI_STATUS


@blueprint.post("/vouchers")
def issue_voucher() -> tuple[Response, int]:
    """Promise money off. How much, depends on who promises it."""
    session = database.session()
    voucher = validation.new_voucher(g.role)
    validation.save(session, voucher)
    return jsonify(_voucher_json(voucher)), HTTPStatus.CREATED


@blueprint.get("/orders/<uuid:public_id>/charges")
def charges(public_id: UUID) -> Response:
    """What the payment provider holds for an order, as it tells it, whatever the shop has written down.

    Somebody looks at it and can look again, so it is asked once, and past what protects the shop's own calls.
    """
    if database.session().scalar(select(Order.id).where(Order.public_id == public_id)) is None:
        raise NotFound("There is no such order.")
    settings = settings_of(current_app)
    if settings.payments_url is None:
        raise ServiceUnavailable("The address of the payment provider is not set.")
    timeout = httpx2.Timeout(settings.read_timeout_seconds, connect=settings.connect_timeout_seconds)
    url = f"{str(settings.payments_url).rstrip('/')}/charges"
    try:
        answer = httpx2.get(url, params={"reference": str(public_id)}, headers=outgoing.headers(), timeout=timeout)
        return jsonify({"data": answer.raise_for_status().json()["data"]})
    except httpx2.TimeoutException as error:
        raise GatewayTimeout("The payment provider did not answer in time.") from error
    except (httpx2.HTTPError, ValueError, LookupError, TypeError) as error:
        raise BadGateway("The payment provider's answer is none.") from error


def _category(session: Session, name: str) -> Category:
    known = "\x00" not in name  # which no name has, and PostgreSQL does not take
    found = session.scalar(select(Category).where(Category.name == name)) if known else None
    if found is None:
        raise NotFound("There is no such category.")
    return found


def _category_json(session: Session, category: Category) -> Json:
    products = select(func.count()).select_from(Product).where(Product.category_id == category.id)
    return {"name": category.name, "products": session.scalar(products)}


def _set_stock(session: Session, public_id: UUID, on_hand: int) -> Stock:
    """The caller commits; orders that reserve of it meanwhile wait until then."""
    query = select(Stock).join(Product).where(Product.public_id == public_id).with_for_update(of=Stock)
    stock = session.scalar(query)
    if stock is None:
        raise NotFound("There is no such product.")
    if on_hand < stock.reserved:
        raise Conflict(f"{stock.reserved} of it are promised to orders.")
    stock.on_hand = on_hand
    return stock


def _stock_json(stock: Stock) -> Json:
    return {"on_hand": stock.on_hand, "reserved": stock.reserved}


def _voucher_json(voucher: Voucher) -> Json:
    amount = None
    if voucher.amount is not None and voucher.currency is not None:
        amount = serialization.money(voucher.amount, voucher.currency)
    return {
        "id": str(voucher.public_id),
        "code": voucher.code,
        "email": voucher.email,
        "percent": voucher.percent,
        "amount": amount,
        "starts_at": serialization.moment(voucher.starts_at),
        "ends_at": serialization.moment(voucher.ends_at),
        "note": voucher.note,
        "issued_by": voucher.issued_by,
        "redeemed_at": None if voucher.redeemed_at is None else serialization.moment(voucher.redeemed_at),
    }


def _counted(session: Session, count: Count) -> Json:
    """What became of one count: a status of its own, and why."""
    result: Json = {"product_id": str(count.product_id)}
    try:
        stock = _set_stock(session, count.product_id, count.on_hand)
        session.commit()  # holds one product at a time, so that two stocktakes cannot wait for each other
    except HTTPException as refused:
        session.rollback()
        return result | {"status": refused.code, "detail": refused.description}
    return result | {"status": HTTPStatus.OK, "stock": _stock_json(stock)}
