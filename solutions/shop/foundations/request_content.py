"""What comes in a request's body and is no basket: pictures of products, and the catalogue in several formats."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

from defusedxml import ElementTree
from flask import Blueprint, Flask, Response, current_app, jsonify, request, send_file
from pydantic import Field
from sqlalchemy import select
from werkzeug.exceptions import (
    BadRequest,
    NotAcceptable,
    NotFound,
    RequestEntityTooLarge,
    ServiceUnavailable,
    UnprocessableEntity,
    UnsupportedMediaType,
)
from werkzeug.formparser import FormDataParser

from shop import database, scanning
from shop.data import caching
from shop.foundations import validation
from shop.foundations.serialization import money
from shop.models import Product
from shop.settings import Settings, settings_of

JSON, CSV, XML = "application/json", "text/csv", "application/xml"
WRITTEN = (JSON, CSV)
"""What the catalogue can be had as; the first where the caller does not mind."""

CHARSETS = {"utf-8": "utf-8-sig", "us-ascii": "ascii", "iso-8859-1": "iso-8859-1", "windows-1252": "windows-1252"}
"""What a text may be written in, and what Python calls it. Its other codecs include compressors and ciphers."""

FORM_BYTES = 64 * 1024  # what a form needs besides its file: boundaries, headers, a few fields
CHUNK = 64 * 1024

blueprint = Blueprint("request_content", __name__, url_prefix="/v1")


def init_app(app: Flask) -> None:
    """Add the routes of pictures and of the catalogue."""
    app.register_blueprint(blueprint)


# --- Pictures ---------------------------------------------------------------------------------------------------------


# [start:signatures]
HEAD = 12  # bytes that tell all of them apart
SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp"}


def media_type_of(head: bytes) -> str | None:
    """What a file is, by its first bytes; None: no picture that the shop takes.

    Source: https://mimesniff.spec.whatwg.org/#matching-an-image-type-pattern.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    return None


# [end:signatures]


# [start:incoming]
class Incoming:
    """A file on its way in: under a name of the shop's, where nothing is served from, and never larger than it may be.

    Args:
        folder: where to write it.
        limit_bytes: how large it may become.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.path = folder / str(uuid4())
        self.size, self._limit, self._head = 0, limit_bytes, b""
        self._stream = self.path.open("xb")

    def write(self, data: bytes) -> None:
        """Take the next bytes, as the form's parser finds them."""
        self.size += len(data)
        if self.size > self._limit:
            raise RequestEntityTooLarge(f"A picture has {self._limit} bytes at most.")
        if len(self._head) < HEAD:
            self._head += data[: HEAD - len(self._head)]
            if len(self._head) == HEAD:
                self.media_type()  # refused now, and not five megabytes later
        self._stream.write(data)

    def media_type(self) -> str:
        """What it is, by its first bytes."""
        found = media_type_of(self._head)
        if found is None:
            raise UnsupportedMediaType("Pictures are PNG, JPEG, GIF or WebP.")
        return found

    def seek(self, _place: int) -> None:
        """The parser is at the end of the file: nothing is left in a buffer."""
        self._stream.flush()

    def close(self) -> None:
        """Write no more."""
        self._stream.close()
        # [end:incoming]


# [start:receiving]
@contextmanager
def receiving(settings: Settings) -> Iterator[Incoming]:
    """The one picture of the request's form, in quarantine while the block runs, and then gone if it is still there."""
    quarantine = settings.uploads_folder / "quarantine"
    quarantine.mkdir(parents=True, exist_ok=True, mode=0o700)
    files: list[Incoming] = []

    def start(*_: object, **__: object) -> Incoming:
        if files:
            raise UnprocessableEntity("One picture at a time.")
        files.append(Incoming(quarantine, settings.upload_limit_bytes))
        return files[0]

    request.max_content_length = settings.upload_limit_bytes + FORM_BYTES  # with a Content-Length or without
    parser = FormDataParser(stream_factory=start, max_form_memory_size=FORM_BYTES, max_form_parts=10, silent=False)  # type: ignore[arg-type]  # it writes and seeks, no more
    try:
        try:
            _, _, parts = parser.parse(
                request.stream, request.mimetype, request.content_length, request.mimetype_params
            )
        except ValueError as error:
            raise BadRequest("The form cannot be read, or not to its end.") from error
        if "picture" not in parts:
            raise UnprocessableEntity("There is no picture.")
        files[0].close()
        yield files[0]
    finally:
        for file in files:
            file.close()
            file.path.unlink(missing_ok=True)
            # [end:receiving]


