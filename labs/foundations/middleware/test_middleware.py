"""Checks of `foundations/middleware`.

They ask the shop over HTTP as browsers, caches and scripts do, from pages of several origins, with and without tokens,
and look at what it answers, and in a second shop at what it logs and counts. None of them looks at the file. What must
happen at the same time, or in an order, is made to by locks in the database and by what has passed on the wire.
"""

import gzip
import json
import re
import select
import socket
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text

from shopfloor.checks.judge import StartShop
from shopfloor.checks.logged import logged_error
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.checks.statements import run_all
from shopfloor.checks.waiting import in_background, until

WEB, TILL = "https://www.shop.example", "https://till.shop.example:8443"
STRANGERS = (
    "https://evil.example",
    "https://www.shop.example.evil.example",
    "https://evilwww.shop.example",
    "http://www.shop.example",
    "https://www.shop.example:444",
    "https://till.shop.example",
    "null",
)
SMALLEST = 300  # bytes from which on the shop compresses
LIMIT = 3  # requests of an address at the second shop
CLERK = "clerk-of-a-check"
SENT = ("authorization", "content-type", "idempotency-key", "if-match", "if-none-match", "x-api-key", "x-request-id")
READ = ("etag", "location", "retry-after", "x-request-id", "x-ratelimit-remaining")
ALLOW_ORIGIN, CREDENTIALS = "access-control-allow-origin", "access-control-allow-credentials"
METRICS, LOGGING, LIMITS = "observability/metrics", "observability/logging", "api/rate_limiting"
PATIENCE = 8.0  # seconds for what happens at once on any machine; only what is wrong takes so long
BOUNDARY = "a-line-between-parts"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg">' + b'<rect width="1" height="1"/>' * 60 + b"</svg>"
PNG = b"\x89PNG\r\n\x1a\n" + b"a picture" * 200


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two origins, small answers packed, one place for whoever watches an order."""
    return {
        "CORS_ORIGINS": f"{WEB},{TILL}",
        "COMPRESS_FROM_BYTES": str(SMALLEST),
        "BACK_OFFICE_CLERK_TOKEN": CLERK,
        "UPLOADS_FOLDER": str(tmp_path_factory.mktemp("uploads")),
        "ORDER_WATCHERS": "1",
        "ORDER_WATCH_SECONDS": "0.01",
    }


@pytest.fixture(scope="session")
def second(start: StartShop) -> Iterator[Shop]:
    """A shop that also logs, counts, limits and has tags; each address that it is asked from has its own limit."""
    topics = (LOGGING, METRICS, LIMITS, "api/resources")
    with start(
        *topics, RATE_LIMIT_PER_ADDRESS=str(LIMIT), TRUSTED_PROXIES="127.0.0.0/8", COMPRESS_FROM_BYTES="20"
    ) as it:
        yield it


PRODUCT = "SELECT public_id, sku FROM products WHERE withdrawn_at IS NULL ORDER BY id LIMIT 1"


@dataclass(frozen=True)
class Things:
    """Public ids of things in the database."""

    product: str
    sku: str
    pending: str
    cancelled: str


@pytest.fixture(scope="session")
def things(database: Connection) -> Things:
    """A product, two orders, and a rule that the shop's code does not know of."""
    run_all(database, "ALTER TABLE products ADD CONSTRAINT of_a_check CHECK (name NOT LIKE '%@%') NOT VALID")
    product = database.execute(text(PRODUCT)).one()
    order = "SELECT public_id FROM orders WHERE status = :status ORDER BY id LIMIT 1"
    orders = [database.scalar(text(order), {"status": status}) for status in ("pending", "cancelled")]
    return Things(str(product.public_id), product.sku, *map(str, orders))


