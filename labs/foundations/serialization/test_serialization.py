"""Checks of `foundations/serialization`.

They send price lists over HTTP, in three formats and three versions, and look into the database for what became of the
prices; and they read orders in each format that the shop writes. Whether a hostile body was executed shows in a file
that it would make. None of the checks looks at the learner's file. The first check that fails is what the learner
reads, so a check stands where what it needs has been checked before.
"""

import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgpack
import pytest
import yaml
from sqlalchemy import Connection, text

from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop

Json = dict[str, Any]

JSON, JSON_LINES, MESSAGEPACK, YAML = (
    "application/json",
    "application/x-ndjson",
    "application/vnd.msgpack",
    "application/yaml",
)
PICKLE = "application/x-python-pickle"
WRITERS: dict[str, Callable[[Any], bytes]] = {
    JSON: lambda document: json.dumps(document).encode(),
    YAML: lambda document: yaml.safe_dump(document).encode(),
    MESSAGEPACK: lambda document: bytes(msgpack.packb(document, datetime=True)),
}
MORNING = "2026-03-01T09:00:00Z"
BEFORE = 4711  # what each product costs before a list comes
BEYOND_DOUBLES = 2**53 + 1


# --- Products and price lists -----------------------------------------------------------------------------------------

SOLD_IN = {"KIT-EUR": "EUR", "KIT-JPY": "JPY", "KIT-KWD": "KWD", "83": "EUR", "0123": "EUR"}
CREATE = """
INSERT INTO products (public_id, sku, name, category_id, price_amount, currency, attributes)
SELECT gen_random_uuid(), :sku, 'Something of a partner''s', min(id), 1, :currency, '{}' FROM categories
"""
RESET = "UPDATE products SET price_amount = :before WHERE sku = ANY(:skus)"
PRICES = "SELECT sku, price_amount FROM products WHERE sku = ANY(:skus)"
REMOVE = "DELETE FROM products WHERE sku = ANY(:skus)"


class Partner:
    """Sends price lists to the shop, and looks what became of the prices."""

    def __init__(self, shop: Shop, database: Connection) -> None:
        self.shop, self.database = shop, database
        self._changed = True

    def send(self, document: Any, media_type: str = JSON) -> "Sent":
        """Send a list in a format."""
        return self.send_bytes(WRITERS[media_type](document), media_type)

    def send_bytes(self, data: bytes, media_type: str) -> "Sent":
        """Send a list as it is, when every product of the partner's costs what it always does."""
        skus = list(SOLD_IN)
        if self._changed:
            self.database.execute(text(RESET), {"before": BEFORE, "skus": skus})
        headers = {"Content-Type": media_type} if media_type else {}
        answer = self.shop.ask(Request("POST", "/v1/price-lists", headers=headers, data=data))
        rows = self.database.execute(text(PRICES), {"skus": skus})
        changed = {sku: amount for sku, amount in rows.tuples() if amount != BEFORE}
        self._changed = bool(changed)
        return Sent(f"{answer.did}, {media_type}: {excerpt(data)}", answer, changed)


@dataclass(frozen=True)
class Sent:
    """What became of a price list.

    Attributes:
        did: the request and what was in it.
        changed: the amounts of the products whose price is another now, by SKU.
    """

    did: str
    answer: Answer
    changed: dict[str, int]

    @property
    def outcome(self) -> str:
        """In words."""
        prices = ", ".join(f"{sku} costs {amount}" for sku, amount in self.changed.items())
        return f"{self.answer.status}, and {prices or 'no price was changed'}"

    @property
    def is_refused(self) -> bool:
        """Whether it is the caller's fault, and nothing was changed."""
        return self.answer.status in {400, 422} and not self.changed


@pytest.fixture(scope="session")
def partner(shop: Shop, database: Connection) -> Iterator[Partner]:
    """One for all checks, with products in several currencies."""
    database.execute(text(REMOVE), {"skus": list(SOLD_IN)})
    for sku, currency in SOLD_IN.items():
        database.execute(text(CREATE), {"sku": sku, "currency": currency})
    yield Partner(shop, database)
    database.execute(text(REMOVE), {"skus": list(SOLD_IN)})


