"""What a partner's price list says, whatever it was written in: given code, no lab changes it."""

from dataclasses import dataclass
from datetime import datetime

# Decimal places of the currencies that the shop's partners use. Source: ISO 4217.
DECIMAL_PLACES = {"EUR": 2, "USD": 2, "GBP": 2, "CHF": 2, "JPY": 0, "KWD": 3}
HIGHEST_AMOUNT = 10**9


@dataclass(frozen=True)
class Price:
    """What one product is to cost, in minor units of the currency."""

    sku: str
    amount: int
    currency: str


@dataclass(frozen=True)
class PriceList:
    """What a partner's products are to cost.

    Attributes:
        partner: who says so.
        reference: what the partner calls this list; none if it has no name.
        issued_at: when it was written, with the offset from UTC.
        prices: one for each product that it names.
    """

    partner: str
    reference: str | None
    issued_at: datetime
    prices: tuple[Price, ...]
