"""Checks of `foundations/validation`.

They issue vouchers and place orders over HTTP, right and wrong ones, and look at what is answered, what reached the
database, and what was printed. None of them looks at the learner's file. The first check that fails is what the learner
reads, so a check stands where what it needs has been checked before.
"""

import itertools
import json
import threading
import time
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop

Json = dict[str, Any]

CLERK, MANAGER = "clerk's", "manager's"
ROLES = {CLERK: "clerk", MANAGER: "manager"}
START = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
END = START + timedelta(days=30)
NOBODY = "00000000-0000-4000-8000-000000000000"
MOST_ERRORS = 100


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    """The back office is open."""
    return {"BACK_OFFICE_CLERK_TOKEN": CLERK, "BACK_OFFICE_MANAGER_TOKEN": MANAGER}


@dataclass(frozen=True)
class Sent:
    """What became of a request.

    Attributes:
        did: the request and what was in it.
        body: the same, to be compared.
    """

    did: str
    answer: Answer
    body: Json

    @property
    def outcome(self) -> str:
        """In words."""
        return f"{self.answer.status} {excerpt(self.answer.body)}"

    @property
    def fields(self) -> list[str]:
        """Those that the answer finds fault with."""
        body = self.answer.body
        errors = body.get("errors") if isinstance(body, dict) else None
        return [str(error.get("field")) for error in errors if isinstance(error, dict)] if errors else []


class Office:
    """Issues vouchers and places orders."""

    def __init__(self, shop: Shop, database: Connection) -> None:
        self.shop, self.database = shop, database
        self._codes = itertools.count(1000)
        query = "SELECT public_id::text FROM products WHERE withdrawn_at IS NULL ORDER BY id LIMIT 3"
        self.products = list(database.scalars(text(query)))
        self.customer = database.scalar(text("SELECT public_id::text FROM customers ORDER BY id LIMIT 1"))

    def voucher(self, **changes: Any) -> Json:
        """One that is right, but for the changes; what is changed to `...` is left out."""
        right: Json = {"code": f"SPRING-{next(self._codes)}", "percent": 10}
        right |= {"starts_at": START.isoformat(), "ends_at": END.isoformat()}
        return {name: value for name, value in (right | changes).items() if value is not ...}

    def order(self, *items: Json, **changes: Any) -> Json:
        """One of these lines."""
        return {"customer_id": self.customer, "items": list(items)} | changes

    def issue(self, body: Any, by: str = MANAGER) -> Sent:
        """Ask for a voucher."""
        return self.post("/v1/back-office/vouchers", body, by)

    def place(self, body: Any) -> Sent:
        """Ask for an order."""
        return self.post("/v1/orders", body)

    def post(self, address: str, body: Any, by: str = "") -> Sent:
        """Send it as JSON."""
        headers = {"Authorization": f"Bearer {by}"} if by else {}
        answer = self.shop.ask(Request("POST", address, json=body, headers=headers))
        who = f", the {ROLES[by]}" if by else ""
        return Sent(f"{answer.did}{who}: {excerpt(body)}", answer, body)

    def stored(self) -> int:
        """How many vouchers there are."""
        return int(self.database.scalar(text("SELECT count(*) FROM vouchers")) or 0)


@pytest.fixture(scope="session")
def office(shop: Shop, database: Connection) -> Iterator[Office]:
    """One for all checks."""
    database.execute(text("DELETE FROM vouchers"))
    yield Office(shop, database)
    database.execute(text("DELETE FROM vouchers"))


# --- The checks -------------------------------------------------------------------------------------------------------