def of_today(amount: Any = 1999, sku: Any = "KIT-EUR", **more: Any) -> Json:
    """A list of version 2."""
    price = {"sku": sku, "price": {"amount": amount, "currency": "EUR"}}
    return {"version": 2, "partner": "Hill & Sons", "issued_at": MORNING, "prices": [price], **more}


def of_old(price: Any, sku: str = "KIT-EUR", **more: Any) -> Json:
    """A list as the first partners write it, who know of no version."""
    return {"partner": "Hill & Sons", "issued_at": MORNING, "prices": [{"sku": sku, "price": price}], **more}


# --- The checks -------------------------------------------------------------------------------------------------------


def test_a_list_of_today_sets_prices(partner: Partner) -> None:
    """A price list of version 2 sets the prices, in each format."""
    for amount, media_type in enumerate(WRITERS, start=1999):
        sent = partner.send(of_today(amount, reference="2026/7"), media_type)
        require_set(sent, {"KIT-EUR": amount})
        expected = {
            "partner": "Hill & Sons",
            "reference": "2026/7",
            "issued_at": MORNING,
            "prices": [{"sku": "KIT-EUR", "price": {"amount": amount, "currency": "EUR"}}],
        }
        if sent.answer.body != expected:
            differs(
                did=sent.did,
                got=sent.answer.body,
                expected=expected,
                matters="The answer says how the shop understood the list. The partner compares it with their own.",
            )


def test_nothing_that_comes_in_is_executed(partner: Partner, tmp_path: Path) -> None:
    """What a partner sends is data: no body makes the shop call what it names."""
    canary = tmp_path / "canary"
    executed: dict[str, str] = {}
    for mistake, media_type, data in payloads(canary):
        sent = partner.send_bytes(data, media_type)
        if canary.exists():
            canary.unlink()
            executed.setdefault(mistake, sent.did)
    got = "the shop called `open`, as the body told it to, and a file is there that was not"
    expected = "that a body is data: nothing that it names is called"
    if len(executed) > 1:
        differs(
            did="; ".join(executed.values()),
            got=f"of each body: {got}",
            expected=expected,
            matters="Whoever can send a price list can run anything on the shop's machines.",
        )
    for mistake, did in executed.items():
        wrong(mistake, did=did, got=got, expected=expected)
    sent = partner.send_bytes(pickle.dumps(of_today()), PICKLE)
    if sent.answer.status != 415:
        differs(
            did=sent.did,
            got=sent.outcome,
            expected="415: the shop reads no pickles",
            matters="There is no way to look into a pickle before it runs. Whoever may send one may run anything.",
        )


def test_those_who_are_behind_are_read(partner: Partner) -> None:
    """A list of a partner who has not changed their program for years is read."""
    for list_, words in (
        (of_old(12.5), "without a version, a reference and a currency"),
        (of_old(12.5, version=1, currency="EUR"), "that says that it is of version 1"),
    ):
        sent = partner.send(list_)
        if sent.answer.status != 200:
            wrong(
                "old_writers_shut_out",
                did=f"{sent.did} - a list {words}",
                got=sent.outcome,
                expected="200, and KIT-EUR costs 1250: what version 1 does not say has always meant the same",
            )
        require_set(sent, {"KIT-EUR": 1250})


def test_those_who_are_ahead_are_read(partner: Partner) -> None:
    """Fields that the shop does not know are left alone, at every level."""
    prices = [{"sku": "KIT-EUR", "note": "new", "price": {"amount": 2050, "currency": "EUR", "net": True}}]
    for media_type in WRITERS:
        sent = partner.send(of_today(campaign={"name": "Spring"}, prices=prices), media_type)
        if sent.is_refused:
            wrong(
                "refuses_the_unknown_field",
                did=sent.did,
                got=sent.outcome,
                expected="200, and KIT-EUR costs 2050: what is new in the list changes nothing about what is known",
            )
        require_set(sent, {"KIT-EUR": 2050})


