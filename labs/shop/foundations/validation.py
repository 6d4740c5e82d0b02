"""What may enter the shop: requests are checked before anything else looks at them."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self, TypeVar
from uuid import UUID

from flask import request
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.exceptions import Conflict, UnprocessableEntity

from shop.models import Voucher

Model = TypeVar("Model", bound=BaseModel)


class Invalid(UnprocessableEntity):
    """A request that was understood and is not acceptable (422).

    Attributes:
        errors: for each problem the field, as `items.0.quantity`, and what is wrong with it.
    """

    description = "The request is not valid."

    def __init__(self, errors: list[dict[str, str]]) -> None:
        super().__init__()
        self.errors = errors


class Strict(BaseModel):
    """A model that refuses fields it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NewOrderItem(Strict):
    """One line of the basket."""

    product_id: UUID
    quantity: Annotated[int, Field(ge=1, le=100)]


class NewOrder(Strict):
    """A basket that a customer sends off."""

    customer_id: UUID
    items: Annotated[list[NewOrderItem], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_product_once(self) -> Self:
        if len({item.product_id for item in self.items}) < len(self.items):
            raise ValueError("a product is listed twice: give it one line with the sum of the quantities")
        return self


class ProductChange(Strict):
    """What is to be other about a product; what is not named stays as it is."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")] | None = None
    price_amount: Annotated[int, Field(ge=0, le=10**9)] | None = None
    withdrawn: bool | None = None


class BestsellersQuery(Strict):
    """How far back to look, and how many to show."""

    days: Annotated[int, Field(ge=1, le=366)] = 30
    limit: Annotated[int, Field(ge=1, le=100)] = 10


# --- Vouchers ---------------------------------------------------------------------------------------------------------

CODE = re.compile(r"^([A-Z0-9]+-?)+$")
EMAIL = re.compile(r"^[^@]+@[^@]+\.[^@]+$")


def new_voucher(role: str) -> Voucher:
    """The voucher that the request asks for, not yet written down.

    Args:
        role: of whoever promises it, `clerk` or `manager`.

    Raises:
        werkzeug.exceptions.BadRequest: it is not JSON (400); UnsupportedMediaType: it does not say it is (415).
        Invalid: it is not right.
    """
    data = request.get_json()
    for name in ("code", "starts_at", "ends_at"):
        if name not in data:
            raise Invalid([{"field": name, "detail": f"{name} is missing in {data}."}])
    _check(data)
    if data.get("amount"):
        data |= {"amount": int(data["amount"]["amount"]), "currency": data["amount"]["currency"]}
    for name in ("starts_at", "ends_at"):
        data[name] = datetime.fromisoformat(data[name])
    voucher = Voucher(issued_by=role, note="")
    for name, value in data.items():
        if hasattr(voucher, name):
            setattr(voucher, name, value)
    return voucher


def _check(data: dict[str, Any]) -> None:
    if not CODE.match(data["code"].upper()):
        raise Invalid([{"field": "code", "detail": f"{data['code']!r} is not a code."}])
    if data.get("email") and not EMAIL.match(data["email"]):
        raise Invalid([{"field": "email", "detail": f"{data['email']!r} is not an e-mail address."}])
    if data.get("percent") and not 1 <= int(data["percent"]) <= 100:
        raise Invalid([{"field": "percent", "detail": f"{data['percent']!r} is not from 1 to 100."}])
    if data["ends_at"] <= data["starts_at"]:
        raise Invalid([{"field": "ends_at", "detail": f"{data['ends_at']} is before {data['starts_at']}."}])


def save(session: Session, voucher: Voucher) -> None:
    """Write a voucher down, for good.

    Raises:
        werkzeug.exceptions.Conflict: its code is taken.
    """
    if session.scalar(select(Voucher.id).where(Voucher.code == voucher.code)):
        raise Conflict("The code is taken.")
    session.add(voucher)
    session.commit()


# --- Requests ---------------------------------------------------------------------------------------------------------


def body(model: type[Model]) -> Model:
    """The request's JSON as a model.

    Raises:
        werkzeug.exceptions.BadRequest: it is not JSON (400); UnsupportedMediaType: it does not say it is (415).
        Invalid: it is not what the model asks for.
    """
    return parsed(model, request.get_json())


def query(model: type[Model]) -> Model:
    """The request's query parameters as a model.

    Raises:
        Invalid: they are not what the model asks for.
    """
    repeated = [name for name, values in request.args.lists() if len(values) > 1]
    if repeated:
        raise Invalid([{"field": name, "detail": "It is given more than once."} for name in repeated])
    return parsed(model, request.args.to_dict())


def parsed(model: type[Model], data: Mapping[str, Any]) -> Model:
    """Data as a model.

    Raises:
        Invalid: it is not what the model asks for.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise Invalid(
            [{"field": ".".join(map(str, detail["loc"])), "detail": detail["msg"]} for detail in error.errors()]
        ) from error