def test_a_voucher_is_issued(office: Office) -> None:
    """A voucher that is right is issued, as it was asked for."""
    for by, changes in (
        (CLERK, {"percent": 10, "note": "Sorry for the kettle"}),
        (MANAGER, {"percent": ..., "amount": {"amount": 500, "currency": "EUR"}, "email": "ann@example.com"}),
        (MANAGER, {"percent": 70}),
    ):
        body = office.voucher(**changes)
        sent = office.issue(body, by)
        if sent.answer.status != 201:
            differs(did=sent.did, got=sent.outcome, expected="201, and the voucher", matters="There is no fault in it.")
        expected = {"email": None, "percent": None, "amount": None, "note": ""} | body | {"issued_by": ROLES[by]}
        shown = {name: value for name, value in sent.answer.body.items() if name in expected}
        if not alike(shown, expected):
            matters = "The answer says how the shop understood what was asked."
            differs(did=sent.did, got=shown, expected=expected, matters=matters)


def test_the_voucher_of_the_ticket_is_refused(office: Office) -> None:
    """A voucher with a word for a number, a misspelt field, and an issuer of its own choice is refused."""
    sent = office.issue(office.voucher(percent="70", percnet=15, issued_by="manager"), CLERK)
    require_refused(sent, "It is wrong in three ways, and each of them costs money.")


def test_types_are_not_guessed(office: Office) -> None:
    """A value of another JSON type is refused, and not made to fit."""
    sent_all = [office.issue(office.voucher(percent=guess)) for guess in ("10", 10.0, True, "1_0", [10])]
    line = {"product_id": office.products[0], "quantity": 1}
    sent_all += [office.place(office.order(line | {"quantity": guess})) for guess in ("1", 1.0, True)]
    money = {"amount": "500", "currency": "EUR"}
    sent_all += [office.issue(office.voucher(percent=..., amount=money)), office.issue(office.voucher(code=12345))]
    for sent in sent_all:
        if sent.answer.status == 201:
            wrong(
                "makes_it_fit",
                did=sent.did,
                got=sent.outcome,
                expected="422: the caller's program means something else than it sends, and nobody will tell it",
            )
        require_refused(sent, "It is of another type.")


def test_what_is_not_known_is_refused(office: Office) -> None:
    """A field that the caller may not set, or that is none, is refused and named."""
    for name, value in (
        ("issued_by", "manager"), ("redeemed_at", START.isoformat()), ("id", 7), ("public_id", NOBODY),
        ("percnet", 15), ("role", "manager"),
    ):  # fmt: skip
        sent = office.issue(office.voucher(**{name: value}), CLERK)
        if sent.answer.status == 201:
            shown = sent.answer.body
            if shown["issued_by"] != "clerk" or shown["redeemed_at"] or shown["id"] == NOBODY:
                wrong(
                    "every_field_is_a_column",
                    did=sent.did,
                    got=sent.outcome,
                    expected=f"422: {name} is the shop's business, whatever a caller says of it",
                )
            wrong("unknown_fields_ignored", did=sent.did, got=sent.outcome, expected=f"422, and a word on {name}")
        if sent.answer.status == 500 and name in {"id", "public_id"}:
            wrong("every_field_is_a_column", did=sent.did, got=sent.outcome, expected=f"422: {name} is the shop's own")
        require_refused(sent, "The shop does not know this field, or it is the shop's own.", {name})


def test_all_that_is_wrong_is_told(office: Office) -> None:
    """All faults are told in one answer, each with its path."""
    line = {"product_id": office.products[0], "quantity": 1}
    voucher = office.voucher(code="!", email="ann", percent=0, starts_at="soon", note=7)
    order = office.order(line, line | {"quantity": 0}, {"product_id": "7", "quantity": 101}, customer_id="me")
    for sent, expected in (
        (office.issue(voucher), {"code", "email", "percent", "starts_at", "note"}),
        (office.place(order), {"customer_id", "items.1.quantity", "items.2.product_id", "items.2.quantity"}),
    ):
        require_refused(sent, "There is much wrong with it.")
        told = set(sent.fields)
        if len(told) == 1 and "." not in "".join(told):
            wrong("only_the_first", did=sent.did, got=sent.outcome, expected=f"a word on each of {listed(expected)}")
        if told != expected and told == {path.rpartition(".")[2] for path in expected}:
            wrong("leaf_without_its_path", did=sent.did, got=listed(told), expected=listed(expected))
        if told != expected:
            differs(
                did=sent.did,
                got=f"a word on {listed(told) or 'nothing'}",
                expected=f"a word on {listed(expected)}",
                matters="The caller mends what is named, sends it again, and learns of the next fault.",
            )