def test_a_version_that_is_not_known_is_refused(partner: Partner) -> None:
    """A list of version 3 is not read as if it were of version 2."""
    for version in (3, 20):
        sent = partner.send(of_today(19990, version=version))  # a tenth of a cent, as of version 3
        if sent.answer.status == 200:
            wrong(
                "takes_a_newer_version_for_its_own",
                did=sent.did,
                got=sent.outcome,
                expected="422: a new number says that what is known may mean something else by now",
            )
        require_status(sent, 422)


def test_decimal_prices_are_exact(partner: Partner) -> None:
    """A price of version 1 becomes as many minor units as it says, in its currency."""
    for media_type in WRITERS:
        for price in (19.99, 0.29, 4.35, 20):
            sent = partner.send(of_old(price), media_type)
            exact = int(Decimal(str(price)) * 100)
            if sent.changed.get("KIT-EUR") == int(price * 100) != exact:
                wrong(
                    "price_times_a_hundred",
                    did=sent.did,
                    got=f"{sent.outcome}: to a computer {price} times 100 is {price * 100!r}",
                    expected=f"{exact} cents",
                )
            require_set(sent, {"KIT-EUR": exact})
    for sku, price, exact in (("KIT-JPY", 1980, 1980), ("KIT-KWD", 1.234, 1234)):
        currency = SOLD_IN[sku]
        sent = partner.send(of_old(price, sku, currency=currency))
        if sent.answer.status == 422 or sent.changed.get(sku) in {int(price * 100), round(price * 100)}:
            wrong(
                "every_currency_has_cents",
                did=sent.did,
                got=sent.outcome,
                expected=f"{sku} costs {exact}: of {currency} there are other minor units than hundredths",
            )
        require_set(sent, {sku: exact})
    for media_type in WRITERS:
        sent = partner.send(of_old(19.995), media_type)
        if sent.changed:
            wrong(
                "rounds_what_it_cannot_hold",
                did=sent.did,
                got=sent.outcome,
                expected="422: which of two prices is meant, the shop cannot know",
            )
        require_refused(sent, "It is half a cent more than the one price and less than the other.")


def test_a_time_is_a_moment(partner: Partner) -> None:
    """When a list was issued is the same moment in every format, and no moment without an offset."""
    there = datetime.fromisoformat("2026-03-01T09:00:00.250000+05:45")
    quoted = of_today(issued_at=there.isoformat())
    times = [(quoted, media_type) for media_type in WRITERS]
    times += [(of_today(issued_at=there), YAML), (of_today(issued_at=there), MESSAGEPACK)]  # these have a type for it
    for document, media_type in times:
        sent = partner.send(document, media_type)
        got = sent.answer.body.get("issued_at") if sent.answer.status == 200 else sent.outcome
        if got is not None and moment(got) == there.replace(tzinfo=UTC):
            wrong(
                "offset_thrown_away",
                did=sent.did,
                got=f"{got}: nine o'clock in Kathmandu has become nine o'clock in London",
                expected=f"{there.astimezone(UTC).isoformat()}, the same moment",
            )
        if got is None or moment(got) != there:
            differs(
                did=sent.did,
                got=f"issued at {got}",
                expected=f"issued at {there.astimezone(UTC).isoformat()}, or the same moment written otherwise",
                matters="Of two lists the later one holds. Six hours are enough to take the wrong one.",
            )
    for unclear in ("2026-03-01T09:00:00", "2026-03-01"):
        sent = partner.send(of_today(issued_at=unclear))
        if sent.answer.status == 200:
            wrong(
                "time_without_a_place",
                did=sent.did,
                got=f"{sent.outcome}; issued at {sent.answer.body.get('issued_at')}",
                expected="422: without an offset it is nine o'clock somewhere",
            )
        require_refused(sent, "Without an offset it is nine o'clock somewhere.")


