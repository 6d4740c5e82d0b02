"""The change is committed by the file itself, and the cache is not told.

`caching.save_product` commits and has the product forgotten, at every worker. With `session.commit()` in its place the
database is right and the page is old, until it expires. The tag is old with it, and that closes the trap: who reads the
page again to change it gets the old tag, sends it, and is refused with 412, again and again, and the page that he is
told to read again does not change. In production it looks like a conflict with somebody who is never found.

A product is changed in one way. Call `save_product`, and never commit beside it.

Read: "Update" in the chapter Resources, and the chapter Caching.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from flask import Blueprint, Flask, Response, current_app, jsonify, request, url_for
from psycopg.errors import UniqueViolation
from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.exc import IntegrityError
from werkzeug.exceptions import (
    Conflict,
    Gone,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    ServiceUnavailable,
)

from shop import database, outside
from shop.catalogue import NewProduct, columns
from shop.data import caching, n_plus_one
from shop.foundations import validation
from shop.foundations.serialization import order_json, quote_json
from shop.models import Order, Product, ProductAction, ProductEvent, Stock
from shop.reliability.failures import ProviderError, Unavailable

blueprint = Blueprint("resources", __name__, url_prefix="/v1")


def init_app(app: Flask) -> None:
    """Add the routes of single resources."""
    app.register_blueprint(blueprint)


@blueprint.get("/orders/<uuid:public_id>")
def order(public_id: UUID) -> Response:
    """An order with its items and their products."""
    found = n_plus_one.order_detail(database.session(), public_id)
    if found is None:
        raise NotFound("There is no such order.")
    return _shown(order_json(found), private=True)


@blueprint.get("/orders/<uuid:public_id>/delivery-quotes")
def delivery_quotes(public_id: UUID) -> Response:
    """What it costs to have an order delivered."""
    try:
        quotes = outside.quotes(_order(public_id))
    except ProviderError as error:
        raise _unavailable(error, "The delivery company gave no quote.") from error
    return jsonify({"data": [quote_json(quote) for quote in quotes]})


@blueprint.post("/orders/<uuid:public_id>/pickup")
def book_pickup(public_id: UUID) -> tuple[Response, int]:
    """Have a courier come for an order that is paid."""
    order = _order(public_id)
    if order.status != "paid":
        raise Conflict(f"An order that is {order.status} is not picked up.")
    try:
        booking = outside.book_pickup(order)
    except ProviderError as error:
        raise _unavailable(error, "Whether a courier comes is not known.") from error
    order.status = "shipped"
    database.session().commit()
    return jsonify({"booking": booking}), 201


def _order(public_id: UUID) -> Order:
    """An order of which anything may be read, not only what its page shows."""
    found = database.session().scalar(select(Order).where(Order.public_id == public_id))
    if found is None:
        raise NotFound("There is no such order.")
    return found


def _unavailable(error: ProviderError, detail: str) -> ServiceUnavailable:
    current_app.logger.warning("the delivery company failed: %s", error)
    seconds = error.retry_after if isinstance(error, Unavailable) else None
    return ServiceUnavailable(detail, retry_after=None if seconds is None else math.ceil(seconds))


@blueprint.post("/products")
def create_product() -> tuple[Response, int, dict[str, str]]:
    """Put a new product on sale. There are none of it in the warehouse yet."""
    new = validation.body(NewProduct)
    session = database.session()
    product = Product(**columns(session, new), version=1)
    session.add(Stock(product=product, on_hand=0))
    session.add(ProductEvent(product=product, version=1, action="created", sent=new.model_dump()))
    with _one_of_each_sku(new.sku):
        session.flush()  # all of it or nothing
    caching.save_product(session, product)
    location = url_for("resources.product", public_id=product.public_id)
    return _shown(_current(product.public_id)), 201, {"Location": location}


@contextmanager
def _one_of_each_sku(sku: str) -> Iterator[None]:
    """Say in HTTP what the unique constraint says. Whoever asked it beforehand could not know what others do since.

    Raises:
        Conflict: another product has the sku.
    """
    try:
        yield
    except IntegrityError as error:
        if isinstance(error.orig, UniqueViolation) and error.orig.diag.constraint_name == "products_sku_key":
            raise Conflict(f"There is a product {sku} already, for sale or withdrawn.") from error
        raise


@blueprint.get("/products/<uuid:public_id>")
def product(public_id: UUID) -> Response:
    """A product, and how many can be had."""
    found = _current(public_id)
    if found["withdrawn"]:
        raise Gone("This product is no longer sold.")
    return _shown(found)


def _current(public_id: UUID) -> dict[str, Any]:
    """A product as its page shows it, which the cache may do; if so, what is written to the database is guarded."""
    found = caching.product_detail(database.session(), public_id)
    if found is None:
        raise NotFound("There is no such product.")
    return found


def _shown(body: dict[str, Any], *, private: bool = False) -> Response:
    """A page with its tag. It may be kept, if whoever keeps it asks each time whether it is still so."""
    answer = jsonify(body)
    answer.add_etag()  # of the bytes: whatever is other about the page, the tag is another
    answer.cache_control.no_cache = True
    if private:
        answer.cache_control.private = True
    if not request.if_match.star_tag:  # which make_conditional takes for a tag that does not match
        answer.make_conditional(request)  # 304 to a GET that has it already
    return answer


@blueprint.put("/products/<uuid:public_id>")
def replace_product(public_id: UUID) -> tuple[Response, int]:
    """Change all of a product that a caller decides. If he knows that it is withdrawn, it is for sale again."""
    new = validation.body(NewProduct)
    values = columns(database.session(), new)
    before = _current(public_id)
    restores = before["withdrawn"] and request.if_none_match.star_tag
    seen = [Product.version == before["version"]] if restores else _condition(before)
    action: ProductAction = "restored" if restores else "replaced"
    with _one_of_each_sku(new.sku):
        _write(public_id, seen, {**values, "withdrawn_at": None}, action, new.model_dump())
    answer = _shown(_current(public_id))
    del answer.headers["ETag"]  # after a PUT it would say that the bytes sent are the bytes shown: RFC 9110, 9.3.4
    return answer, 201 if restores else 200


@blueprint.patch("/products/<uuid:public_id>")
def change_product(public_id: UUID) -> Response:
    """Change a product's name or price, or withdraw it."""
    change = validation.body(validation.ProductChange)
    values: dict[str, Any] = change.model_dump(include={"name", "price_amount"}, exclude_none=True)
    if change.withdrawn:
        values["withdrawn_at"] = func.now()
    seen = _condition(_current(public_id))
    action: ProductAction = "withdrawn" if change.withdrawn else "changed"
    _write(public_id, seen, values, action, change.model_dump(exclude_none=True))
    return _shown(_current(public_id))