WORD = "swordfish"
INSIDES = (
    "pydantic",
    "sqlalchemy",
    "psycopg",
    "Traceback",
    "NewVoucher",
    "validation.py",
    "werkzeug",
    "INSERT",
    "<class",
)


def test_what_was_sent_is_not_repeated(office: Office) -> None:
    """A refusal says where and what, and neither a value nor what the shop is made of."""
    wrongs: list[Json] = [
        {"code": f"{WORD}!", "email": WORD, "note": WORD * 120},
        {"percent": WORD, "starts_at": WORD, "ends_at": f"2026-13-01 {WORD}"},
        {"amount": {"amount": WORD, "currency": WORD}, "pin": WORD},
        {"amount": {"amount": 100, "currency": "EUR", "pin": {"is": WORD}}},
        {"code": ..., "email": f"{WORD}@example.com"},
    ]
    for changes in wrongs:
        sent = office.issue(office.voucher(**changes))
        require_refused(sent, "It is wrong.")
        _nothing_is_repeated(sent)
    _nothing_is_repeated(office.place(office.order({"product_id": WORD, "quantity": WORD, "card": WORD})))


def _nothing_is_repeated(sent: Sent) -> None:
    said = json.dumps(sent.answer.body)
    inside = [word for word in INSIDES if word in said]
    if inside:
        wrong(
            "tells_what_it_is_made_of",
            did=sent.did,
            got=f"{sent.outcome}: {listed(set(inside))}",
            expected="fields, and what is wrong with them",
        )
    if WORD in said:
        expected = f"no word of what was sent: without {WORD!r}"
        wrong("echoes_the_value", did=sent.did, got=sent.outcome, expected=expected)


def test_limits_come_before_work(office: Office) -> None:
    """What is too long is refused for that, with little work and a short answer."""
    bad = {"product_id": "?", "quantity": 0, "x": 1}
    for body, path in (
        (office.order(*[bad] * 3000), "/v1/orders"),
        (office.voucher(**{f"x{number}": 1 for number in range(3000)}), "/v1/back-office/vouchers"),
    ):
        sent = office.post(path, body, MANAGER)
        require_refused(sent, "It is too long.")
        weight = len(json.dumps(body))
        if len(sent.fields) > MOST_ERRORS or len(sent.answer.content) > weight:
            wrong(
                "an_error_for_each",
                did=sent.did,
                got=f"{len(sent.fields)} errors in {len(sent.answer.content)} bytes, for {weight} bytes sent",
                expected=f"at most {MOST_ERRORS} errors, and an answer shorter than the question",
            )
        if sent.answer.statements:
            differs(
                did=sent.did,
                got=f"{len(sent.answer.statements)} statements to the database",
                expected="none: it can be seen without",
                matters="What is refused should cost little. Somebody will send it in a loop.",
            )
    lines = [{"product_id": f"00000000-0000-4000-8000-{number:012}", "quantity": 1} for number in range(51)]
    sent = office.place(office.order(*lines))
    if sent.fields != ["items"] or sent.answer.statements:
        wrong(
            "no_limit_on_the_count",
            did=f"{sent.did} - 51 lines",
            got=f"{sent.outcome}, after {len(sent.answer.statements)} statements",
            expected="422 for `items`, after none: each line is looked up, and a stranger says how many there are",
        )


TOO_SLOW = 0.2