def test_what_says_two_things_is_refused(partner: Partner) -> None:
    """A name that is given twice in one object is refused, whatever the format."""
    once = WRITERS[JSON](of_today(2001))
    packed = bytearray(WRITERS[MESSAGEPACK]({"a": of_today(2001)["prices"][0]["price"]})[3:])
    packed = packed.replace(b"\x82", b"\x83", 1) + msgpack.packb("amount") + msgpack.packb(1)
    header = WRITERS[MESSAGEPACK]({key: value for key, value in of_today().items() if key != "prices"})
    entry = b"\x82" + msgpack.packb("sku") + msgpack.packb("KIT-EUR") + msgpack.packb("price") + bytes(packed)
    whole = b"\x84" + header[1:] + msgpack.packb("prices") + b"\x91" + entry
    lines = "version: 2\npartner: Hill\nissued_at: 2026-03-01T09:00:00Z\nprices:\n- sku: KIT-EUR\n  price:"
    for media_type, data in (
        (JSON, once.replace(b'"amount": 2001', b'"amount": 2001, "amount": 1')),
        (JSON, once.replace(b'"version": 2,', b'"version": 2, "prices": [],')),
        (YAML, f"{lines} {{amount: 2001, currency: EUR, amount: 1}}\n".encode()),
        (MESSAGEPACK, whole),
    ):
        sent = partner.send_bytes(data, media_type)
        if sent.answer.status == 200:
            wrong(
                "last_of_two_wins",
                did=sent.did,
                got=sent.outcome,
                expected="400 or 422: one of the two was meant, and parsers do not agree which",
            )
        require_refused(sent, "One of the two was meant, and parsers do not agree which.")


def test_types_are_not_guessed(partner: Partner) -> None:
    """A value of another type is refused, and not made to fit."""
    octal = yaml.safe_dump(of_today(sku="0123")).replace("'0123'", "0123")  # which YAML 1.1 reads as 83
    for media_type, document in (
        (JSON, of_today("1999")),
        (MESSAGEPACK, of_today("1999")),
        (JSON, of_today(19.99)),
        (JSON, of_today(sku=83)),
        (JSON, of_today(True)),
        (JSON, of_today(None)),
        (YAML, octal),
    ):
        words = document.encode() if isinstance(document, str) else WRITERS[media_type](document)
        sent = partner.send_bytes(words, media_type)
        if sent.changed and sent.changed.keys() != {"0123"}:
            wrong(
                "makes_it_fit",
                did=sent.did,
                got=sent.outcome,
                expected="422: what was meant is a guess, and nobody would see that it was wrong",
            )
        if not sent.changed:
            require_refused(sent, "What was meant is a guess.")


def test_a_long_number_keeps_its_digits(partner: Partner) -> None:
    """A partner's reference comes back digit by digit, however long it is."""
    for media_type, number in (
        (JSON, BEYOND_DOUBLES), (JSON, 2**64 + 1), (YAML, 2**64 + 1), (MESSAGEPACK, 2**64 - 1),
    ):  # fmt: skip
        sent = partner.send(of_today(reference=number), media_type)
        got = sent.answer.body.get("reference") if sent.answer.status == 200 else None
        if got is not None and str(got) != str(number):
            wrong("digits_lost", did=sent.did, got=f"the reference {got}", expected=f"the reference {number}")
        if got != str(number):
            differs(
                did=sent.did,
                got=f"{sent.outcome}; the reference {got!r}",
                expected=f"200, and the reference {str(number)!r}: as a word, because not every reader's numbers are"
                " as long",
                matters="The partner looks for this number in their books.",
            )


def test_what_cannot_be_read_is_the_callers_fault(partner: Partner) -> None:
    """Whatever comes is answered with 400 or 422, and never with an error of the shop."""
    for words, media_type, data in unreadable():
        sent = partner.send_bytes(data, media_type)
        if sent.answer.status == 500:
            wrong(
                "lets_the_parser_fail",
                did=f"{sent.did} - {words}",
                got="500: an error of the parser is one of the shop, with a trace in the log and an alert at night",
                expected="400 or 422",
            )
        require_refused(sent, "It cannot be read, and that is the caller's fault.")
    for words, document in out_of_range():
        sent = partner.send_bytes(document, JSON)
        if sent.answer.status == 500 or sent.changed:
            wrong(
                "no_highest_price",
                did=f"{sent.did} - {words}",
                got=sent.outcome,
                expected="422: a price that no product has, and no column could hold",
            )
        require_refused(sent, "A price that no product has.")
    for media_type in ("", "text/plain", "application/xml"):
        require_status(partner.send_bytes(WRITERS[JSON](of_today()), media_type), 415)