def _condition(before: dict[str, Any], *, required: bool = True) -> Sequence[ColumnElement[bool]]:
    """What has to hold in the database for a change, by what the caller says he has seen.

    Raises:
        Gone: the product is withdrawn.
        PreconditionRequired: he says nothing, and has to.
        PreconditionFailed: he has seen another state than the current.
    """
    if before["withdrawn"]:
        raise Gone("This product is no longer sold.")
    if request.if_none_match.star_tag:
        raise PreconditionFailed("There is such a product.")
    if not request.if_match:
        if required:
            raise PreconditionRequired("Say in If-Match which state of the product you have seen: the ETag of a GET.")
        return [Product.withdrawn_at.is_(None)]
    if request.if_match.star_tag:  # any state, as long as there is one
        return [Product.withdrawn_at.is_(None)]
    tag, _ = _shown(before).get_etag()
    if tag is None or not request.if_match.is_strong(tag):
        raise PreconditionFailed("The product is not as you have seen it. Read it again, and decide again.")
    return [Product.version == before["version"]]


def _write(
    public_id: UUID, seen: Sequence[ColumnElement[bool]], values: dict[str, Any], action: ProductAction, sent: Any
) -> None:
    """Change a product and write down that it was done, in one transaction, if it is still as it was seen.

    Raises:
        PreconditionFailed: somebody else was faster; Gone: so it was, and the caller had made no condition.
    """
    session = database.session()
    change = update(Product).where(Product.public_id == public_id, *seen)
    product = session.scalar(change.values(**values, version=Product.version + 1).returning(Product))
    if product is None and not (request.if_match or request.if_none_match):
        raise Gone("This product is no longer sold.")
    if product is None:
        raise PreconditionFailed("The product was changed a moment ago. Read it again, and decide again.")
    session.add(ProductEvent(product=product, version=product.version, action=action, sent=sent))
    session.commit()


@blueprint.delete("/products/<uuid:public_id>")
def withdraw_product(public_id: UUID) -> tuple[str, int]:
    """Withdraw a product. Its row stays, because orders name it."""
    seen = _condition(_current(public_id), required=False)
    _write(public_id, seen, {"withdrawn_at": func.now()}, "withdrawn", {})
    return "", 204


@blueprint.get("/bestsellers")
def bestsellers() -> Response:
    """What sold best of late."""
    query = validation.query(validation.BestsellersQuery)
    found = caching.bestsellers(database.session(), query.days, query.limit)
    return jsonify({"data": found, "meta": {"days": query.days, "limit": query.limit, "count": len(found)}})
