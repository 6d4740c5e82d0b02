"""Checks of `foundations/request_content`.

They upload pictures, whole and in pieces, under all sorts of names, and look into the folder for what became of them;
they send lists in several formats, packed and not, and look into the database; and they ask for the catalogue as
programs and browsers do. None of the checks looks at the learner's file. The first check that fails is what the learner
reads, so a check stands where what it needs has been checked before.
"""

import gzip
import json
import socket
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from shopfloor.checks.judge import StartShop
from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop

UPLOAD_LIMIT, BODY_LIMIT = 200_000, 50_000
PATIENCE = 1.0  # seconds for an answer that is due at once, and for a folder to be tidied up
BOUNDARY = "a-line-between-parts"

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
PICTURES = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(256)),
    "image/gif": b"GIF89a" + bytes(range(256)),
    "image/webp": b"RIFF\x24\x01\x00\x00WEBPVP8 " + bytes(range(256)),
}
HTML = b"<!doctype html><script>fetch('/v1/orders')</script>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>fetch("/v1/orders")</script></svg>'
MALWARE = PNG + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!" + PNG


# --- Pictures ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder around the folder of uploads: nothing may be written into it."""
    return tmp_path_factory.mktemp("ground")


@pytest.fixture(scope="session")
def settings(ground: Path) -> dict[str, str]:
    """Small limits, and a folder of this run's own."""
    return {
        "UPLOADS_FOLDER": str(ground / "shop" / "uploads"),
        "UPLOAD_LIMIT_BYTES": str(UPLOAD_LIMIT),
        "BODY_LIMIT_BYTES": str(BODY_LIMIT),
    }


@dataclass(frozen=True)
class Sent:
    """What became of an upload."""

    did: str
    answer: Answer
    files: tuple[str, ...]

    @property
    def outcome(self) -> str:
        """In words."""
        return f"{self.answer.status}, and on disk there is {', '.join(self.files) or 'nothing'}"


class Uploads:
    """Uploads pictures, and looks what is on disk then."""

    def __init__(self, shop: Shop, product: str, ground: Path) -> None:
        self.shop, self.ground = shop, ground
        self.address = f"/v1/products/{product}/pictures"
        self.folder = ground / "shop" / "uploads"

    def send(
        self, content: bytes, name: str = "kettle.png", media_type: str = "image/png", shop: Shop | None = None
    ) -> Sent:
        """Upload a file, onto empty ground."""
        self.clear()
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        body = form(content, name, media_type)
        answer = (shop or self.shop).ask(Request("POST", self.address, headers=headers, data=body))
        shown = name if len(name) < 60 else f"{name[:20]}... ({len(name)} letters)"
        return Sent(f"{answer.did}, {len(content)} bytes, {media_type}, filename={shown!r}", answer, self.files())

    def files(self) -> tuple[str, ...]:
        """All that is on the ground, as `shop/uploads/pictures/...`."""
        found = (path for path in self.ground.rglob("*") if not path.is_dir())
        return tuple(sorted(path.relative_to(self.ground).as_posix() for path in found))

    def clear(self) -> None:
        """Remove all that lies about."""
        for path in self.ground.rglob("*"):
            if not path.is_dir():
                path.unlink(missing_ok=True)

    def misplaced(self) -> list[str]:
        """What lies neither in quarantine nor among the pictures."""
        places = ("shop/uploads/pictures/", "shop/uploads/quarantine/")
        return [name for name in self.files() if not name.startswith(places)]

    def published(self) -> list[str]:
        """What lies among the pictures."""
        return [name for name in self.files() if name.startswith("shop/uploads/pictures/")]

    def wait_for(self, files: bool, patience: float = PATIENCE) -> bool:
        """Wait until there is a file on the ground, or none; returns whether it came to that."""
        deadline = time.monotonic() + patience
        while bool(self.files()) != files:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True