# --- What orders look like --------------------------------------------------------------------------------------------

ORDERS = 5
STRANGE = 'Zoë "the\nline"   O\'Neil'
NEWEST = "SELECT id FROM orders ORDER BY placed_at DESC, id DESC LIMIT 1"
UNUSUAL = """
UPDATE orders SET total_amount = :amount, placed_at = date_trunc('second', placed_at) + interval '0.123456 s'
WHERE id = :id
"""
UNUSUAL_NAME = "UPDATE customers SET name = :name WHERE id = (SELECT customer_id FROM orders WHERE id = :id)"
TRUTH = """
SELECT jsonb_build_object('id', o.public_id, 'status', o.status,
           'total', jsonb_build_object('amount', o.total_amount, 'currency', o.currency),
           'customer', jsonb_build_object('id', c.public_id, 'name', c.name),
           'items', (SELECT coalesce(jsonb_agg(jsonb_build_object('quantity', i.quantity,
                        'unit_price', jsonb_build_object('amount', i.unit_price, 'currency', o.currency),
                        'product', jsonb_build_object('id', p.public_id, 'sku', p.sku, 'name', p.name))
                        ORDER BY i.id), '[]')
                     FROM order_items i JOIN products p ON p.id = i.product_id WHERE i.order_id = o.id)) AS shown,
       o.placed_at
FROM orders o JOIN customers c ON c.id = o.customer_id ORDER BY o.placed_at DESC, o.id DESC LIMIT :limit
"""


@pytest.fixture(scope="session")
def orders(database: Connection) -> list[Json]:
    """The newest orders as they should be shown; the newest of all is unusual."""
    newest = database.scalar(text(NEWEST))
    database.execute(text(UNUSUAL), {"amount": BEYOND_DOUBLES, "id": newest})
    database.execute(text(UNUSUAL_NAME), {"name": STRANGE, "id": newest})
    rows = database.execute(text(TRUTH), {"limit": ORDERS})
    return [{**row.shown, "placed_at": row.placed_at} for row in rows]


def test_orders_are_written_exactly(shop: Shop, orders: list[Json]) -> None:
    """Orders are the same in each format: amounts as whole numbers of minor units, times as moments."""
    for media_type, read in READERS.items():
        answer = shop.ask(Request("GET", f"/v1/exports/orders?limit={ORDERS}", headers={"Accept": media_type}))
        did = f"{answer.did}, Accept: {media_type}"
        if answer.status != 200:
            differs(did=did, got=answer.status, expected=200, matters="There are orders.")
        try:
            found = read(answer.content)
        except (ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
            _recognise_other_lines(did, answer, media_type)
            differs(
                did=did,
                got=f"{excerpt(answer.content)} ({error})",
                expected=f"{ORDERS} orders as {media_type}",
                matters="A partner's program cannot read it.",
            )
        _recognise_floats(did, found)
        _recognise_words(did, found, media_type)
        for place, (one, other) in enumerate(zip(found, orders, strict=True), start=1):
            for name in {**other, **one}:
                got = moment(one.get(name)) if name == "placed_at" else one.get(name)
                if got != other.get(name):
                    differs(
                        did=did,
                        got=f"order {place}, {name}: {one.get(name)!r}",
                        expected=repr(other.get(name)),
                        matters="What a partner books is not what was ordered.",
                    )


def _from_json(content: bytes) -> list[Any]:
    document = json.loads(content)
    assert_count(document)
    return list(document["data"])


def _from_lines(content: bytes) -> list[Any]:
    lines = content.split(b"\n")
    found = [json.loads(line) for line in lines if line]
    if len(found) != ORDERS or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"{len(found)} lines for {ORDERS} orders")
    return found