def ask(shop: Shop, method: str, address: str, json: Any = None, **headers: str) -> Answer:
    """Ask; `_` in a header's name stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return shop.ask(Request(method, address, json=json, headers=named))


def listed(answer: Answer, header: str) -> set[str]:
    """What stands between the commas of a header, in small letters."""
    return {part.strip().lower() for part in answer.headers.get(header, "").split(",")} - {""}


def shown(answer: Answer, *headers: str) -> str:
    """A status, and some headers, as evidence."""
    lines = [f"{name}: {answer.headers.get(name, '(none)')}" for name in headers]
    return "; ".join([str(answer.status), *lines])


# --- Who may read -----------------------------------------------------------------------------------------------------


def test_scripts_of_some_pages_may_read(shop: Shop, things: Things) -> None:
    """Scripts of the pages in CORS_ORIGINS may read the answers, and those of no other page."""
    page = f"/v1/products/{things.product}"
    answer = ask(shop, "GET", page)
    if answer.headers.get(ALLOW_ORIGIN) == "*":
        differs(
            did=f"{answer.did}, without an Origin",
            got=shown(answer, ALLOW_ORIGIN, CREDENTIALS),
            expected=f"no {ALLOW_ORIGIN}: it is no page that asks",
            matters="The star is for everyone, and a cache hands this answer on to whoever asks next.",
        )
    for origin in STRANGERS:
        answer = ask(shop, "GET", page, Origin=origin)
        allowed = answer.headers.get(ALLOW_ORIGIN)
        did, got = f"{answer.did}, Origin: {origin}", shown(answer, ALLOW_ORIGIN, CREDENTIALS)
        expected = f"no {ALLOW_ORIGIN}: the allowed are {WEB} and {TILL}"
        if allowed and origin in STRANGERS[:1]:
            wrong("any_origin", did=did, got=got, expected=expected)
        if allowed:
            wrong("origin_looks_alike", did=did, got=got, expected=expected)
    for origin in (WEB, TILL):
        answer = ask(shop, "GET", page, Origin=origin)
        if answer.status != 200 or answer.headers.get(ALLOW_ORIGIN) != origin:
            differs(
                did=f"{answer.did}, Origin: {origin}",
                got=shown(answer, ALLOW_ORIGIN) + logged_error(shop),
                expected=f"200; {ALLOW_ORIGIN}: {origin}",
                matters="The browser gives the answer to the page's script only if its very origin is named.",
            )
        if answer.headers.get(CREDENTIALS):
            differs(
                did=f"{answer.did}, Origin: {origin}",
                got=shown(answer, CREDENTIALS),
                expected=f"no {CREDENTIALS}: the shop knows nobody by a cookie",
                matters="It lets pages act with whatever the browser holds for the shop's name, now and later.",
            )


def test_errors_can_be_read(shop: Shop, second: Shop, things: Things) -> None:
    """What refuses or fails can be read by a script as well: 401, 404, 405, 422, 500."""
    against_the_rule = {"data": [{"sku": things.sku, "name": "a@b"}]}
    from_somewhere = {"Origin": WEB, "X_Forwarded_For": "203.0.113.50"}
    asked = [
        (ask(shop, "GET", "/v1/nowhere", Origin=WEB), 404),
        (ask(shop, "DELETE", "/v1/orders", Origin=WEB), 405),
        (ask(shop, "GET", "/v1/orders?limit=ten", Origin=WEB), 422),
        (ask(shop, "GET", "/v1/back-office/categories/x", Origin=WEB), 401),
        (ask(second, "POST", "/v1/catalogue", against_the_rule, **from_somewhere), 500),
    ]
    for answer, status in asked:
        did = f"{answer.did}, Origin: {WEB}"
        if answer.status != status:
            differs(
                did=did, got=answer.status, expected=status, matters="The middleware changed what the shop answers."
            )
        if answer.headers.get(ALLOW_ORIGIN) != WEB:
            wrong("errors_without_cors", did=did, got=shown(answer, ALLOW_ORIGIN), expected=f"{ALLOW_ORIGIN}: {WEB}")


def test_headers_can_be_read(shop: Shop, things: Things) -> None:
    """A script may read the headers that clients of the shop act on."""
    answer = ask(shop, "GET", f"/v1/products/{things.product}", Origin=WEB)
    missing = set(READ) - listed(answer, "access-control-expose-headers")
    if missing:
        wrong(
            "headers_not_exposed",
            did=f"{answer.did}, Origin: {WEB}",
            got=shown(answer, "access-control-expose-headers"),
            expected=f"in it also {', '.join(sorted(missing))}",
        )


# --- Asked beforehand -------------------------------------------------------------------------------------------------


def preflight(shop: Shop, address: str, method: str = "POST", origin: str = WEB, **headers: str) -> Answer:
    """What a browser sends before a script's request: without a token, whatever the script is going to show."""
    asks = {"Access_Control_Request_Method": method, "Access_Control_Request_Headers": ",".join(SENT)}
    return ask(shop, "OPTIONS", address, Origin=origin, **asks, **headers)


