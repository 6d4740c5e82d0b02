"""What a caller may say of a product: given code, no lab changes it."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, Field, JsonValue
from sqlalchemy import select
from sqlalchemy.orm import Session

from shop.foundations.validation import Invalid, Strict
from shop.models import Category


def _storable(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuse what Python takes for JSON and PostgreSQL's jsonb does not hold: NaN, NUL, half of a surrogate pair."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    if "\\u0000" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("a NUL or half of a character cannot be kept")
    return value


class Price(Strict):
    """What one costs, in minor units."""

    amount: Annotated[int, Field(ge=0, le=10**9)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class NewProduct(Strict):
    """All of a product that a caller decides: what is not here is the shop's own."""

    sku: Annotated[str, Field(pattern=r"^[A-Z0-9][A-Z0-9-]{0,63}$")]
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
    category: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]+$")]
    price: Price
    attributes: Annotated[dict[str, JsonValue], AfterValidator(_storable), Field(default_factory=dict)]


def columns(session: Session, new: NewProduct) -> dict[str, Any]:
    """What the caller decides, as the columns of `products`.

    Raises:
        Invalid: there is no such category.
    """
    category = session.scalar(select(Category.id).where(Category.name == new.category))
    if category is None:
        raise Invalid([{"field": "category", "detail": "There is no such category."}])
    return {
        "sku": new.sku,
        "name": new.name,
        "category_id": category,
        "price_amount": new.price.amount,
        "currency": new.price.currency,
        "attributes": new.attributes,
    }