def _from_messagepack(content: bytes) -> list[Any]:
    document = msgpack.unpackb(content, timestamp=3)
    assert_count(document)
    return list(document["data"])


def assert_count(document: Any) -> None:
    """Go on if the envelope says how many orders are in it.

    Raises:
        ValueError: it does not.
    """
    if document["meta"]["count"] != len(document["data"]) or len(document["data"]) != ORDERS:
        raise ValueError(f"meta.count is {document['meta']['count']} and there are {len(document['data'])} orders")


READERS = {JSON: _from_json, JSON_LINES: _from_lines, MESSAGEPACK: _from_messagepack}


# --- Mistakes, recognised by what only they do ------------------------------------------------------------------------


def _recognise_floats(did: str, found: list[Any]) -> None:
    """Amounts are no whole numbers."""
    floats = [each["total"]["amount"] for each in found if isinstance(each.get("total", {}).get("amount"), float)]
    if floats:
        wrong(
            "floats_in_the_export",
            did=did,
            got=f"the total {floats[0]!r}",
            expected="a whole number of minor units, as everywhere in the shop",
        )


def _recognise_words(did: str, found: list[Any], media_type: str) -> None:
    """MessagePack has a type for moments, and it is not used."""
    if media_type == MESSAGEPACK and isinstance(found[0].get("placed_at"), str):
        wrong(
            "everything_as_text",
            did=did,
            got=f"placed_at is the string {found[0]['placed_at']!r}",
            expected="MessagePack's own timestamp (extension type -1): 4 to 12 bytes, and no format to guess",
        )


def _recognise_other_lines(did: str, answer: Answer, media_type: str) -> None:
    """The lines are not one order each."""
    if media_type == JSON_LINES and isinstance(answer.body, list | dict):
        wrong(
            "one_document_in_lines",
            did=did,
            got=f"one JSON document: {excerpt(answer.content)}",
            expected=f"{ORDERS} lines, each an order and a document of its own",
        )


# --- Hostile and broken bodies ----------------------------------------------------------------------------------------


