"""Seed data: a shop with three years behind it, the same on every run. Given code, no lab changes it.

The data has the skew that real shops have: a few customers place most of the orders, a few products sell most, the
business grows and has a weekly rhythm, and an order's status follows from its age. Orders are numbered in the order
in which they were placed, so that their place on disk follows the date.
"""

import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from psycopg import Cursor
from sqlalchemy import (
    Connection,
    Engine,
    ForeignKeyConstraint,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.schema import AddConstraint, DropConstraint
from sqlalchemy.sql.schema import Constraint

from shop import binary_copy as binary
from shop.models import Base, Category, Customer, Order, OrderItem, OrderStatus, Payment, PaymentStatus, Product, Stock

SizeName = Literal["small", "lab", "medium", "large"]
T = TypeVar("T")
Progress = Callable[[str], None]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

SEED = 20_261_031
END = datetime(2026, 10, 31, tzinfo=UTC)  # the data ends here, whatever today is
DAYS = 3 * 365
DAY = 86_400
BATCH = 50_000  # orders made and sent at a time: what bounds the memory
CURRENCY = "EUR"

STATUSES = get_args(OrderStatus)
PAYMENT_STATUSES = get_args(PaymentStatus)

# Shares, and exponents of Zipf's law (the n-th most frequent has a share of 1/n**exponent)
CUSTOMER_SKEW = 0.8
PRODUCT_SKEW = 0.7
CANCELLED = 0.04
NEVER_PAID = 0.006
WITHOUT_ITEMS = 0.002
WITHDRAWN = 0.05
SOLD_OUT = 0.05
GROWTH = 4.0  # orders a day at the end, against the first day
WEEKDAYS = (1.15, 1.0, 0.95, 0.95, 0.9, 0.95, 1.1)  # Monday first
HOURS = (2, 1, 1, 1, 1, 2, 4, 6, 8, 9, 10, 10, 11, 10, 9, 9, 10, 11, 13, 15, 16, 14, 9, 5)
DAYS_TO_PAY, DAYS_TO_SHIP, DAYS_TO_DELIVER = 2.0, 2.0, 4.0  # means

CITIES = (
    "Berlin", "Paris", "Madrid", "Amsterdam", "Vienna", "Lisbon", "Hamburg", "Milan", "Prague", "Copenhagen", "Munich",
    "Dublin", "Lyon", "Helsinki", "Antwerp", "Porto", "Turin", "Graz", "Bilbao", "Utrecht", "Tartu", "Ghent", "Leipzig",
    "Nantes", "Brno", "Cork", "Aarhus", "Salzburg", "Valletta", "Maribor",
)  # fmt: skip
FIRST_NAMES = (
    "Anna", "Ben", "Carla", "David", "Elif", "Felix", "Greta", "Hugo", "Inès", "Jonas", "Klara", "Luís", "Maria", "Noé",
    "Olga", "Pablo", "Rosa", "Sofia", "Tomás", "Ulla", "Viktor", "Wanda", "Yusuf", "Zoë",
)  # fmt: skip
LAST_NAMES = (
    "Almeida", "Bauer", "Costa", "Dubois", "Ferrari", "García", "Hansen", "Ivanova", "Janssen", "Kovács", "Lindberg",
    "Moreau", "Novák", "O'Brien", "Peeters", "Quaas", "Rossi", "Schmidt", "Türk", "Virtanen", "Weber", "Ziegler",
)  # fmt: skip
SERIES = (
    "Alma",
    "Birk",
    "Cielo",
    "Dune",
    "Eira",
    "Fjord",
    "Gala",
    "Hjem",
    "Isla",
    "Juno",
    "Kumo",
    "Lund",
    "Mira",
    "Nilo",
)
COLOURS = ("black", "white", "grey", "blue", "green", "red", "beige", "brown", "yellow", "pink", "orange", "turquoise")
TAGS = ("new", "gift", "bestseller", "organic", "handmade", "recycled", "clearance", "limited")
GARMENT_SIZES = ("XS", "S", "M", "L", "XL")


@dataclass(frozen=True)
class Shelf:
    """A category as the generator knows it: what it holds and of which materials, a typical price and weight.

    The price is in cents, the weight in grams.
    """

    name: str
    goods: dict[str, str]
    price: int
    weight: int
    extra: Literal["wattage", "size"] | None = None


SHELVES = (
    Shelf("Lighting", {"desk lamp": "brass steel", "floor lamp": "oak", "pendant": "paper"}, 5900, 1800, "wattage"),
    Shelf("Kitchen", {"pan": "steel iron", "kettle": "steel", "board": "oak beech", "bowl": "ceramic"}, 3400, 1200),
    Shelf("Furniture", {"chair": "oak birch", "side table": "oak steel", "shelf": "birch steel"}, 18900, 9500),
    Shelf("Textiles", {"blanket": "wool cotton", "cushion": "cotton linen", "curtain": "linen"}, 4200, 900),
    Shelf("Clothing", {"shirt": "cotton linen", "jacket": "wool", "jumper": "wool cotton"}, 4900, 400, "size"),
    Shelf("Stationery", {"notebook": "paper leather", "pen": "brass steel", "planner": "paper"}, 1400, 250),
    Shelf("Electronics", {"speaker": "oak aluminium", "charger": "plastic", "radio": "oak"}, 7900, 700, "wattage"),
    Shelf("Garden", {"planter": "terracotta oak", "watering can": "steel", "bench": "oak birch"}, 3900, 4200),
    Shelf("Bath", {"towel": "cotton linen", "soap dish": "ceramic oak", "mirror": "brass oak"}, 2600, 800),
    Shelf("Toys", {"puzzle": "birch", "train": "birch beech", "kite": "cotton"}, 2200, 600),
)


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    orders: int
    customers: int
    products: int


SIZES: dict[SizeName, Size] = {
    "small": Size(orders=2_000, customers=100, products=500),
    "lab": Size(orders=40_000, customers=2_000, products=2_000),  # enough that an index pays, built in a moment
    "medium": Size(orders=200_000, customers=10_000, products=5_000),
    "large": Size(orders=1_000_000, customers=50_000, products=20_000),
}


def load(engine: Engine, size: SizeName, progress: Progress | None = None) -> None:
    """Create the tables in an empty database and fill them.

    The keys are built after the rows have come: sorting once is several times quicker than keeping a tree in order
    row by row.

    Args:
        engine: of the database to fill.
        size: how much; see `SIZES`.
        progress: told in a few words what happens now.
    """
    tell = progress or (lambda _words: None)
    history = History(SIZES[size])
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL maintenance_work_mem = '256MB'"))
        connection.execute(text("SET LOCAL synchronous_commit = off"))
        Base.metadata.create_all(connection)
        for key in reversed(_keys()):
            connection.execute(DropConstraint(key, isolate_from_table=False))
        _fill(connection, history, tell)
        tell("building keys")
        for key in _keys():
            connection.execute(AddConstraint(key, isolate_from_table=False))
        for table in _numbered():
            connection.execute(
                func.setval(func.pg_get_serial_sequence(table.name, "id"), func.max(table.c.id))
                .select()
                .select_from(table)
            )
    tell("gathering statistics")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (FREEZE, ANALYZE)"))


def _numbered() -> list[Table]:
    return [table for table in Base.metadata.sorted_tables if "id" in table.c]


def _keys() -> list[Constraint]:
    """Primary keys, then unique constraints, then foreign keys, which need the former."""
    kinds = (PrimaryKeyConstraint, UniqueConstraint, ForeignKeyConstraint)
    return [
        constraint
        for kind in kinds
        for table in Base.metadata.sorted_tables
        for constraint in sorted(table.constraints, key=lambda constraint: str(constraint.name))
        if isinstance(constraint, kind)
    ]


def _fill(connection: Connection, history: "History", tell: Progress) -> None:
    driver: Any = connection.connection.driver_connection
    cursor: Cursor = driver.cursor()
    _copy_python(cursor, Category.__table__, enumerate((shelf.name for shelf in SHELVES), start=1))
    _copy_python(cursor, Product.__table__, history.catalogue.rows())
    _copy_python(cursor, Customer.__table__, history.customers())
    promised = np.zeros(history.size.products, dtype=np.int64)
    for batch in history.batches():
        tell(f"orders {batch.first + 1:,} to {batch.first + len(batch.placed):,} of {history.size.orders:,}")
        batch.copy(cursor)
        promised += batch.promised(history.size.products)
    _copy_python(cursor, Stock.__table__, history.catalogue.stock(promised))


def _copy_command(table: Any, form: str) -> str:
    """COPY that writes rows as frozen already, which it may since the table was made in the same transaction."""
    columns = ", ".join(column.name for column in table.columns)
    return f"COPY {table.name} ({columns}) FROM STDIN (FORMAT {form}, FREEZE)"


def _copy_python(cursor: Cursor, table: Any, rows: Iterable[tuple[object, ...]]) -> None:
    with cursor.copy(_copy_command(table, "text")) as copy:
        for row in rows:
            copy.write_row(row)


def _copy_binary(cursor: Cursor, table: Any, *fields: binary.Field) -> None:
    with cursor.copy(_copy_command(table, "binary")) as copy:
        copy.write(binary.HEADER + binary.rows(*fields) + binary.TRAILER)


def _zipf(count: int, exponent: float) -> Floats:
    return _shares(np.arange(1, count + 1) ** -exponent)


def _shares(weights: ArrayLike) -> Floats:
    array = np.asarray(weights, dtype=np.float64)
    shares: Floats = array / array.sum()
    return shares


def _uuid_text(random: binary.Bytes) -> list[str]:
    """The same UUIDs as `binary_copy.uuids` makes, as text."""
    return [row.tobytes().hex() for row in binary.uuids(random).data]


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


class Catalogue:
    """The products: what each is, costs, and how well it sells."""

    def __init__(self, count: int) -> None:
        self.random = np.random.default_rng([SEED, count, 0])
        self.count = count
        self.shelves = self.random.integers(len(SHELVES), size=count)
        typical = np.array([shelf.price for shelf in SHELVES])[self.shelves]
        self.prices = (np.round(typical * self.random.lognormal(0, 0.5, count) / 100) * 100 + 99).astype(np.int64)
        self.popularity = self.random.permutation(_zipf(count, PRODUCT_SKEW))
        self.withdrawn = self.random.random(count) < WITHDRAWN
        end = int(END.timestamp())
        self.withdrawn_at = np.where(self.withdrawn, self.random.integers(end - 400 * DAY, end, size=count), end)
        # what sells in the place of each product once it is withdrawn: the next that is not
        present = np.flatnonzero(~self.withdrawn)
        self.successor = present[np.searchsorted(present, np.arange(count)) % len(present)]

    def drawn(self, random: np.random.Generator, moments: Integers) -> Integers:
        """One product (counted from 0) for each moment, by popularity, of those for sale then."""
        chosen = random.choice(self.count, size=len(moments), p=self.popularity)
        return np.where(moments < self.withdrawn_at[chosen], chosen, self.successor[chosen])

    def rows(self) -> Iterator[tuple[object, ...]]:
        """The rows of `products`."""
        colours = self.random.choice(len(COLOURS), size=self.count, p=_zipf(len(COLOURS), 1.0))
        public_ids = _uuid_text(self.random.integers(256, size=(self.count, 16), dtype=np.uint8))
        for number in range(self.count):
            shelf = SHELVES[self.shelves[number]]
            good, materials = self._pick(list(shelf.goods.items()))
            attributes = self._attributes(shelf, COLOURS[colours[number]], self._pick(materials.split()))
            name = f"{self._pick(SERIES)} {attributes['material']} {good}, {attributes['colour']}"
            yield (
                number + 1,
                public_ids[number],
                f"{shelf.name[:3].upper()}-{number + 1:05}",
                name,
                int(self.shelves[number]) + 1,
                int(self.prices[number]),
                CURRENCY,
                json.dumps(attributes),
                _moment(self.withdrawn_at[number]) if self.withdrawn[number] else None,
                1,
            )

    def _pick(self, choices: Sequence[T]) -> T:
        return choices[int(self.random.integers(len(choices)))]

    def _attributes(self, shelf: Shelf, colour: str, material: str) -> dict[str, object]:
        random = self.random
        tagged = random.random(len(TAGS)) < 0.15
        attributes: dict[str, object] = {
            "colour": colour,
            "material": material,
            "tags": [tag for tag, chosen in zip(TAGS, tagged, strict=True) if chosen],
            "weight_grams": round(shelf.weight * random.lognormal(0, 0.4)),
        }
        if shelf.extra == "wattage":
            attributes["wattage"] = self._pick((3, 5, 9, 12, 20, 40))
        elif shelf.extra == "size":
            attributes["size"] = self._pick(GARMENT_SIZES)
        return attributes

    def stock(self, promised: Integers) -> Iterator[tuple[object, ...]]:
        """The rows of `stock`: what is promised, and more on top unless the product is sold out or withdrawn."""
        spare = np.ceil(self.random.lognormal(4, 0.8, self.count)).astype(np.int64)
        spare[(self.random.random(self.count) < SOLD_OUT) | self.withdrawn] = 0
        for number in range(self.count):
            yield number + 1, int(promised[number] + spare[number]), int(promised[number])


@dataclass(frozen=True)
class Batch:
    """Some orders that follow each other, with their items and payments, as columns.

    Attributes:
        first: how many orders came before.
        first_item: how many items came before.
        first_payment: how many payments came before.
        placed: Unix seconds of each order; `customers` and `statuses` (an index into `STATUSES`) likewise.
        paid_at: Unix seconds at which each was paid, if its status says that it was.
        owners: for each item the order's place in this batch; `products` (from 0), `quantities`, `prices` likewise.
        random: 16 random bytes an order, and as many for its payment.
    """

    first: int
    first_item: int
    first_payment: int
    placed: Integers
    customers: Integers
    statuses: Integers
    paid_at: Integers
    owners: Integers
    products: Integers
    quantities: Integers
    prices: Integers
    random: binary.Bytes

    @cached_property
    def totals(self) -> Integers:
        """What each order costs."""
        sums = np.bincount(self.owners, weights=self.quantities * self.prices, minlength=len(self.placed))
        return sums.astype(np.int64)

    @cached_property
    def paid(self) -> Integers:
        """The orders, by their place in this batch, that have been paid."""
        states = [STATUSES.index(status) for status in ("paid", "shipped", "delivered")]
        return np.flatnonzero(np.isin(self.statuses, states))

    def promised(self, products: int) -> Integers:
        """How many of each product are reserved for orders that have not left the warehouse."""
        waiting = np.isin(self.statuses, [STATUSES.index(status) for status in ("pending", "paid")])[self.owners]
        return np.bincount(self.products[waiting], self.quantities[waiting], minlength=products).astype(np.int64)

    def copy(self, cursor: Cursor) -> None:
        """Send the orders, their items and their payments."""
        keys = self.first + 1 + np.arange(len(self.placed))
        currency = binary.words([CURRENCY], np.zeros_like(keys))
        _copy_binary(
            cursor,
            Order.__table__,
            binary.bigints(keys),
            binary.uuids(self.random[:, :16]),
            binary.bigints(self.customers),
            binary.words(STATUSES, self.statuses),
            binary.timestamps(self.placed),
            binary.bigints(self.totals),
            currency,
        )
        _copy_binary(
            cursor,
            OrderItem.__table__,
            binary.bigints(self.first_item + 1 + np.arange(len(self.owners))),
            binary.bigints(keys[self.owners]),
            binary.bigints(self.products + 1),
            binary.integers(self.quantities),
            binary.bigints(self.prices),
        )
        paid = self.paid
        succeeded = np.full(len(paid), PAYMENT_STATUSES.index("succeeded"))
        _copy_binary(
            cursor,
            Payment.__table__,
            binary.bigints(self.first_payment + 1 + np.arange(len(paid))),
            binary.bigints(keys[paid]),
            binary.hexadecimal("ch_", self.random[paid, 16:]),
            binary.nulls(len(paid)),
            binary.bigints(self.totals[paid]),
            binary.words([CURRENCY], np.zeros_like(paid)),
            binary.words(PAYMENT_STATUSES, succeeded),
            binary.timestamps(self.paid_at[paid]),
        )


class History:
    """Who ordered what and when: everything that `Size` leaves open, drawn from fixed seeds."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.random = np.random.default_rng([SEED, size.orders])
        self.catalogue = Catalogue(size.products)
        self.placed = self._calendar()
        self.buyers, self.registered = self._buyers()

    def _calendar(self) -> Integers:
        """The Unix seconds of every order, in order: a growing business with a weekly and a daily rhythm."""
        days = np.arange(DAYS)
        start = int(END.timestamp()) - DAYS * DAY
        rhythm = np.array(WEEKDAYS)[(days + _moment(start).weekday()) % 7]
        orders_a_day = self.random.multinomial(self.size.orders, _shares(rhythm * GROWTH ** (days / DAYS)))
        hours = self.random.choice(24, size=self.size.orders, p=_shares(HOURS))
        within = hours * 3600 + self.random.integers(3600, size=self.size.orders)
        return np.sort(start + np.repeat(days, orders_a_day) * DAY + within)

    def _buyers(self) -> tuple[Integers, Integers]:
        """Each order's customer, and when each customer registered: before their first order.

        Customers are numbered in the order in which they registered.
        """
        count = self.size.customers
        drawn = self.random.choice(count, size=self.size.orders, p=_zipf(count, CUSTOMER_SKEW))
        first = self.random.choice(self.placed, size=count)  # of those who never ordered
        ordered, position = np.unique(drawn, return_index=True)
        first[ordered] = self.placed[position]
        registered = first - self.random.exponential(3 * DAY, size=count).astype(np.int64) - 60
        by_date = np.argsort(registered, kind="stable")
        number = np.empty(count, dtype=np.int64)
        number[by_date] = np.arange(1, count + 1)
        return number[drawn], registered[by_date]

    def customers(self) -> Iterator[tuple[object, ...]]:
        """The rows of `customers`."""
        random, count = self.random, self.size.customers
        public_ids = _uuid_text(random.integers(256, size=(count, 16), dtype=np.uint8))
        first_names = random.integers(len(FIRST_NAMES), size=count)
        last_names = random.integers(len(LAST_NAMES), size=count)
        cities = random.choice(len(CITIES), size=count, p=_zipf(len(CITIES), 1.0))
        consents = random.random(count) < 0.35
        for number in range(count):
            name = f"{FIRST_NAMES[first_names[number]]} {LAST_NAMES[last_names[number]]}"
            yield (
                number + 1,
                public_ids[number],
                _address(name, number + 1),
                name,
                CITIES[cities[number]],
                bool(consents[number]),
                _moment(self.registered[number]),
            )

    def batches(self) -> Iterator[Batch]:
        """All orders, some at a time. Each batch has a seed of its own."""
        items = payments = 0
        for first in range(0, self.size.orders, BATCH):
            batch = self._batch(first, items, payments)
            items += len(batch.owners)
            payments += len(batch.paid)
            yield batch

    def _batch(self, first: int, first_item: int, first_payment: int) -> Batch:
        random = np.random.default_rng([SEED, self.size.orders, first])
        placed = self.placed[first : first + BATCH]
        statuses, paid_at = _fates(random, placed)
        empty = random.random(len(placed)) < WITHOUT_ITEMS
        statuses[empty] = STATUSES.index("cancelled")
        owners, products = self._baskets(random, placed, empty)
        years = (END.timestamp() - placed[owners]) / (365 * DAY)
        return Batch(
            first=first,
            first_item=first_item,
            first_payment=first_payment,
            placed=placed,
            customers=self.buyers[first : first + BATCH],
            statuses=statuses,
            paid_at=paid_at,
            owners=owners,
            products=products,
            quantities=random.choice([1, 2, 3, 4], size=len(owners), p=[0.75, 0.17, 0.05, 0.03]),
            prices=np.round(self.catalogue.prices[products] * (1 - 0.03 * years)).astype(np.int64),  # prices rose
            random=random.integers(256, size=(len(placed), 32), dtype=np.uint8),
        )

    def _baskets(
        self, random: np.random.Generator, placed: Integers, empty: NDArray[np.bool_]
    ) -> tuple[Integers, Integers]:
        """For each item the place of its order in the batch, and its product. No order has a product twice."""
        counts = np.where(empty, 0, 1 + random.poisson(2.02, len(placed)))
        owners = np.repeat(np.arange(len(placed)), counts)
        products = self.catalogue.drawn(random, placed[owners])
        _, kept = np.unique(owners * self.size.products + products, return_index=True)
        kept.sort()
        return owners[kept], products[kept]


def _fates(random: np.random.Generator, placed: Integers) -> tuple[Integers, Integers]:
    """The status that each order has reached by `END`, and when it was paid.

    An order that has had time enough is delivered, except for those cancelled and those never paid for.
    """
    age = END.timestamp() - placed
    to_pay, to_ship, to_deliver = (
        random.exponential(days * DAY, len(placed)) for days in (DAYS_TO_PAY, DAYS_TO_SHIP, DAYS_TO_DELIVER)
    )
    statuses = np.full(len(placed), STATUSES.index("pending"))
    for status, taken in (
        ("paid", to_pay),
        ("shipped", to_pay + to_ship),
        ("delivered", to_pay + to_ship + to_deliver),
    ):
        statuses[age > taken] = STATUSES.index(status)
    statuses[random.random(len(placed)) < NEVER_PAID] = STATUSES.index("pending")
    statuses[(random.random(len(placed)) < CANCELLED) & (age > DAY)] = STATUSES.index("cancelled")
    return statuses, placed + to_pay.astype(np.int64)


def _address(name: str, number: int) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return f"{plain.lower().replace(' ', '.').replace(chr(39), '')}.{number}@example.com"