def test_a_browser_may_ask_beforehand(shop: Shop, things: Things) -> None:
    """A preflight is answered without a token: which methods, which headers, for how long."""
    for address, method in (
        (f"/v1/products/{things.product}", "PATCH"),
        ("/v1/orders", "POST"),
        ("/v1/back-office/categories", "POST"),
        (f"/v1/back-office/products/{things.product}/stock", "PUT"),
    ):
        answer = preflight(shop, address, method)
        did = f"{answer.did}, which asks for {method}, from {WEB}"
        methods, headers = (f"access-control-allow-{what}" for what in ("methods", "headers"))
        got = shown(answer, ALLOW_ORIGIN, methods, headers, "access-control-max-age")
        if answer.status == 401:
            wrong("preflight_behind_auth", did=did, got=got, expected="2xx: a preflight cannot show a token")
        refused = set(SENT) - listed(answer, headers)
        if (
            not 200 <= answer.status < 300
            or answer.headers.get(ALLOW_ORIGIN) != WEB
            or method.lower() not in listed(answer, methods)
            or refused
            or not answer.headers.get("access-control-max-age", "").isdigit()
        ):
            differs(
                did=did,
                got=got,
                expected=f"2xx; {ALLOW_ORIGIN}: {WEB}; {method} in {methods}; all asked for in {headers}; a max-age",
                matters="Unless all of this is granted the browser does not send the request at all.",
            )
    stranger = preflight(shop, "/v1/orders", origin=STRANGERS[0])
    if stranger.headers.get(ALLOW_ORIGIN) or stranger.status >= 500:
        differs(
            did=f"{stranger.did}, from {STRANGERS[0]}",
            got=shown(stranger, ALLOW_ORIGIN),
            expected=f"no {ALLOW_ORIGIN}",
            matters="Whoever may not read may not change anything either.",
        )


def test_options_that_ask_something_else(shop: Shop) -> None:
    """OPTIONS that is no preflight says as ever what can be done, and what is not there is not there."""
    answer = ask(shop, "OPTIONS", "/v1/orders")
    if not {"get", "post"} <= listed(answer, "allow"):
        differs(
            did=answer.did,
            got=shown(answer, "allow"),
            expected="Allow with GET and POST",
            matters="OPTIONS is older than CORS: it is a preflight only with Access-Control-Request-Method.",
        )


# --- What caches must know --------------------------------------------------------------------------------------------


def test_caches_know_what_an_answer_depends_on(shop: Shop) -> None:
    """Vary names Origin and Accept-Encoding also where neither was sent, and what the route says besides."""
    for address, own in (("/v1/products?limit=10", set()), ("/v1/exports/orders?limit=5", {"accept"})):
        for headers in ({}, {"Origin": WEB}, {"Origin": STRANGERS[0]}, {"Accept-Encoding": "gzip", "Origin": WEB}):
            answer = shop.ask(Request("GET", address, headers=headers))
            vary = ", ".join(value for value in [answer.headers.get("vary", "")] if value)
            missing = ({"origin", "accept-encoding"} | own) - listed(answer, "vary")
            did = f"{answer.did} with {headers or 'no such header'}"
            if own & missing:
                wrong("vary_overwritten", did=did, got=f"Vary: {vary}", expected="Accept is still in it")
            if missing:
                wrong("vary_when_it_shows", did=did, got=f"Vary: {vary or '(none)'}", expected=f"also {missing}")


