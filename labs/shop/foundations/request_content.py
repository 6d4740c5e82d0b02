"""What comes in a request's body and is no basket: pictures of products, and the catalogue in several formats."""

import csv
import gzip
import io
import mimetypes
from collections.abc import Sequence
from uuid import UUID
from xml.etree import ElementTree

from flask import Blueprint, Flask, Response, current_app, jsonify, request, send_file
from sqlalchemy import select
from werkzeug.exceptions import BadRequest, NotFound, RequestEntityTooLarge, UnprocessableEntity, UnsupportedMediaType

from shop import database, scanning
from shop.data import caching
from shop.foundations.serialization import money
from shop.models import Product
from shop.settings import settings_of

Names = list[tuple[str, str]]
"""SKUs and names of products."""

JSON, CSV, XML = "application/json", "text/csv", "application/xml"

blueprint = Blueprint("request_content", __name__, url_prefix="/v1")


def init_app(app: Flask) -> None:
    """Add the routes of pictures and of the catalogue."""
    app.register_blueprint(blueprint)


# --- Pictures ---------------------------------------------------------------------------------------------------------


@blueprint.post("/products/<uuid:public_id>/pictures")
def upload(public_id: UUID) -> tuple[Response, int, dict[str, str]]:
    """Keep a picture of a product, sent as the part `picture` of a form."""
    settings = settings_of(current_app)
    if database.session().scalar(select(Product.id).where(Product.public_id == public_id)) is None:
        raise NotFound("There is no such product.")
    picture = request.files.get("picture")
    if picture is None or not picture.filename:
        raise UnprocessableEntity("There is no picture.")
    if not picture.mimetype.startswith("image/"):
        raise UnsupportedMediaType("That is no picture.")
    content = picture.read()
    if len(content) > settings.upload_limit_bytes:
        raise RequestEntityTooLarge("The picture is too large.")
    file = settings.uploads_folder / "pictures" / picture.filename
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    if scanning.scan(file, settings.scanner_limit_bytes):
        raise UnprocessableEntity("There is something in that picture.")
    url = f"/v1/pictures/{picture.filename}"
    answer = jsonify({"url": url, "media_type": picture.mimetype, "size": len(content)})
    return answer, 201, {"Location": url}


@blueprint.get("/pictures/<path:name>")
def picture(name: str) -> Response:
    """A picture that somebody has uploaded."""
    file = settings_of(current_app).uploads_folder / "pictures" / name
    if not file.is_file():
        raise NotFound("There is no such picture.")
    return send_file(file.absolute(), mimetype=mimetypes.guess_type(name)[0] or "application/octet-stream")


# --- The catalogue ----------------------------------------------------------------------------------------------------


@blueprint.get("/catalogue")
def catalogue() -> Response:
    """What the shop sells, as JSON or as CSV."""
    products = database.session().scalars(
        select(Product).where(Product.withdrawn_at.is_(None)).order_by(Product.id).limit(1000)
    )
    if "text/csv" in request.headers.get("Accept", ""):
        return Response(_as_csv(products.all()), content_type=CSV)
    return jsonify(_as_json(products.all()))


def _as_json(products: Sequence[Product]) -> dict[str, object]:
    entries = [
        {"sku": each.sku, "name": each.name, "price": money(each.price_amount, each.currency)} for each in products
    ]
    return {"data": entries, "meta": {"count": len(entries)}}


def _as_csv(products: Sequence[Product]) -> str:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["sku", "name", "amount", "currency"])
    rows.writerows([each.sku, each.name, each.price_amount, each.currency] for each in products)
    return text.getvalue()


@blueprint.post("/catalogue")
def rename() -> Response:
    """Give products other names: a supplier's list of SKUs and names, as JSON, CSV or XML."""
    names = _read_names(_text(), request.mimetype)
    session = database.session()
    for sku, name in names:
        product = session.scalar(select(Product).where(Product.sku == sku))
        if product is None:
            raise UnprocessableEntity(f"There is no product {sku}.")
        product.name = name
        product.version += 1
        caching.save_product(session, product)
    return jsonify({"data": [{"sku": sku, "name": name} for sku, name in names], "meta": {"count": len(names)}})


def _text() -> str:
    body = request.get_data()
    if len(body) > settings_of(current_app).body_limit_bytes:
        raise RequestEntityTooLarge("The list is too large.")
    if request.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return body.decode(errors="replace")


def _read_names(text: str, media_type: str) -> Names:
    if media_type == CSV:
        return [(row["sku"], row["name"]) for row in csv.DictReader(io.StringIO(text))]
    if media_type == XML:
        return [(each.attrib["sku"], each.text or "") for each in ElementTree.fromstring(text)]  # noqa: S314 - naive
    if media_type == JSON:
        document = current_app.json.loads(text)
        return [(each["sku"], each["name"]) for each in document["data"]]
    raise BadRequest(f"{media_type} is not read here.")