# [start:upload]
@blueprint.post("/products/<uuid:public_id>/pictures")
def upload(public_id: UUID) -> tuple[Response, int, dict[str, str]]:
    """Keep a picture of a product, sent as the part `picture` of a form."""
    settings = settings_of(current_app)
    if database.session().scalar(select(Product.id).where(Product.public_id == public_id)) is None:
        raise NotFound("There is no such product.")
    pictures = settings.uploads_folder / "pictures"
    with receiving(settings) as incoming:
        media_type = incoming.media_type()
        _require_clean(incoming.path, settings)
        pictures.mkdir(exist_ok=True, mode=0o700)
        name = f"{uuid4()}.{SUFFIXES[media_type]}"
        incoming.path.rename(pictures / name)  # whole or not there, as they are on one disk
    url = f"/v1/pictures/{name}"
    return jsonify({"url": url, "media_type": media_type, "size": incoming.size}), 201, {"Location": url}


def _require_clean(file: Path, settings: Settings) -> None:
    try:
        found = scanning.scan(file, settings.scanner_limit_bytes)
    except scanning.NotScanned as error:
        raise ServiceUnavailable("The picture could not be scanned.") from error
    if found:
        kept = file.rename(file.with_suffix(".infected"))  # evidence, for whoever looks after the shop
        current_app.logger.warning("malware in an upload", extra={"found": found, "file": kept.name})
        raise UnprocessableEntity("The picture was refused by the scanner.")
        # [end:upload]


# [start:picture]
@blueprint.get("/pictures/<uuid:name>.<any(png, jpg, gif, webp):suffix>")
def picture(name: UUID, suffix: str) -> Response:
    """A picture that somebody has uploaded."""
    file = settings_of(current_app).uploads_folder / "pictures" / f"{name}.{suffix}"
    if not file.is_file():
        raise NotFound("There is no such picture.")
    media_type = next(each for each, its in SUFFIXES.items() if its == suffix)
    answer = send_file(file.absolute(), mimetype=media_type, as_attachment=True, download_name=file.name)
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return answer


# [end:picture]


# --- The catalogue, written -------------------------------------------------------------------------------------------


# [start:catalogue]
@blueprint.get("/catalogue")
def catalogue() -> Response:
    """What the shop sells, as JSON or as CSV."""
    accepted = request.accept_mimetypes
    media_type = accepted.best_match(WRITTEN) if accepted else WRITTEN[0]
    if media_type is None:
        raise NotAcceptable(f"The catalogue is written as {', '.join(WRITTEN)}.")
    products = database.session().scalars(
        select(Product).where(Product.withdrawn_at.is_(None)).order_by(Product.id).limit(1000)
    )
    write = {JSON: _as_json, CSV: _as_csv}[media_type]
    answer = write(products.all())
    answer.headers["Vary"] = "Accept"
    return answer


# [end:catalogue]


def _as_json(products: Sequence[Product]) -> Response:
    entries = [
        {"sku": each.sku, "name": each.name, "price": money(each.price_amount, each.currency)} for each in products
    ]
    return jsonify({"data": entries, "meta": {"count": len(entries)}})


def _as_csv(products: Sequence[Product]) -> Response:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["sku", "name", "amount", "currency"])
    rows.writerows([each.sku, each.name, each.price_amount, each.currency] for each in products)
    return Response(text.getvalue(), mimetype=CSV)  # which says the charset as well