# --- At the same time -------------------------------------------------------------------------------------------------

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def test_two_at_once(shop: Shop, things: Things, database: Connection) -> None:
    """Of two requests that are answered at the same time, each gets its own answer."""
    engine = create_engine(database.engine.url)
    change = {"name": "Held up"}
    with in_background() as run, engine.connect() as other:
        other.execute(text("SELECT FROM products WHERE public_id = :id FOR UPDATE"), {"id": things.product})
        slow = run(ask, shop, "PATCH", f"/v1/products/{things.product}", change, Origin=WEB, Accept_Encoding="identity")
        until(lambda: database.scalar(text(WAITING)), patience=PATIENCE)
        quick = ask(shop, "GET", "/v1/products?limit=20", Origin=TILL, Accept_Encoding="gzip")
        other.rollback()
    engine.dispose()
    got = [answer.headers.get(ALLOW_ORIGIN) for answer in (slow.result(), quick)]
    packed = [answer.headers.get("content-encoding") for answer in (slow.result(), quick)]
    if got != [WEB, TILL] or packed[0]:
        wrong(
            "state_on_the_middleware",
            did=f"held up {slow.result().did} from {WEB}, and meanwhile {quick.did} from {TILL}",
            got=f"{ALLOW_ORIGIN}: {got[0]} for the first, {got[1]} for the second; packed: {packed[0]}, {packed[1]}",
            expected=f"{WEB} for the first, {TILL} for the second; the first did not want gzip",
        )


# --- Packed -----------------------------------------------------------------------------------------------------------


def unpacked(answer: Answer) -> bytes:
    """The body as it was before it was packed."""
    return gzip.decompress(answer.content) if answer.headers.get("content-encoding") == "gzip" else answer.content


def test_large_answers_are_packed(shop: Shop) -> None:
    """An answer of COMPRESS_FROM_BYTES and more is packed for whoever takes gzip, and is the same then."""
    for address in ("/v1/products?limit=20", "/v1/catalogue"):
        plain = ask(shop, "GET", address)
        packed = ask(shop, "GET", address, Accept_Encoding="gzip, deflate")
        did = f"{packed.did} with Accept-Encoding: gzip, deflate"
        headers = "content-encoding", "content-length"
        if plain.status != 200 or "content-encoding" in plain.headers:
            differs(
                did=plain.did, got=shown(plain, *headers), expected="200, not packed", matters="Nobody asked for it."
            )
        if packed.headers.get("content-encoding") != "gzip" or unpacked(packed) != plain.content:
            differs(
                did=did,
                got=shown(packed, *headers) + logged_error(shop),
                expected=f"Content-Encoding: gzip, and unpacked the {len(plain.content):,} bytes of the plain answer",
                matters="JSON says the same words in each entry: packed it is a tenth, and so is the time on the line.",
            )


def test_who_does_not_want_it(shop: Shop) -> None:
    """Accept-Encoding has weights, and 0 says no."""
    for accepted in ("gzip;q=0", "br, gzip; q=0.0, *;q=0", "identity", "", "gzip;q=high;;="):
        answer = ask(shop, "GET", "/v1/products?limit=10", Accept_Encoding=accepted)
        got = shown(answer, "content-encoding") + logged_error(shop)
        did = f"{answer.did} with Accept-Encoding: {accepted}"
        if answer.status != 200:
            differs(did=did, got=got, expected=200, matters="A header that makes no sense is no reason to fail.")
        if "q=0" in accepted and "content-encoding" in answer.headers:
            wrong("gzip_is_a_substring", did=did, got=got, expected="no Content-Encoding")
        if "content-encoding" in answer.headers and "high" not in accepted:
            differs(did=did, got=got, expected="not packed", matters="Whoever cannot unpack it sees noise.")