def form(content: bytes, name: str = "kettle.png", media_type: str = "image/png") -> bytes:
    """A form with one file."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="picture"; filename="{quoted}"\r\n'
    return f"{head}Content-Type: {media_type}\r\n\r\n".encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


@pytest.fixture(scope="session")
def uploads(shop: Shop, database: Connection, ground: Path) -> Uploads:
    """One for all checks."""
    product = database.scalar(text("SELECT public_id FROM products ORDER BY id LIMIT 1"))
    return Uploads(shop, str(product), ground)


def test_a_picture_is_kept(uploads: Uploads) -> None:
    """A picture is kept, and comes back as it was."""
    for media_type, content in PICTURES.items():
        sent = uploads.send(content, f"kettle.{media_type.partition('/')[2]}", media_type)
        require_kept(uploads, sent, content, media_type)
    sent = uploads.send(PNG, "kettle", "application/octet-stream")  # as programs send it that do not know what it is
    require_kept(uploads, sent, PNG, "image/png")
    answer = uploads.shop.ask(Request("POST", uploads.address, json={"picture": "kettle.png"}))
    require_status(answer, 400, 415, 422)


def test_the_senders_name_is_no_path(uploads: Uploads) -> None:
    """Whatever a file is called where it comes from, the shop writes it where it wants to."""
    hostile = [
        "../escaped.png",
        "../../escaped.png",
        f"{uploads.ground}/absolute.png",
        "..\\..\\escaped.png",
        "pictures/../../escaped.png",
    ]
    for name in hostile:
        sent = uploads.send(PNG, name)
        misplaced = uploads.misplaced()
        if any("escaped" in each or "absolute" in each for each in misplaced) and sent.answer.status < 500:
            wrong("path_of_the_sender", did=sent.did, got=sent.outcome, expected="a file in uploads/pictures/ alone")
        if misplaced:
            differs(
                did=sent.did,
                got=f"{sent.answer.status}, and on disk there is {', '.join(misplaced)}",
                expected="files in uploads/pictures/ and uploads/quarantine/ alone",
                matters="Where what strangers send may lie is one place, from which nothing is executed.",
            )
        _require_served(uploads, sent)
    for name in ("x" * 300 + ".png", "nothing\0.png", 'a"; filename="b.png', "Zoë 🫖.png", ".", "CON"):
        sent = uploads.send(PNG, name)
        if sent.answer.status >= 500:
            wrong(
                "name_kept_in_part", did=sent.did, got=sent.outcome, expected="201: what it was called does not matter"
            )
        _require_served(uploads, sent)


def _require_served(uploads: Uploads, sent: Sent) -> None:
    if sent.answer.status >= 500:
        wrong("name_kept_in_part", did=sent.did, got=sent.outcome, expected="201: what it was called does not matter")
    require_kept(uploads, sent, PNG, "image/png")


def test_two_of_one_name_are_two_pictures(uploads: Uploads) -> None:
    """Two pictures that are called the same do not replace each other."""
    first = uploads.send(PNG, "kettle.png")
    body = form(PNG + b"another", "kettle.png")
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    second = uploads.shop.ask(Request("POST", uploads.address, headers=headers, data=body))
    require_status(second, 201)
    came = uploads.shop.get(first.answer.body["url"]).content
    if came != PNG:
        wrong(
            "one_name_one_file",
            did=f"{first.did}; then another picture of the same name; then the first again, at its address",
            got="the second picture",
            expected="the first: phones call every picture image.jpg",
        )


def test_a_file_is_what_its_bytes_say(uploads: Uploads) -> None:
    """What a file is decide its first bytes, and not its name or a header."""
    for content, name, media_type in (
        (HTML, "kettle.png", "image/png"),
        (HTML, "kettle.jpg", "application/octet-stream"),
        (b"MZ\x90\x00" + bytes(200), "kettle.gif", "image/gif"),
        (b"GIF" + bytes(200), "kettle.gif", "image/gif"),
        (b"<!-- PNG JFIF GIF89a WEBP -->" + HTML, "kettle.png", "image/png"),
        (b"RIFF\x24\x01\x00\x00WAVEfmt " + bytes(200), "kettle.webp", "image/webp"),
        (b"\x89PNG", "kettle.png", "image/png"),
        (b"", "kettle.png", "image/png"),
    ):
        sent = uploads.send(content, name, media_type)
        if sent.answer.status == 201:
            mistake = "believes_the_header" if media_type.startswith("image/") else "believes_the_ending"
            if mistake == "believes_the_header" and not _accepts(uploads, HTML, "kettle.png", "application/zip"):
                wrong(
                    mistake, did=f"{sent.did}: {content[:30]!r}", got=sent.outcome, expected="415: that is no picture"
                )
            wrong(
                "believes_the_ending",
                did=f"{sent.did}: {content[:30]!r}",
                got=sent.outcome,
                expected="415: that is no picture",
            )
        require_status(sent.answer, 415, 422)
        require_nothing_left(uploads, sent.did)
    sent = uploads.send(SVG, "kettle.svg", "image/svg+xml")
    if sent.answer.status == 201:
        wrong(
            "svg_is_a_picture", did=sent.did, got=sent.outcome, expected="415: it is a document that may hold scripts"
        )
    for name, media_type in (("kettle.html", "text/html"), ("kettle", "application/octet-stream")):
        require_kept(uploads, uploads.send(PNG, name, media_type), PNG, "image/png")


def _accepts(uploads: Uploads, content: bytes, name: str, media_type: str) -> bool:
    return uploads.send(content, name, media_type).answer.status == 201


def test_what_is_served_cannot_run(uploads: Uploads) -> None:
    """Browsers are told not to guess what a picture is, and not to open it as a page."""
    sent = uploads.send(PNG + HTML, "kettle.html", "text/html")
    require_status(sent.answer, 201)
    answer = uploads.shop.get(sent.answer.body["url"])
    sniffing = answer.headers.get("x-content-type-options", "").lower() == "nosniff"
    disposition = answer.headers.get("content-disposition", "").lower()
    if not sniffing or not disposition.startswith("attachment"):
        wrong(
            "left_to_the_browser",
            did=f"{answer.did}: a PNG that has a page behind its first bytes",
            got=f"X-Content-Type-Options: {answer.headers.get('x-content-type-options')},"
            f" Content-Disposition: {answer.headers.get('content-disposition')}",
            expected="nosniff, and attachment",
        )


def test_only_pictures_are_served(uploads: Uploads) -> None:
    """An address leads to a picture or to nothing, however it is written."""
    uploads.send(PNG)
    for place in ("shop/uploads/quarantine/secret.png", "shop/uploads/secret.png", "secret.png"):
        (uploads.ground / place).parent.mkdir(parents=True, exist_ok=True)
        (uploads.ground / place).write_bytes(b"SECRET")
    for path in (
        "../quarantine/secret.png",
        "quarantine/secret.png",
        "%2e%2e/quarantine/secret.png",
        "..%2fsecret.png",
        "../secret.png",
        "../../../secret.png",
        "..%2f..%2f..%2fsecret.png",
        "secret.png",
        f"/{uploads.ground}/secret.png",
        f"%2f{str(uploads.ground)[1:]}/secret.png",
        "nothing%00.png",
        "",
    ):
        answer = uploads.shop.get(f"/v1/pictures/{path}")
        if b"SECRET" in answer.content:
            wrong(
                "path_of_the_address",
                did=answer.did.replace(str(uploads.ground), "/tmp"),  # noqa: S108 - shown, not used
                got="200, and a file that is no picture",
                expected="404",
            )
        require_status(answer, 400, 404, 308)


def test_a_large_picture_is_refused(uploads: Uploads) -> None:
    """A picture may be as large as the limit, and not a byte larger."""
    exactly = PNG + bytes(UPLOAD_LIMIT - len(PNG))
    sent = uploads.send(exactly)
    if sent.answer.status == 413:
        wrong(
            "limit_of_the_form",
            did=f"{sent.did}, which is the limit",
            got=413,
            expected="201: the form around the picture is not part of it",
        )
    require_kept(uploads, sent, exactly, "image/png")
    sent = uploads.send(exactly + b"x")
    if sent.answer.status != 413 or sent.files:
        differs(
            did=f"{sent.did}, one more than the limit",
            got=sent.outcome,
            expected="413, and nothing is kept",
            matters="A limit that does not hold is none.",
        )
    body = form(exactly + b"x")
    got = _stream(uploads, [body[place : place + 30_000] for place in range(0, len(body), 30_000)], end=True)
    if got == 201:
        wrong(
            "limit_by_content_length",
            did=f"POST {uploads.address}, {len(body)} bytes in chunks, without a Content-Length",
            got=f"201, and {UPLOAD_LIMIT + 1} bytes are kept",
            expected="413",
        )
    if got != 413:
        differs(
            did=f"POST {uploads.address}, {len(body)} bytes in chunks",
            got=got,
            expected=413,
            matters="It is too large.",
        )


def test_a_limit_holds_while_a_body_comes_in(uploads: Uploads) -> None:
    """A picture that is too large is refused as soon as that is known, and not when all of it is there."""
    body = form(PNG + bytes(3 * UPLOAD_LIMIT))[: 2 * UPLOAD_LIMIT]
    for length, words in ((None, "in chunks, without an end"), (10**9, "of a body that says it has a gigabyte")):
        got = _stream(uploads, [body], end=False, length=length)
        if got is None:
            wrong(
                "limit_after_reading",
                did=f"POST {uploads.address}, {2 * UPLOAD_LIMIT} bytes {words}; the limit is {UPLOAD_LIMIT}",
                got="no answer: the shop waits for more",
                expected="413 at once",
            )
        if got != 413:
            differs(
                did=f"POST {uploads.address}, {2 * UPLOAD_LIMIT} bytes {words}",
                got=got,
                expected=413,
                matters="The sender decides how much there is to come.",
            )
        if not uploads.wait_for(files=False):
            wrong(
                "left_behind",
                did=f"POST {uploads.address}, {2 * UPLOAD_LIMIT} bytes {words}",
                got=f"413, and on disk there is {', '.join(uploads.files())}",
                expected="nothing: what was refused is gone",
            )


def _stream(uploads: Uploads, pieces: list[bytes], *, end: bool, length: int | None = None) -> int | None:
    """Send a form in chunks, or with a Content-Length that it need not have; the status, or None if none comes."""
    uploads.clear()
    with uploads.shop.line() as line:
        line.settimeout(PATIENCE)
        line.sendall(head(uploads.address, length))
        try:
            for piece in pieces:
                line.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if length is None else piece)
            if end:
                line.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # it is refused already: the answer may be there
        try:
            return status(line)
        except TimeoutError:
            return None


def head(address: str, length: int | None) -> bytes:
    """The head of an upload."""
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    media_type = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    return f"POST {address} HTTP/1.1\r\nHost: shop\r\n{media_type}\r\n{framing}\r\n\r\n".encode()


def status(line: socket.socket) -> int:
    """The status of the answer; 413 where the shop hung up on what it did not want to read."""
    answer = b""
    try:
        while b"\r\n" not in answer:
            more = line.recv(4096)
            if not more:
                return 413
            answer += more
    except ConnectionResetError:
        return 413
    return int(answer.split(b" ", 2)[1])


def test_nothing_is_left_of_half_a_picture(uploads: Uploads) -> None:
    """A sender who leaves in the middle leaves nothing behind, and half a picture is never among the pictures."""
    body = form(PNG + bytes(UPLOAD_LIMIT - len(PNG)))  # of which half is more than parsers keep back
    for length, words in ((len(body), "with a Content-Length"), (None, "in chunks")):
        uploads.clear()
        half = body[: len(body) // 2]
        did = f"POST {uploads.address} {words}, {len(half)} bytes of {len(body)}"
        with uploads.shop.line() as line:
            line.sendall(head(uploads.address, length))
            line.sendall(b"%x\r\n%b\r\n" % (len(half), half) if length is None else half)
            uploads.wait_for(files=True, patience=0.2)
            if published := uploads.published():
                wrong(
                    "written_where_it_is_served",
                    did=f"{did}, and waits",
                    got=f"on disk there is {', '.join(published)}",
                    expected="nothing in uploads/pictures/: half a picture is none",
                )
        if not uploads.wait_for(files=False):
            wrong(
                "left_behind",
                did=f"{did}, and hangs up",
                got=f"on disk there is {', '.join(uploads.files())}",
                expected="nothing",
            )


def test_malware_stays_in_quarantine(uploads: Uploads, start: StartShop) -> None:
    """What the scanner finds something in is refused, stays in quarantine, and is never among the pictures."""
    sent = uploads.send(MALWARE)
    if sent.answer.status == 201:
        differs(
            did=f"{sent.did}, in which the scanner finds something",
            got=sent.outcome,
            expected=422,
            matters="The shop hands malware on to whoever looks at the product.",
        )
    if uploads.published():
        wrong(
            "published_before_the_scan",
            did=f"{sent.did}, in which the scanner finds something",
            got=sent.outcome,
            expected="nothing in uploads/pictures/",
        )
    require_status(sent.answer, 422)
    kept = [uploads.ground / name for name in sent.files]
    if [file.read_bytes() for file in kept] != [MALWARE]:
        wrong(
            "evidence_thrown_away",
            did=f"{sent.did}, in which the scanner finds something",
            got=sent.outcome,
            expected="one file in uploads/quarantine/, as it came",
        )
    with start(SCANNER_LIMIT_BYTES="10") as shop:
        sent = uploads.send(PNG, shop=shop)
    if sent.answer.status == 201:
        wrong(
            "not_scanned_is_clean",
            did=f"{sent.did}, which is too large for the scanner",
            got=sent.outcome,
            expected="503: nobody knows whether it is clean",
        )
    require_status(sent.answer, 503)
    require_nothing_left(uploads, f"{sent.did}, which is too large for the scanner")


def require_kept(uploads: Uploads, sent: Sent, content: bytes, media_type: str) -> None:
    """Fail unless the picture is kept once, whole, and comes back as what it is."""
    require_status(sent.answer, 201, did=sent.did)
    body = sent.answer.body
    url = body.get("url") if isinstance(body, dict) else None
    if not isinstance(url, str) or sent.answer.headers.get("location") != url or body.get("size") != len(content):
        differs(
            did=sent.did,
            got=f"{body}, Location: {sent.answer.headers.get('location')}",
            expected=f"url, media_type, and size {len(content)}; the url in Location as well",
            matters="Whoever uploads a picture wants to show it.",
        )
    if len(uploads.published()) != 1 or len(sent.files) != 1:
        differs(
            did=sent.did,
            got=sent.outcome,
            expected="one file in uploads/pictures/, and nothing beside it",
            matters="The folder of pictures holds pictures, each once, whole and scanned; nothing else lies about.",
        )
    answer = uploads.shop.get(url)
    if answer.status != 200 or answer.content != content:
        differs(
            did=f"{sent.did}; then {answer.did}",
            got=f"{answer.status}, {len(answer.content)} bytes",
            expected=f"200, and the {len(content)} bytes that were sent",
            matters="A picture that comes back as another is damaged.",
        )
    served = answer.headers.get("content-type", "").partition(";")[0]
    if served != media_type or body.get("media_type") != media_type:
        differs(
            did=f"{sent.did}; then {answer.did}",
            got=f"Content-Type: {served}; and media_type was {body.get('media_type')}",
            expected=f"{media_type}, as its first bytes say",
            matters="A browser believes what it is told: what says that it is a page is opened as one.",
        )


def require_nothing_left(uploads: Uploads, did: str) -> None:
    """Fail if a refused file lies about."""
    if not uploads.wait_for(files=False):
        wrong(
            "left_behind",
            did=did,
            got=f"on disk there is {', '.join(uploads.files())}",
            expected="nothing: what was refused is gone",
        )


def require_status(answer: Answer, *expected: int, did: str = "") -> None:
    """Fail unless the answer has one of these statuses."""
    if answer.status not in expected:
        words = " or ".join(map(str, expected))
        matters = "An error of the shop wakes somebody up." if answer.status >= 500 else "Callers go by the status."
        differs(did=did or answer.did, got=f"{answer.status}: {answer.body!s:.200}", expected=words, matters=matters)


# --- The catalogue, read ----------------------------------------------------------------------------------------------

JSON, CSV, XML = "application/json", "text/csv", "application/xml"
BEFORE = "A name of before"
RESET = "UPDATE products SET name = :name WHERE sku = ANY(:skus)"
NAMES = "SELECT sku, name FROM products WHERE sku = ANY(:skus) AND name <> :name"


@dataclass(frozen=True)
class Listed:
    """What became of a list."""

    did: str
    answer: Answer
    names: dict[str, str]

    @property
    def outcome(self) -> str:
        """In words."""
        words = ", ".join(f"{sku} is called {name[:60]!r}" for sku, name in self.names.items())
        return f"{self.answer.status}, and {words or 'no product has another name'}"


class Supplier:
    """Sends lists, and looks what the products are called then."""

    def __init__(self, shop: Shop, database: Connection) -> None:
        self.shop, self.database = shop, database
        self.skus = list(database.scalars(text("SELECT sku FROM products ORDER BY id LIMIT 2")))

    def send(self, body: bytes, content_type: str, words: str = "", **headers: str) -> Listed:
        """Send a list as it is, when the products have their old names."""
        self.database.execute(text(RESET), {"name": BEFORE, "skus": self.skus})
        given = {"Content-Type": content_type} | {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.shop.ask(Request("POST", "/v1/catalogue", headers=given, data=body))
        rows = self.database.execute(text(NAMES), {"name": BEFORE, "skus": self.skus})
        shown = f"{answer.did}, {content_type}{''.join(f', {name}: {value}' for name, value in headers.items())}"
        return Listed(f"{shown}: {words or body[:100]!r}", answer, dict(rows.tuples().all()))

    def csv(self, *names: str) -> str:
        """A list in CSV."""
        return "sku,name\r\n" + "".join(f'{sku},"{name}"\r\n' for sku, name in zip(self.skus, names, strict=False))

    def xml(self, name: str, before: str = "") -> str:
        """A list in XML."""
        return f'{before}<products><product sku="{self.skus[0]}">{name}</product></products>'


@pytest.fixture(scope="session")
def supplier(shop: Shop, database: Connection) -> Supplier:
    """One for all checks."""
    return Supplier(shop, database)


def test_a_list_sets_names(supplier: Supplier) -> None:
    """A list of names is read as JSON, CSV and XML."""
    sku = supplier.skus[0]
    documents = {
        JSON: json.dumps({"data": [{"sku": sku, "name": "Zoë's kettle, red"}]}).encode(),
        CSV: supplier.csv("Zoë's kettle, red").encode(),
        XML: supplier.xml("Zoë's kettle, red").encode(),
    }
    for media_type, body in documents.items():
        require_named(supplier, supplier.send(body, media_type), "Zoë's kettle, red")
        require_named(supplier, supplier.send(body, f"{media_type}; charset=UTF-8"), "Zoë's kettle, red")
    require_named(supplier, supplier.send(documents[CSV], "Text/CSV"), "Zoë's kettle, red")
    listed = supplier.send(supplier.csv("One").encode() + b"NO-SUCH-SKU,Two\r\n", CSV)
    if listed.names or listed.answer.status != 422:
        differs(
            did=listed.did,
            got=listed.outcome,
            expected="422, and nothing has changed",
            matters="A list is taken whole.",
        )


def test_what_cannot_be_read_is_the_senders_fault(supplier: Supplier) -> None:
    """Whatever comes is answered with 400, 415 or 422, and never with an error of the shop."""
    sku = supplier.skus[0]
    for body, media_type in (
        (b"", JSON), (b"", XML), (b"{", JSON), (b"[]", JSON), (b"null", JSON), (b'{"data": 1}', JSON),
        (b"[" * 30_000, JSON), (b'{"data": [{"sku": 1, "name": 2}]}', JSON), (b"<products>", XML), (b"sku\r\nA", CSV),
        (f"sku,name\r\n{sku}".encode(), CSV), (f'<p><product name="{sku}"/></p>'.encode(), XML),
        (f"sku,name\r\n{sku},a\0b".encode(), CSV), (f"sku,name\r\n{sku},{'x' * 1000}".encode(), CSV),
        (b'<?xml version="1.0" encoding="no-such"?><p/>', XML),
    ):  # fmt: skip
        listed = supplier.send(body, media_type)
        if listed.answer.status >= 500:
            wrong("lets_the_parser_fail", did=listed.did, got=listed.answer.status, expected="400 or 422")
        require_unnamed(listed, 400, 422)
    for media_type in ("text/plain", "application/octet-stream", "application/zip", "multipart/form-data"):
        require_unnamed(supplier.send(supplier.csv("One").encode(), media_type), 415)


def test_packed_lists_are_read(supplier: Supplier) -> None:
    """A list may be packed with gzip; what is packed otherwise, or damaged, is refused."""
    whole = supplier.csv("One", "Two").encode()
    require_named(supplier, supplier.send(gzip.compress(whole), CSV, "a list", Content_Encoding="gzip"), "One", "Two")
    middle = whole.index(b"\n", 12) + 1
    members = gzip.compress(whole[:middle]) + gzip.compress(whole[middle:])
    listed = supplier.send(members, CSV, "a list in two members", Content_Encoding="gzip")
    if listed.answer.status == 200 and len(listed.names) == 1:
        wrong("first_member_only", did=listed.did, got=listed.outcome, expected="both products have other names")
    require_named(supplier, listed, "One", "Two")
    packer = zlib.compressobj(wbits=31)
    torn = packer.compress(whole) + packer.flush(zlib.Z_SYNC_FLUSH)
    listed = supplier.send(torn, CSV, "a list that breaks off where a row ends", Content_Encoding="gzip")
    if listed.answer.status == 200:
        wrong(
            "half_is_enough", did=listed.did, got=listed.outcome, expected="400: the end is missing, and the checksum"
        )
    require_unnamed(listed, 400)
    require_unnamed(supplier.send(whole, CSV, "a list, not packed", Content_Encoding="gzip"), 400)
    for encoding in ("br", "zstd", "gzip, gzip"):
        require_unnamed(supplier.send(whole, CSV, "a list", Content_Encoding=encoding), 415)


def test_a_bomb_is_not_unpacked(supplier: Supplier) -> None:
    """What a list becomes is limited, not only what comes in; and unpacking stops there."""
    for body, words in ((b"sku,name\r\n" + b"A" * BODY_LIMIT, "a list one byte too large and some"),):
        require_unnamed(supplier.send(body, CSV, words), 413)
    large = b"sku,name\r\n" + bytes(3_000_000)
    packed = gzip.compress(large)
    words = f"{len(packed)} bytes that become {len(large)}; the limit is {BODY_LIMIT}"
    listed = supplier.send(packed, CSV, words, Content_Encoding="gzip")
    if listed.answer.status != 413:
        wrong("packed_size_is_the_limit", did=listed.did, got=listed.outcome, expected="413")
    damaged = packed[:-8] + b"\0" * 8
    words = f"{words}; its checksum, at the very end, is wrong"
    listed = supplier.send(damaged, CSV, words, Content_Encoding="gzip")
    if listed.answer.status != 413:
        wrong(
            "unpacked_and_then_measured",
            did=listed.did,
            got=f"{listed.answer.status}: the shop has unpacked it to the end, or it would not know",
            expected="413, before the end is seen",
        )


def test_texts_are_read_as_they_are_written(supplier: Supplier) -> None:
    """A text is read as the charset that it names; what does not fit is refused."""
    listed = supplier.send(supplier.csv("Café – ½").encode("windows-1252"), f"{CSV}; charset=windows-1252")
    name = next(iter(listed.names.values()), "")
    if "\ufffd" in name:
        wrong("replaces_what_it_cannot_read", did=listed.did, got=listed.outcome, expected="'Café – ½'")
    require_named(supplier, listed, "Café – ½")
    listed = supplier.send(supplier.csv("Café").encode("iso-8859-1"), f'{CSV}; charset="ISO-8859-1"')
    require_named(supplier, listed, "Café")
    declared = '<?xml version="1.0" encoding="iso-8859-1"?>'
    listed = supplier.send(supplier.xml("Café", declared).encode("iso-8859-1"), XML)
    require_named(supplier, listed, "Café")
    listed = supplier.send(supplier.csv("Café").encode("utf-8-sig"), CSV)
    if listed.answer.status != 200:
        wrong("mark_of_the_spreadsheet", did=listed.did, got=listed.outcome, expected="200: Excel begins CSV with it")
    require_named(supplier, listed, "Café")
    for content_type in (CSV, JSON):
        body = (
            supplier.csv("Café")
            if content_type == CSV
            else f'{{"data": [{{"sku": "{supplier.skus[0]}", "name": "é"}}]}}'
        )
        listed = supplier.send(body.encode("iso-8859-1"), content_type)
        if listed.answer.status == 200:
            wrong("replaces_what_it_cannot_read", did=listed.did, got=listed.outcome, expected="400: that is not UTF-8")
        require_unnamed(listed, 400)
    for charset in ("unicode_escape", "utf-7", "rot13", "zlib", "idna", "no-such"):
        listed = supplier.send(supplier.csv("One").encode(), f"{CSV}; charset={charset}")
        if listed.answer.status in {200, 422, 500}:
            wrong("any_codec_of_python", did=listed.did, got=listed.outcome, expected="415: no text is written in that")
        require_unnamed(listed, 400, 415)


def test_documents_bring_no_entities(supplier: Supplier, tmp_path: Path) -> None:
    """XML that defines entities is refused: whatever they name, and however it is written."""
    secret = tmp_path / "secret"
    secret.write_text("SECRET")
    laughs = '<!ENTITY a0 "ha">' + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 4}">' for n in range(1, 4))
    for mistake, name, subset in (
        ("external_entities", "&x;", f'<!ENTITY x SYSTEM "file://{secret}">'),
        ("entities_expanded", "&a;", '<!ENTITY a "Kettle">'),
        ("entities_expanded", "&a3;", laughs),
        ("entities_expanded", "Kettle", '<!ENTITY a "not used">'),
    ):
        document = supplier.xml(name, f'<?xml version="1.0"?><!DOCTYPE p [{subset}]>')
        listed = supplier.send(document.encode(), XML, document.replace(str(secret), "/etc/secret"))
        _refuse_entities(listed, "external_entities" if "SECRET" in listed.outcome else mistake)
    document = supplier.xml("&a;", '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE p [<!ENTITY a "Kettle">]>')
    _refuse_entities(supplier.send(document.encode("utf-16"), XML, f"{document}, in UTF-16"), "looks_for_the_word")
    require_named(
        supplier, supplier.send(supplier.xml("A &amp; B &lt;!ENTITY&gt; &#233;").encode(), XML), "A & B <!ENTITY> é"
    )


def _refuse_entities(listed: Listed, mistake: str) -> None:
    if listed.answer.status == 200:
        wrong(mistake, did=listed.did, got=listed.outcome, expected="400")
    require_unnamed(listed, 400, 422)


def require_named(supplier: Supplier, listed: Listed, *names: str) -> None:
    """Fail unless the products are called that, and no other has another name."""
    expected = dict(zip(supplier.skus, names, strict=False))
    if listed.answer.status != 200 or listed.names != expected:
        differs(
            did=listed.did,
            got=listed.outcome,
            expected=f"200, and the names {', '.join(names)}",
            matters="The name is what customers see.",
        )


def require_unnamed(listed: Listed, *statuses: int) -> None:
    """Fail unless the list was refused, and has changed nothing."""
    if listed.answer.status not in statuses or listed.names:
        differs(
            did=listed.did,
            got=listed.outcome,
            expected=f"{' or '.join(map(str, statuses))}, and nothing has changed",
            matters="What was not understood must not become a name, and is not an error of the shop.",
        )


# --- The catalogue, written -------------------------------------------------------------------------------------------

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
PREFERENCES = (
    # What is accepted; what is to come; the mistake that alone gives something else.
    (None, JSON, ""),
    ("*/*", JSON, ""),
    (JSON, JSON, ""),
    (CSV, CSV, ""),
    (f"{JSON};q=0.2, {CSV}", CSV, "first_that_is_named"),
    (f"{CSV};q=0.1, {JSON}", JSON, "substring_of_accept"),
    (f"{CSV};q=0, {JSON}", JSON, "substring_of_accept"),
    ("text/*", CSV, ""),
    (f"{JSON};q=0, */*", CSV, ""),
    (f"{JSON};q=0.5, */*;q=0.8", CSV, ""),
    (BROWSER, JSON, ""),
    ("TEXT/CSV", CSV, ""),
)  # fmt: skip


def test_the_catalogue_is_what_was_asked_for(shop: Shop) -> None:
    """The catalogue is written as the caller prefers, by what `Accept` says and how much each is worth."""
    for accept, expected, mistake in PREFERENCES:
        answer = catalogue(shop, accept)
        got = answer.headers.get("content-type", "").partition(";")[0]
        if (answer.status, got) != (200, expected):
            did = f"{answer.did}, Accept: {accept}"
            if mistake and answer.status == 200:
                wrong(mistake, did=did, got=got, expected=expected)
            differs(did=did, got=f"{answer.status}, {got}", expected=f"200, {expected}", matters="RFC 9110, 12.5.1.")
        if "accept" not in answer.headers.get("vary", "").lower():
            wrong(
                "cache_is_not_told",
                did=f"{answer.did}, Accept: {accept}",
                got=answer.headers.get("vary"),
                expected="Vary: Accept",
            )
    table = catalogue(shop, CSV)
    if "charset=utf-8" not in table.headers.get("content-type", "").lower().replace('"', ""):
        wrong(
            "csv_without_its_charset",
            did=f"{table.did}, Accept: {CSV}",
            got=table.headers.get("content-type"),
            expected="text/csv; charset=utf-8",
        )
    count = len(catalogue(shop, JSON).body["data"])
    lines = table.content.decode().splitlines()
    if lines[0] != "sku,name,amount,currency" or len(lines) != count + 1:
        differs(
            did=table.did,
            got=f"{lines[0]!r} and {len(lines) - 1} lines",
            expected=f"a head and {count} lines",
            matters="A program reads it.",
        )


def test_what_the_shop_does_not_write_it_does_not_send(shop: Shop) -> None:
    """Who accepts neither JSON nor CSV gets neither."""
    for accept in ("text/html", "image/png, application/xml;q=0.5", f"{JSON};q=0, {CSV};q=0", "application/jsonp"):
        answer = catalogue(shop, accept)
        if answer.status == 200:
            wrong(
                "json_for_everybody",
                did=f"{answer.did}, Accept: {accept}",
                got=answer.headers.get("content-type"),
                expected="406",
            )
        require_status(answer, 406)


def catalogue(shop: Shop, accept: str | None) -> Answer:
    """Ask for it."""
    return shop.ask(Request("GET", "/v1/catalogue", headers={} if accept is None else {"Accept": accept}))