class _Opens:
    """Opens a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


def payloads(canary: Path) -> Iterator[tuple[str, str, bytes]]:
    """Bodies that have a file made if they are executed; each with the mistake that executes it, and its media type."""
    evil = pickle.dumps(_Opens(canary))
    for media_type in (PICKLE, JSON, "application/octet-stream"):
        yield "pickle_from_our_own", media_type, evil
    for tag in ("object/apply:builtins.open", "object/new:builtins.open", "object/apply:io.open"):
        words = WRITERS[YAML](of_today()) + f"note: !!python/{tag} [{canary}, w]\n".encode()
        yield "yaml_that_builds_objects", YAML, words
    every = [msgpack.ExtType(code, evil) for code in range(128)]
    yield "extension_that_unpickles", MESSAGEPACK, WRITERS[MESSAGEPACK](of_today(more=every))


def unreadable() -> Iterator[tuple[str, str, bytes]]:
    """Bodies that no one can read, each with what it is and its media type."""
    json_, yaml_, packed = (WRITERS[media_type](of_today()) for media_type in (JSON, YAML, MESSAGEPACK))
    yield "nothing", JSON, b""
    yield "half of a list", JSON, json_[: len(json_) // 2]
    yield "two documents", JSON, json_ + json_
    yield "not UTF-8", JSON, json_.replace(b"Hill", b"H\xffll")
    yield "nested without end", JSON, b"[" * 100_000
    yield "a number that is none", JSON, json_.replace(b"1999", b"NaN")
    yield "a price that is no number", JSON, WRITERS[JSON](of_old(float("nan")))
    yield "a number of five thousand digits", JSON, json_.replace(b"1999", b"9" * 5000)
    yield "a list of numbers", JSON, b"[1, 2]"
    yield "null", JSON, b"null"
    yield "no prices", JSON, json_.replace(b"prices", b"prizes")
    yield "no partner", JSON, json_.replace(b'"partner"', b'"friend"')
    yield "a price without an amount", JSON, json_.replace(b'"amount"', b'"number"')
    yield "an old list whose prices are words", JSON, WRITERS[JSON](of_old("cheap"))
    yield "a day that is none", JSON, json_.replace(b"2026-03-01", b"2026-02-31")
    yield "an hour before the first", JSON, WRITERS[JSON](of_today(issued_at="0001-01-01T00:00:00+02:00"))
    yield "a NUL", JSON, WRITERS[JSON](of_today(sku="KIT\0EUR"))
    yield "half of a surrogate pair", JSON, json_.replace(b"KIT-EUR", b"KIT\\ud83d")
    yield "half of a list", YAML, b"prices: [1, 2"
    yield "two documents", YAML, yaml_ + b"---\n" + yaml_
    yield "nested without end", YAML, b"[" * 600
    yield "a tag that its value does not fit", YAML, b"version: !!bool perhaps\n"
    yield "a tag that its value does not fit", YAML, b"issued_at: !!timestamp soon\n"
    yield "aliases of aliases", YAML, laughs()
    yield "half of a list", MESSAGEPACK, packed[: len(packed) // 2]
    yield "something behind the list", MESSAGEPACK, packed + b"\x01"
    yield "an array that says it has four billion entries", MESSAGEPACK, b"\xdd\xff\xff\xff\xff"
    yield "nested without end", MESSAGEPACK, b"\x91" * 100_000
    yield "a byte that is never used", MESSAGEPACK, b"\xc1"


def out_of_range() -> Iterator[tuple[str, bytes]]:
    """Lists of both versions with prices that are too high or too low."""
    json_ = WRITERS[JSON](of_old(19.99))
    yield "an exponent of millions", json_.replace(b"19.99", b"1e999999")
    yield "twenty digits before the point", json_.replace(b"19.99", b"12345678901234567890.5")
    yield "less than nothing", WRITERS[JSON](of_today(-1))
    yield "more than a bigint", WRITERS[JSON](of_today(2**63))
    yield "two million euros and more, for which the shop has no product", WRITERS[JSON](of_today(10**15))


def laughs() -> bytes:
    """A short document that would be nine thousand million prices."""
    levels = ["a0: &a0 {sku: KIT-EUR, price: {amount: 1, currency: EUR}}"]
    levels += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)]
    return "\n".join([*levels, "version: 2", "partner: *a9", f"issued_at: {MORNING}", "prices: *a9", ""]).encode()


# --- Words and small change -------------------------------------------------------------------------------------------


def moment(value: Any) -> Any:
    """A moment, if that is what words or a timestamp say; else what it was."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return value
    return value


def require_set(sent: Sent, prices: dict[str, int]) -> None:
    """Go on if a list was accepted, and set these prices and no other.

    Raises:
        NotRight: it was not so.
    """
    if sent.answer.status != 200 or sent.changed != prices:
        expected = ", ".join(f"{sku} costs {amount}" for sku, amount in prices.items())
        differs(
            did=sent.did,
            got=sent.outcome,
            expected=f"200, and {expected}",
            matters="What the shop sells at is not what its partner wrote.",
        )


def require_refused(sent: Sent, matters: str) -> None:
    """Go on if a list was refused as the caller's fault, and nothing was changed.

    Raises:
        NotRight: it was not.
    """
    if not sent.is_refused:
        differs(did=sent.did, got=sent.outcome, expected="400 or 422, and no price is changed", matters=matters)


def require_status(sent: Sent, status: int) -> None:
    """Go on if a list was answered with this status and changed nothing.

    Raises:
        NotRight: it was not.
    """
    if sent.answer.status != status or sent.changed:
        differs(
            did=sent.did,
            got=sent.outcome,
            expected=f"{status}, and no price is changed",
            matters="The status tells a partner's program what to do: mend the list, or write it in another format.",
        )


def excerpt(data: bytes) -> str:
    """The beginning of something long."""
    words = data.decode("ascii", errors="backslashreplace").replace("\n", "\\n")
    return words if len(words) <= 170 else f"{words[:167]}..."