# --- The catalogue, read ----------------------------------------------------------------------------------------------


class Naming(validation.Strict):
    """What a product is to be called."""

    sku: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]+$")]
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]


class Names(validation.Strict):
    """A supplier's list."""

    data: list[Naming]


@blueprint.post("/catalogue")
def rename() -> Response:
    """Give products other names: a supplier's list of SKUs and names, as JSON, CSV or XML. All of them, or none."""
    if request.mimetype not in READERS:
        raise UnsupportedMediaType(f"The catalogue is read as {', '.join(READERS)}.")
    body = unpacked(settings_of(current_app).body_limit_bytes)
    try:
        entries = READERS[request.mimetype](body)
    except (ValueError, SyntaxError, LookupError, RecursionError, csv.Error) as error:
        raise BadRequest("The list cannot be read.") from error
    names = {each.sku: each.name for each in validation.parsed(Names, {"data": entries}).data}
    session = database.session()
    products = session.scalars(select(Product).where(Product.sku.in_(names)).with_for_update()).all()
    if len(products) < len(names):
        raise UnprocessableEntity("A product of the list does not exist.")
    for product in products:
        product.name = names[product.sku]
        product.version += 1
    for product in products:
        caching.save_product(session, product)
    entries = [{"sku": sku, "name": name} for sku, name in names.items()]
    return jsonify({"data": entries, "meta": {"count": len(entries)}})


# [start:unpacked]
def unpacked(limit: int) -> bytes:
    """The request's body without its compression, at most `limit` bytes of it, and never more in memory."""
    request.max_content_length = limit
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip"}:
        raise UnsupportedMediaType(f"Bodies may be packed with gzip, not with {encoding}.")
    body = request.get_data()
    if len(body) < (request.content_length or 0):  # gunicorn hands on what came before the sender left
        raise BadRequest("The body breaks off.")
    return body if encoding == "identity" else _gunzip(body, limit)


def _gunzip(packed: bytes, limit: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            body = stream.read(limit + 1)  # to the end, checksum included, unless it is beyond the limit
    except (OSError, EOFError, zlib.error) as error:
        raise BadRequest("That is not gzip, or not to its end.") from error
    if len(body) > limit:
        raise RequestEntityTooLarge(f"A list has {limit} bytes at most when it is unpacked.")
    return body


# [end:unpacked]


def _text(body: bytes) -> str:
    """The body as the charset says that it names; UTF-8 where it names none."""
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if charset not in CHARSETS:
        raise UnsupportedMediaType(f"Texts are written in {', '.join(CHARSETS)}.")
    return body.decode(CHARSETS[charset])


def _read_json(body: bytes) -> list[Any]:
    document = json.loads(body.decode("utf-8-sig"))  # JSON is UTF-8 and has no charset (RFC 8259, 8.1 and 11)
    if not isinstance(document, dict):
        raise ValueError("no object")
    entries = document["data"]
    return entries if isinstance(entries, list) else [entries]


def _read_csv(body: bytes) -> list[Any]:
    rows = csv.DictReader(io.StringIO(_text(body), newline=""), strict=True)
    if not {"sku", "name"} <= set(rows.fieldnames or ()):
        raise LookupError("the columns are missing")  # which would show in a row, if there is one
    return [{"sku": row["sku"], "name": row["name"]} for row in rows]


# [start:xml]
def _read_xml(body: bytes) -> list[Any]:
    """An XML document says itself what it is written in, unless the header does (RFC 7303, 3)."""
    text = _text(body) if "charset" in request.mimetype_params else body
    products = ElementTree.fromstring(text, forbid_dtd=True)
    return [{"sku": each.attrib["sku"], "name": each.text or ""} for each in products]


# [end:xml]


READERS = {JSON: _read_json, CSV: _read_csv, XML: _read_xml}