def upload(shop: Shop, things: Things, name: str, media_type: str, content: bytes) -> str:
    """Have a picture; returns its address."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="picture"; filename="{name}"\r\n'
    body = f"{head}Content-Type: {media_type}\r\n\r\n".encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    answer = shop.ask(Request("POST", f"/v1/products/{things.product}/pictures", headers=headers, data=body))
    assert answer.status == 201, answer
    return str(answer.headers["location"])


def test_what_is_not_worth_packing(shop: Shop, things: Things) -> None:
    """What is small, and what is packed by nature, goes out as it is."""
    small = ask(shop, "GET", "/livez", Accept_Encoding="gzip")
    picture = ask(shop, "GET", upload(shop, things, "kettle.png", "image/png", PNG), Accept_Encoding="gzip")
    for answer, what in ((small, "a body of a few bytes"), (picture, "a picture (image/png)")):
        if answer.status != 200:
            differs(
                did=f"{answer.did} with Accept-Encoding: gzip",
                got=shown(answer) + logged_error(shop),
                expected=200,
                matters="It is a file, which Flask hands to the server without reading it.",
            )
        if "content-encoding" in answer.headers:
            wrong(
                "packs_everything",
                did=f"{answer.did} with Accept-Encoding: gzip, which is {what}",
                got=f"{shown(answer, 'content-encoding')}; {len(answer.content)} bytes",
                expected="as it is",
            )


def test_parts(shop: Shop, things: Things) -> None:
    """A part of a file is a part of that file, and of no packed one."""
    for name in ("kettle.svg", "sizes.csv"):
        address = upload(shop, things, name, "image/svg+xml", SVG)
        require_whole_or_part(shop, ask(shop, "GET", address, Accept_Encoding="gzip"))
        require_whole_or_part(shop, ask(shop, "GET", address, Accept_Encoding="gzip", Range="bytes=100-999"))


def require_whole_or_part(shop: Shop, answer: Answer) -> None:
    """The answer is the whole file, packed or not, or the part that was asked for, not packed."""
    whole = answer.status == 200 and unpacked(answer) == SVG
    part = answer.status == 206 and answer.content == SVG[100:1000] and "content-encoding" not in answer.headers
    if not whole and not part:
        got = f"{shown(answer, 'content-range', 'content-encoding')}; {len(answer.content)} bytes"
        did = f"{answer.did}, a file, with Accept-Encoding: gzip, whole and with Range: bytes=100-999"
        expected = "200 with all of it, and 206 with 900 bytes of the file, not packed"
        differs(
            did=did,
            got=got + logged_error(shop),
            expected=expected,
            matters="A player or a download that goes on where it stopped puts these bytes beside others.",
        )


# --- Tags -------------------------------------------------------------------------------------------------------------


def test_tags_still_hold(second: Shop, things: Things) -> None:
    """An ETag stands for bytes: another one when packed, and whoever shows either of them is understood."""
    page, caller = f"/v1/products/{things.product}", {"X_Forwarded_For": "203.0.113.7"}
    free = {"X_Forwarded_For": "203.0.113.8"}
    plain = ask(second, "GET", page, **caller)
    packed = ask(second, "GET", page, Accept_Encoding="gzip", **caller)
    did = f"{packed.did}, plain and with Accept-Encoding: gzip"
    tags = plain.headers.get("etag", ""), packed.headers.get("etag", "")
    got = f"ETag: {tags[0]} and ETag: {tags[1]}"
    is_packed = packed.headers.get("content-encoding") == "gzip"
    if is_packed and tags[0] == tags[1] and not tags[0].startswith("W/"):
        wrong("same_tag_other_bytes", did=did, got=got, expected="two tags: two series of bytes")
    if not all(tags):
        differs(
            did=did,
            got=got,
            expected="a tag each",
            matters="Without it whoever edits the product cannot say which state of it they saw.",
        )
    again = ask(second, "GET", page, Accept_Encoding="gzip", If_None_Match=tags[1], **caller)
    if again.status != 304:
        wrong(
            "tag_that_nobody_knows",
            did=f"{packed.did} with Accept-Encoding: gzip, and again with If-None-Match: {tags[1]}",
            got=shown(again),
            expected=304,
        )
    for read_anew in (False, True):
        tag = ask(second, "GET", page, **free).headers.get("etag", "") if read_anew else tags[1]
        encoding = {"Accept_Encoding": "gzip"}
        saved = ask(second, "PATCH", page, {"name": "Kettle"}, If_Match=tag, **encoding, **free)
        did = f"{packed.did} with Accept-Encoding: gzip, then PATCH with If-Match: {tag}"
        if saved.status == 412 and tag.startswith("W/"):
            wrong("weak_tag_cannot_write", did=did, got=saved.status, expected=200)
        if saved.status == 412:
            wrong("tag_that_nobody_knows", did=did, got=saved.status, expected=200)
        if saved.status != 200:
            differs(did=did, got=saved.status, expected=200, matters="Nobody can save any more.")


# --- Streams ----------------------------------------------------------------------------------------------------------


def heard(line: socket.socket) -> bytes:
    """What has come, without waiting for more."""
    data = b""
    while select.select([line], [], [], 0)[0] and (more := line.recv(65536)):
        data += more
    return data


def pieces(chunked: bytes) -> Iterator[bytes]:
    """The chunks that are there, the last perhaps not whole."""
    while found := re.match(rb"([0-9a-f]+)\r\n", chunked, re.IGNORECASE):
        size, start = int(found[1], 16), found.end()
        yield chunked[start : start + size]
        chunked = chunked[start + size + 2 :]


def told(received: bytes) -> str:
    """The body of what has come of an answer, without its chunks, unpacked as far as it goes."""
    head, _, rest = received.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        rest = b"".join(pieces(rest))
    if b"content-encoding: gzip" in head.lower():
        rest = zlib.decompressobj(31).decompress(rest)
    return rest.decode(errors="replace")


def watch(line: socket.socket, order: str) -> None:
    """Ask for what becomes of an order."""
    head = f"GET /v1/orders/{order}/events HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n"
    line.sendall(f"{head}Accept: text/event-stream\r\nAccept-Encoding: gzip\r\nOrigin: {WEB}\r\n\r\n".encode())


def test_a_stream_is_told_as_it_happens(shop: Shop, things: Things, database: Connection) -> None:
    """Whoever watches an order is told its status when the shop knows it, and not when there is no more to tell."""
    cancel = text("UPDATE orders SET status = :status WHERE public_id = :id")
    so_far = b""

    def has_looked() -> bool:
        nonlocal so_far
        so_far += heard(line)
        is_refused = len(so_far) > 12 and not so_far.startswith(b"HTTP/1.1 200")
        return len(shop.database.statements) >= 4 or is_refused

    with shop.line() as line:
        shop.forget()
        watch(line, things.pending)
        try:
            # the event is sent before the shop looks for the next time: when it has looked twice more, it must be here
            looked = until(has_looked, patience=PATIENCE) and len(shop.database.statements) >= 4
            so_far += heard(line)
        finally:
            database.execute(cancel, {"status": "cancelled", "id": things.pending})
        whole = so_far + b"".join(iter(lambda: line.recv(65536), b""))
    database.execute(cancel, {"status": "pending", "id": things.pending})
    did = f"GET /v1/orders/{things.pending}/events with Accept-Encoding: gzip, until the shop had looked thrice"
    expected = 'at least: data: {"status": "pending"}'
    if not looked:
        differs(
            did=did, got=so_far[:300].decode(errors="replace") + logged_error(shop), expected=expected, matters=LIVE
        )
    if not so_far:
        wrong("reads_streams_whole", did=did, got="no byte, not even a status", expected=expected)
    if "pending" not in told(so_far):
        wrong("packs_without_flushing", did=did, got=so_far[:400].decode(errors="replace"), expected=expected)
    if "cancelled" not in told(whole):
        differs(did=f"{did}, then cancelled it", got=told(whole)[-300:], expected="to be told", matters=LIVE)


LIVE = "A customer sees a page that waits, and a thread of the shop waits with it."


def test_what_is_open_is_closed(shop: Shop, things: Things) -> None:
    """When an answer has been sent, whoever wants to be told is: the next one may watch."""
    for number in (1, 2, 3):
        with shop.line() as line:
            watch(line, things.cancelled)
            # to the end of the connection: by then, the server has closed the answer
            received = b"".join(iter(lambda: line.recv(65536), b""))
        status = received.partition(b"\r\n")[0].decode(errors="replace")
        did = f"watched an order that is cancelled, of which there is one thing to tell, to its end: time {number}"
        if " 503" in status:
            wrong("close_not_passed_on", did=f"{did}, with ORDER_WATCHERS=1", got=status, expected="200")
        if " 200" not in status or "cancelled" not in told(received):
            differs(did=did, got=received[:300].decode(errors="replace"), expected="200, and its status", matters=LIVE)


# --- One route is not like another ------------------------------------------------------------------------------------


def test_secrets_are_not_packed(second: Shop, database: Connection) -> None:
    """Nothing under /v1/back-office is packed."""
    name = database.scalar(text("SELECT name FROM categories ORDER BY id LIMIT 1"))
    address = f"/v1/back-office/categories/{name}".replace(" ", "%20")
    shows = {"Authorization": f"Bearer {CLERK}", "X_Forwarded_For": "203.0.113.20"}
    answer = ask(second, "GET", address, Accept_Encoding="gzip", **shows)
    if answer.status != 200 or "content-encoding" in answer.headers:
        got, did = shown(answer, "content-encoding"), f"{answer.did} as the clerk, with Accept-Encoding: gzip"
        if answer.status == 200:
            wrong("packs_secrets", did=did, got=got, expected="as it is")
        differs(did=did, got=got + logged_error(second), expected="200, not packed", matters="The clerk cannot work.")


# --- Among the others -------------------------------------------------------------------------------------------------


def line_of(shop: Shop, request_id: str) -> dict[str, Any] | None:
    """The line of the log that says what became of a request, as soon as it is there."""

    def find(output: str) -> dict[str, Any] | None:
        for line in output.splitlines():
            if request_id in line and "request ended" in line:
                return dict(json.loads(line))
        return None

    return find(shop.printed(lambda output: find(output) is not None, patience=3.0))


def counted(shop: Shop, status: str) -> float:
    """How many requests were answered with a status, as the shop's metrics have it."""
    page = shop.get("/metrics").content.decode()
    lines = re.findall(rf'^http_requests_total{{[^}}]*status="{status}"[^}}]*}} (\S+)$', page, re.MULTILINE)
    return sum(map(float, lines))