def test_no_text_takes_for_ever(office: Office) -> None:
    """However a text is made, to refuse it takes no time to speak of."""
    for tail in ("!", "--"):
        for length in range(18, 34):
            body = office.voucher(code="A" * length + tail)
            if all(_seconds(office, body) > TOO_SLOW for _ in range(3)):
                wrong(
                    "pattern_that_backtracks",
                    did=f"POST /v1/back-office/vouchers with the code {body['code']}",
                    got=f"more than {TOO_SLOW} s, and about twice that with each letter more",
                    expected="422 at once",
                )
    for body in (
        office.voucher(code="A-" * 50_000),
        office.voucher(note="x" + " " * 100_000 + "x" * 201),
        office.voucher(email="a@" * 50_000),
        office.voucher(email="a@" + "a." * 50_000),
    ):
        require_refused(office.issue(body), "It is far too long.")


def _seconds(office: Office, body: Json) -> float:
    began = time.monotonic()
    require_refused(office.issue(body), "It is no code.")
    return time.monotonic() - began


CODE_RULE = "a code is 4 to 20 letters from A to Z and digits, single dashes between"


def test_words_are_brought_to_one_form(office: Office) -> None:
    """What means the same is stored as the same: spaces, case, and characters that are written in two ways."""
    for field, words, expected in (
        ("code", "  autumn-26 ", "AUTUMN-26"),
        ("email", " Ann.Lee@Example.COM\n", "ann.lee@example.com"),
        ("email", "jose\u0301@example.com", "jos\u00e9@example.com"),
        ("note", "  two  \t words\u00a0here\n", "two words here"),
        ("note", "Zoe\u0308", "Zo\u00eb"),
        ("note", "\u2126" * 200, "\u03a9" * 200),
    ):
        sent = office.issue(office.voucher(**{field: words}))
        if sent.answer.status != 201:
            differs(did=sent.did, got=sent.outcome, expected=f"201, and {field}: {expected!r}", matters="It is right.")
        got = sent.answer.body[field]
        if got != expected:
            wrong("stores_what_was_typed", did=sent.did, got=f"{field}: {got!r}", expected=f"{field}: {expected!r}")
    for field, words in (
        ("email", "J\u030cohn@example.com"), ("email", "\u0130nci@example.com"), ("note", "\u00a8 x\u1e9b\u0323"),
        ("email", "T\u0308om@example.com"),
    ):  # fmt: skip
        first = office.issue(office.voucher(**{field: words}))
        require_issued(first)
        once = first.answer.body[field]
        second = office.issue(office.voucher(**{field: once}))
        twice = second.answer.body[field] if second.answer.status == 201 else second.outcome
        if once != twice or not unicodedata.is_normalized("NFC", once):
            wrong(
                "not_the_same_twice",
                did=f"{first.did}, and then the same with the {field} of the answer",
                got=f"{once!a} first, then {twice!a}",
                expected="what has the shop's form keeps it",
            )


def test_what_is_checked_is_what_is_stored(office: Office) -> None:
    """The form that is stored is the form that was checked."""
    for words in ("gro\u00df-26", "\u0131ndex-26", "w\u017fv-2026"):  # upper() makes letters from A to Z of these
        sent = office.issue(office.voucher(code=words))
        if sent.answer.status == 201:
            wrong("new_letters_from_upper", did=sent.did, got=sent.outcome, expected=f"422: {CODE_RULE}")
        require_refused(sent, CODE_RULE, {"code"})
    for field, words in (("code", "   A   "), ("note", "\ufb2c" * 100), ("email", "   @example.com")):
        sent = office.issue(office.voucher(**{field: words}))
        if sent.answer.status == 201:
            wrong(
                "checks_and_then_changes",
                did=sent.did,
                got=f"{sent.outcome}, with a {field} of {len(sent.answer.body[field])} characters",
                expected="422: once it is in its form, it is too short or too long",
            )
        require_refused(sent, "It is too short or too long.", {field})
    for field, words in (
        ("note", "a\x00b"), ("email", "a\x00b@example.com"), ("note", "\ud83d"), ("code", "AB\n-CD"), ("code", "ABCD-"),
        ("code", "AB--CD"), ("code", "A" * 21), ("email", "a@b@example.com"), ("code", "\u0661\u0662\u0663\u0664"),
    ):  # fmt: skip
        sent = office.issue(office.voucher(**{field: words}))
        if sent.answer.status == 500:
            wrong("lets_the_database_choke", did=sent.did, got=sent.outcome, expected=f"422, and a word on {field}")
        require_refused(sent, "It cannot be stored, or is not of its form.")


