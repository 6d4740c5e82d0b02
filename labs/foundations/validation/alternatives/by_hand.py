"""Vouchers without a library: functions that read a value or say what is wrong with it."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self, TypeVar
from uuid import UUID

from flask import request
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    model_validator,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from werkzeug.exceptions import Conflict, UnprocessableEntity

from shop.models import Voucher

Model = TypeVar("Model", bound=BaseModel)

MOST_ERRORS = 50
LONGEST_NAME = 100


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
    """A model that refuses fields it does not know: a misspelt one would otherwise be ignored in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- Models: what can be said of a field by itself --------------------------------------------------------------------


class NewOrderItem(Strict):
    """One line of the basket."""

    product_id: UUID
    quantity: Annotated[StrictInt, Field(ge=1, le=100)]


class NewOrder(Strict):
    """A basket that a customer sends off."""

    customer_id: UUID
    items: Annotated[list[NewOrderItem], Field(min_length=1, max_length=50)]

    @model_validator(mode="after")
    def _each_product_once(self) -> Self:
        if len({item.product_id for item in self.items}) < len(self.items):
            raise ValueError("a product is listed twice: give it one line with the sum of the quantities")
        return self


class ProductChange(Strict):
    """What is to be other about a product; what is not named stays as it is."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")] | None = None
    price_amount: Annotated[StrictInt, Field(ge=0, le=10**9)] | None = None
    withdrawn: StrictBool | None = None


class BestsellersQuery(Strict):
    """How far back to look, and how many to show."""

    days: Annotated[int, Field(ge=1, le=366)] = 30
    limit: Annotated[int, Field(ge=1, le=100)] = 10


CODE = re.compile(r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*")  # a dash must stand between: one way to match, so one way to fail
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
EMAIL = re.compile(r"[^\s@]+@[^\s@.]+(?:\.[^\s@.]+)+")


def _code(text: str) -> str:
    code = text.strip()
    if not 4 <= len(code) <= 20 or not CODE.fullmatch(code):  # before upper(), which makes A to Z of others
        raise ValueError("a code has 4 to 20 letters from A to Z and digits, with single dashes between")
    return code.upper()


def _email(text: str) -> str:
    lower = unicodedata.normalize("NFC", text).strip().lower()
    email = unicodedata.normalize("NFC", lower)  # again: a small letter may have a composed form, its capital none
    if len(email) > 254 or not EMAIL.fullmatch(email) or not _is_printable(email):
        raise ValueError("it is no e-mail address")
    return email


def _note(text: str) -> str:
    note = " ".join(unicodedata.normalize("NFC", text).split())
    if len(note) > 200 or not _is_printable(note):
        raise ValueError("a note has at most 200 characters, and none that cannot be seen")
    return note


def _moment(text: Any) -> datetime:
    if not isinstance(text, str) or not RFC3339.fullmatch(text):
        raise ValueError("a time is written as 2026-03-01T09:00:00+01:00")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:  # the 30th of February; the last hours of the year 9999, in New York
        raise ValueError("there is no such time") from error


def _is_printable(text: str) -> bool:
    """Without control characters (NUL, which PostgreSQL's text cannot hold, among them) and halves of characters."""
    return not any(unicodedata.category(character) in {"Cc", "Cs"} for character in text)


class Faults:
    """What is wrong so far."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, str]] = []

    def note(self, field: str, detail: str) -> None:
        """One more."""
        self.errors.append((field, detail))

    def of(self, path: str, read: Callable[[Any], Any], value: Any) -> Any:
        """What is read, or None and a note."""
        try:
            return read(value)
        except ValueError as error:
            self.note(path, str(error))
            return None


def _text(read: Callable[[str], str]) -> Callable[[Any], str]:
    def checked(value: Any) -> str:
        if type(value) is not str or len(value) > 1000:
            raise ValueError("a text is wanted, of at most 1000 characters")
        return read(value)

    return checked


def _whole(highest: int) -> Callable[[Any], int]:
    def checked(value: Any) -> int:
        if type(value) is not int or not 1 <= value <= highest:
            raise ValueError(f"a whole number from 1 to {highest} is wanted")
        return value

    return checked


def _currency(text: str) -> str:
    if not re.fullmatch("[A-Z]{3}", text):
        raise ValueError("a currency has three capitals")
    return text


HIGHEST = {"clerk": (20, 20_00), "manager": (70, 200_00)}
FIELDS: dict[str, Callable[[Any], Any]] = {
    "code": _text(_code), "email": _text(_email), "percent": _whole(100), "starts_at": _moment, "ends_at": _moment,
    "note": _text(_note),
}  # fmt: skip
MONEY: dict[str, Callable[[Any], Any]] = {"amount": _whole(10**6), "currency": _text(_currency)}


def _read(data: Any, fields: dict[str, Callable[[Any], Any]], needed: set[str], faults: Faults, path: str = "") -> Any:
    if not isinstance(data, dict):
        faults.note(path.rstrip("."), "an object is wanted")
        return {}
    for name in data.keys() - fields.keys():
        faults.note(path + name, "there is no such field")
    for name in needed - data.keys():
        faults.note(path + name, "it is missing")
    found = {name: data[name] for name in fields if data.get(name) is not None or (name in needed and name in data)}
    return {name: faults.of(path + name, fields[name], value) for name, value in found.items()}


def new_voucher(role: str) -> Voucher:
    """The voucher that the request asks for, not yet written down.

    Raises:
        Invalid: there can be no such voucher, or this role may not promise it.
    """
    faults = Faults()
    fields = {**FIELDS, "amount": lambda money: _read(money, MONEY, {"amount", "currency"}, faults, "amount.")}
    new = _read(request.get_json(), fields, {"code", "starts_at", "ends_at"}, faults)
    if not faults.errors:
        _across(new, role, faults)
    if faults.errors:
        raise Invalid(_told(faults.errors))
    money = new.pop("amount", {})
    return Voucher(**{"note": "", **new, **money}, issued_by=role)


def _across(new: dict[str, Any], role: str, faults: Faults) -> None:
    percent, amount = HIGHEST[role]
    if ("percent" in new) == ("amount" in new):
        faults.note("percent", "either a percent or an amount")
    if new.get("percent", 0) > percent:
        faults.note("percent", "more than your role may promise")
    if new.get("amount", {}).get("amount", 0) > amount:
        faults.note("amount.amount", "more than your role may promise")
    if not timedelta(0) < new["ends_at"] - new["starts_at"] <= timedelta(days=366):
        faults.note("ends_at", "a voucher ends after it starts, and within 366 days")
    if new["ends_at"] <= datetime.now(UTC):
        faults.note("ends_at", "it is over")


def save(session: Session, voucher: Voucher) -> None:
    """Write a voucher down, for good.

    Raises:
        werkzeug.exceptions.Conflict: its code is taken, and the database alone can know.
    """
    session.add(voucher)
    try:
        session.commit()
    except IntegrityError as error:
        session.rollback()
        raise Conflict("The code is taken.") from error


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
        raise Invalid(_told([(name, "It is given more than once.") for name in repeated]))
    return parsed(model, request.args.to_dict())


def parsed(model: type[Model], data: Mapping[str, Any]) -> Model:
    """Words as a model: of a number, its digits.

    Raises:
        Invalid: it is not what the model asks for.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _invalid(error) from error


def _invalid(error: ValidationError) -> Invalid:
    """Where and what, never the value: it may be secret, and an answer is copied into tickets and logs."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return Invalid(_told([(".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in found]))


def _told(problems: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"field": field[:LONGEST_NAME], "detail": detail} for field, detail in problems[:MOST_ERRORS]]