def test_a_preflight_is_no_use_of_the_api(second: Shop) -> None:
    """A preflight is answered whatever the address has asked, and counts for nothing; a 429 can be read."""
    caller = {"X_Forwarded_For": "203.0.113.30"}
    before = [preflight(second, "/v1/orders", **caller).status for _ in range(LIMIT + 1)]
    asked = [ask(second, "GET", "/v1/nowhere", Origin=WEB, **caller) for _ in range(LIMIT + 1)]
    did = f"{LIMIT + 1} preflights of an address that may ask {LIMIT} times, then GET /v1/nowhere {LIMIT + 1} times"
    got = f"{before}, then {[answer.status for answer in asked]}"
    if not all(200 <= status < 300 for status in before) or asked[LIMIT - 1].status != 404:
        wrong("preflight_is_counted", did=did, got=got, expected=f"2xx each, then 404 {LIMIT} times, then 429")
    if asked[LIMIT].status != 429:
        differs(did=did, got=got, expected="429 at last", matters="The rate limit is out of work.")
    if asked[LIMIT].headers.get(ALLOW_ORIGIN) != WEB:
        wrong(
            "errors_without_cors",
            did=f"{asked[LIMIT].did}, once more than the limit lets through, Origin: {WEB}",
            got=shown(asked[LIMIT], ALLOW_ORIGIN),
            expected=f"{ALLOW_ORIGIN}: {WEB}",
        )


def test_nobody_is_answered_unseen(second: Shop) -> None:
    """Whatever is answered is logged and counted: preflights, and what the rate limit refuses."""
    caller = {"X_Forwarded_For": "203.0.113.40"}
    for _ in range(LIMIT):
        ask(second, "GET", "/v1/nowhere", **caller)
    for request_id, asks, status in (("refused-1", ask, "429"), ("preflight-1", preflight, "2..")):
        count = counted(second, status)
        where = ("GET", "/v1/nowhere") if asks is ask else ("/v1/orders",)
        answer = asks(second, *where, X_Request_Id=request_id, **caller)
        grown = counted(second, status) - count
        line = line_of(second, request_id)
        if line is None or not grown:
            wrong(
                "answers_unseen",
                did=f"{answer.did} ({answer.status}), with the solutions of logging and metrics",
                got=f"{'a line' if line else 'no line'} of it in the log, and {grown:g} more in http_requests_total",
                expected="a line that says what became of it, and one more",
            )