def test_rules_hold_across_fields(office: Office) -> None:
    """What no field can say by itself is checked as well."""
    money = {"amount": 500, "currency": "EUR"}
    past = START - timedelta(days=3)
    for why, changes in (
        ("It is ten per cent, and five euros.", {"amount": money}),
        ("It is nothing off.", {"percent": ...}),
        ("It ends before it starts.", {"starts_at": END.isoformat(), "ends_at": START.isoformat()}),
        ("It is for 400 days.", {"ends_at": (START + timedelta(days=400)).isoformat()}),
        ("It is over.", {"starts_at": (past - timedelta(days=9)).isoformat(), "ends_at": past.isoformat()}),
    ):
        sent = office.issue(office.voucher(**changes))
        if sent.answer.status == 201:
            wrong("each_field_by_itself", did=sent.did, got=f"{sent.outcome} {why}", expected=f"422. {why}")
        require_refused(sent, why)


def test_a_time_is_a_moment(office: Office) -> None:
    """A time says where it is, and times are compared as moments."""
    day = f"{START:%Y-%m-%d}"
    for unclear in (f"{day}T09:00:00", day, START.timestamp(), str(int(START.timestamp()))):
        sent = office.issue(office.voucher(starts_at=unclear))
        if sent.answer.status == 201:
            wrong("time_without_a_place", did=sent.did, got=sent.outcome, expected="422: RFC 3339, with an offset")
        require_refused(sent, "Without an offset it is nine o'clock somewhere.", {"starts_at"})
    east, west = f"{day}T10:00:00+05:45", f"{day}T09:00:00-03:00"
    right = office.issue(office.voucher(starts_at=east, ends_at=west))  # 04:15 and 12:00 in London
    reverse = office.issue(office.voucher(starts_at=west, ends_at=east))
    if right.answer.status == 422 or reverse.answer.status == 201:
        both = f"from {east} to {west}: {right.answer.status}; the other way round: {reverse.answer.status}"
        wrong("compares_times_as_text", did="vouchers " + both, got=both, expected="201; the other way round: 422")
    require_issued(right)
    require_refused(reverse, "It ends before it starts.")
    if moment(right.answer.body["starts_at"]) != moment(east):
        got = f"starts_at: {right.answer.body['starts_at']}"
        differs(did=right.did, got=got, expected=f"the same moment as {east}", matters="It opens at another time.")
    late = {"starts_at": "9999-12-31T01:00:00-05:00", "ends_at": "9999-12-31T23:59:59-05:00"}
    require_refused(office.issue(office.voucher(**late)), "In London, it is the year 10000.")


def test_who_asks_decides(office: Office) -> None:
    """A clerk may promise 20 per cent or 20.00, a manager 70 per cent or 200.00."""
    for by, percent, amount in ((CLERK, 20, 20_00), (MANAGER, 70, 200_00)):
        for changes, name in (
            ({"percent": percent + 1}, "percent"),
            ({"percent": ..., "amount": {"amount": amount + 1, "currency": "EUR"}}, "amount"),
        ):
            sent = office.issue(office.voucher(**changes), by)
            if sent.answer.status == 201:
                wrong(
                    "one_rule_for_everyone",
                    did=sent.did,
                    got=sent.outcome,
                    expected=f"422: more than a {ROLES[by]} may promise",
                )
            require_refused(sent, "It is more than they may promise.")
            if not sent.fields or not sent.fields[0].startswith(name):
                differs(did=sent.did, got=sent.outcome, expected=f"a word on {name}", matters="It says where to mend.")
        require_issued(office.issue(office.voucher(percent=percent), by))
        require_issued(office.issue(office.voucher(percent=..., amount={"amount": amount, "currency": "EUR"}), by))


