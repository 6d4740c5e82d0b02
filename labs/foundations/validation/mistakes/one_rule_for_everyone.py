"""The limit is the same for whoever asks.

The schema says up to 100 per cent, and so anybody who may issue a voucher may issue that one. What a value may be
depends on who sends it, on the time, on what the order is worth: the schema knows nothing of these. Sooner or later the
page hides the field from clerks, and that is taken for the rule.

Give the check what it needs to know: the role, the time. The server checks, whatever the page did.

Read: "Rules" in the chapter Validation.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self, TypeVar
from uuid import UUID

from flask import request
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
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
    quantity: Annotated[int, Field(ge=1, le=100)]


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
    price_amount: Annotated[int, Field(ge=0, le=10**9)] | None = None
    withdrawn: bool | None = None


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


Text = Annotated[str, Field(max_length=1000)]  # before anything is done with it
Moment = Annotated[datetime, BeforeValidator(_moment)]


class Money(Strict):
    """An amount of minor units, with its currency."""

    amount: Annotated[int, Field(ge=1, le=10**6)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]


class NewVoucher(Strict):
    """Money off that somebody in the back office promises. What only the shop may say of it has no field."""

    code: Annotated[Text, AfterValidator(_code)]
    email: Annotated[Text, AfterValidator(_email)] | None = None
    percent: Annotated[int, Field(ge=1, le=100)] | None = None
    amount: Money | None = None
    starts_at: Moment
    ends_at: Moment
    note: Annotated[Text, AfterValidator(_note)] = ""


# --- Rules: what holds across fields, and for whom, and now -----------------------------------------------------------

Problems = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class Case:
    """A voucher that is right field by field, and what a rule may have to know besides."""

    new: NewVoucher
    role: str
    now: datetime


HIGHEST = {"clerk": (20, 20_00), "manager": (70, 200_00)}
"""Per cent, and minor units, that a role may promise."""


def _one_kind(case: Case) -> Problems:
    if (case.new.percent is None) == (case.new.amount is None):
        yield "percent", "a voucher has either a percent or an amount"


def _period(case: Case) -> Problems:
    if not timedelta(0) < case.new.ends_at - case.new.starts_at <= timedelta(days=366):
        yield "ends_at", "a voucher ends after it starts, and within 366 days"
    if case.new.ends_at <= case.now:
        yield "ends_at", "it is over"


def _within_the_role(case: Case) -> Problems:
    percent, amount = HIGHEST[case.role]
    if case.new.percent is not None and case.new.percent > percent:
        yield "percent", f"a {case.role} may promise {percent} per cent"
    if case.new.amount is not None and case.new.amount.amount > amount:
        yield "amount.amount", f"a {case.role} may promise {amount}"


RULES: tuple[Callable[[Case], Problems], ...] = (_one_kind, _period)


def new_voucher(role: str) -> Voucher:
    """The voucher that the request asks for, not yet written down.

    Args:
        role: of whoever promises it, `clerk` or `manager`.

    Raises:
        werkzeug.exceptions.BadRequest, UnsupportedMediaType: as `body`.
        Invalid: there can be no such voucher, or this role may not promise it.
    """
    new = body(NewVoucher)
    case = Case(new, role, datetime.now(UTC))
    problems = [problem for rule in RULES for problem in rule(case)]
    if problems:
        raise Invalid([{"field": field, "detail": detail} for field, detail in problems])
    return Voucher(
        code=new.code,
        email=new.email,
        percent=new.percent,
        amount=new.amount and new.amount.amount,
        currency=new.amount and new.amount.currency,
        starts_at=new.starts_at,
        ends_at=new.ends_at,
        note=new.note,
        issued_by=role,
    )


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
    """The request's JSON as a model. JSON has types, so none is guessed.

    Raises:
        werkzeug.exceptions.BadRequest: it is not JSON (400); UnsupportedMediaType: it does not say it is (415).
        Invalid: it is not what the model asks for.
    """
    request.get_json()
    try:
        return model.model_validate_json(request.get_data(), strict=True)
    except ValidationError as error:
        raise _invalid(error) from error


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