INSERT = """
INSERT INTO vouchers (public_id, code, starts_at, ends_at, note, issued_by)
VALUES (gen_random_uuid(), :code, now(), now(), '', 'clerk')
"""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_a_code_belongs_to_one_voucher(office: Office) -> None:
    """A code that is taken is refused with 409, also when it was free a moment ago."""
    body = office.voucher()
    require_issued(office.issue(body))
    again = office.issue(body | {"code": body["code"].lower()})
    if again.answer.status != 409:
        differs(did=again.did, got=again.outcome, expected="409", matters="Two vouchers of one code are one too many.")
    body = office.voucher()
    engine = office.database.engine.execution_options(isolation_level="READ COMMITTED")
    with engine.connect() as other, ThreadPoolExecutor(1) as thread:
        other.execute(text(INSERT), {"code": body["code"]})  # not committed: nobody else can see it yet
        late = thread.submit(office.issue, body)
        try:
            _wait_until_blocked(office.database, late.done)
        finally:
            other.commit()
        sent = late.result()
    if sent.answer.status == 500:
        wrong(
            "looks_before_it_writes",
            did=f"{sent.did}, while another request wrote the same code, and had not committed",
            got=sent.outcome,
            expected="409: the database knows",
        )
    if sent.answer.status != 409:
        differs(did=sent.did, got=sent.outcome, expected="409", matters="Two vouchers of one code are one too many.")


def _wait_until_blocked(database: Connection, ended: Any) -> None:
    deadline = time.monotonic() + 3
    pause = threading.Event()
    while time.monotonic() < deadline and not ended() and not database.scalar(text(WAITING)):
        pause.wait(0.003)


def test_what_is_refused_is_not_printed(office: Office) -> None:
    """The log says that something was refused, and not whose it was."""
    whose = "rose.marsh@example.com"
    body = office.voucher(email=whose)
    for sent in (
        office.issue(office.voucher(email=whose, percent=0, code="?")),
        office.issue(office.voucher(email=f"{whose} " * 2)),
        office.issue(office.voucher(email=whose, percent=21), CLERK),
        office.issue(body),
        office.issue(body),
    ):
        printed = office.shop.printed(lambda text: whose in text, patience=0.03)
        if whose in printed:
            line = next(line for line in printed.splitlines() if whose in line)
            wrong(
                "logs_what_it_refuses",
                did=sent.did,
                got=f"printed: {excerpt(line)}",
                expected="the field and what is wrong with it, without the value",
            )


# --- What they share --------------------------------------------------------------------------------------------------


def excerpt(body: Any) -> str:
    """Enough of it to recognise it."""
    words = body if isinstance(body, str) else json.dumps(body)
    return words if len(words) <= 300 else f"{words[:300]}..."


def listed(names: set[str]) -> str:
    """In an order that is always the same."""
    return ", ".join(sorted(names))


def moment(words: Any) -> datetime | None:
    """What it says, if it is a time with an offset."""
    try:
        found = datetime.fromisoformat(str(words))
    except ValueError:
        return None
    return found if found.tzinfo else None


def alike(shown: Json, expected: Json) -> bool:
    """Whether both are the same voucher, however a time is written."""
    return shown.keys() == expected.keys() and all(
        moment(shown[name]) == moment(expected[name]) if name.endswith("_at") else shown[name] == expected[name]
        for name in expected
    )


def require_issued(sent: Sent) -> None:
    """It was right."""
    if sent.answer.status != 201:
        differs(did=sent.did, got=sent.outcome, expected="201, and the voucher", matters="There is no fault in it.")


def require_refused(sent: Sent, matters: str, fields: set[str] | None = None) -> None:
    """It was not right, and these fields are named."""
    named = f", and a word on {listed(fields)}" if fields else ""
    if sent.answer.status != 422 or not sent.fields or (fields and not fields <= set(sent.fields)):
        differs(did=sent.did, got=sent.outcome, expected=f"422{named}, in `errors`", matters=matters)
