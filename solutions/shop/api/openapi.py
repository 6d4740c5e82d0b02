"""The contract: `GET /v1/openapi.json`, made of what runs.

Three things know something about a route. Flask knows its path, its method and its function; the models know what comes
in and what goes out; and what neither says, such as which errors there are, stands in one table here, a line for each
route. Nothing is written down twice, so nothing can be right in one place and wrong in the other.

Source: the OpenAPI Specification 3.1.1; JSON Schema 2020-12; pydantic, "JSON Schema".
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

from flask import Blueprint, Flask, Response, current_app, jsonify
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from werkzeug.routing import Rule

from shop import back_office, catalogue, shapes
from shop.api import pagination
from shop.foundations import serialization, validation
from shop.settings import settings_of

Json = dict[str, Any]
Model = type[BaseModel]
Mode = Literal["validation", "serialization"]
References = Mapping[tuple[Model, Mode], Json]

JSON, PROBLEM = "application/json", "application/problem+json"

blueprint = Blueprint("openapi", __name__, url_prefix="/v1")


def init_app(app: Flask) -> None:
    """Add the route of the document."""
    app.register_blueprint(blueprint)


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """This document."""
    known = current_app.extensions
    if "openapi" not in known:  # made now, not in `init_app`: by now every topic has added its routes
        known["openapi"] = document(current_app._get_current_object())  # type: ignore[attr-defined]  # noqa: SLF001 - as Flask's documentation has it
    return jsonify(known["openapi"])


# [start:table]
@dataclass(frozen=True)
class Operation:
    """What neither a route's rule nor its function says.

    Attributes:
        answer: what comes of it, by media type if it is not JSON; None: nothing.
        status: of that answer; several where the body is the same.
        body: what it takes, likewise.
        optional: it does without.
        query: which parameters.
        headers: of the request, by their names in `HEADERS`; with a `!` if it is refused without.
        gives: headers of the answer.
        errors: statuses beyond those that follow from the rest.
    """

    answer: Any = None
    status: tuple[int, ...] = (200,)
    body: Any = None
    optional: bool = False
    query: Model | None = None
    headers: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()


CHANGES = ("If-Match!",)
SHOWN = {"headers": ("If-None-Match",), "gives": ("ETag",)}

OPERATIONS: Mapping[str, Operation] = {
    "GET /v1/openapi.json": Operation({"type": "object"}),
    # what is for sale
    "GET /v1/products": Operation(shapes.Page[shapes.SomeOfProduct], query=pagination.ProductsQuery),
    "POST /v1/products": Operation(
        shapes.ProductDetail, (201,), catalogue.NewProduct, gives=("Location", "ETag"), errors=(409,)
    ),
    "GET /v1/products/{public_id}": Operation(shapes.ProductDetail, errors=(304, 410), **SHOWN),
    "PUT /v1/products/{public_id}": Operation(
        shapes.ProductDetail,
        (200, 201),
        catalogue.NewProduct,
        headers=("If-Match", "If-None-Match"),
        errors=(409, 410, 412, 428),
    ),
    "PATCH /v1/products/{public_id}": Operation(
        shapes.ProductDetail, body=validation.ProductChange, headers=CHANGES, gives=("ETag",), errors=(410, 412, 428)
    ),
    "DELETE /v1/products/{public_id}": Operation(None, (204,), headers=("If-Match",), errors=(410, 412)),
    "POST /v1/products/{public_id}/pictures": Operation(
        shapes.Picture, (201,), {"multipart/form-data": shapes.Form}, gives=("Location",), errors=(413,)
    ),
    "GET /v1/pictures/{name}.{suffix}": Operation({"image/*": None}, errors=(304,), **SHOWN),
    "GET /v1/bestsellers": Operation(shapes.Bestsellers, query=validation.BestsellersQuery),
    "GET /v1/catalogue": Operation({JSON: shapes.Counts[shapes.CatalogueEntry], "text/csv": None}, errors=(406,)),
    "POST /v1/catalogue": Operation(
        shapes.Counts[shapes.Naming],
        body={JSON: shapes.NamingList, "text/csv": None, "application/xml": None},
        errors=(413,),
    ),
    # orders
    "GET /v1/orders": Operation(shapes.Page[shapes.SomeOfOrder], query=pagination.OrdersQuery),
    "GET /v1/customers/{public_id}/orders": Operation(shapes.Page[shapes.SomeOfOrder], query=pagination.HistoryQuery),
    "POST /v1/orders": Operation(shapes.Order, (201,), validation.NewOrder, gives=("Location",), errors=(409,)),
    "GET /v1/orders/{public_id}": Operation(shapes.Order, errors=(304,), **SHOWN),
    "GET /v1/orders/{public_id}/delivery-quotes": Operation(shapes.Many[shapes.Quote]),
    "GET /v1/orders/{public_id}/events": Operation({"text/event-stream": None}),  # if anybody may watch
    "POST /v1/orders/{public_id}/pickup": Operation(shapes.Pickup, (201,), errors=(409,)),
    "POST /v1/orders/{public_id}/payments": Operation(
        shapes.Payment, (201, 202), shapes.Agreed, optional=True, headers=("Idempotency-Key",), errors=(402, 409, 502)
    ),
    # partners
    "GET /v1/exports/orders": Operation(
        {
            JSON: shapes.Counts[shapes.Order],
            serialization.JSON_LINES: None,
            serialization.MESSAGEPACK: None,
        },
        query=shapes.ExportQuery,
        errors=(406,),
    ),
    "POST /v1/price-lists": Operation(
        shapes.UnderstoodPriceList,
        body={JSON: shapes.PriceList, serialization.YAML: shapes.PriceList, serialization.MESSAGEPACK: None},
    ),
    # those who run the shop
    "POST /v1/back-office/categories": Operation(
        shapes.Category, (201,), back_office.NewCategory, gives=("Location",), errors=(403, 409)
    ),
    "GET /v1/back-office/categories/{name}": Operation(shapes.Category),
    "DELETE /v1/back-office/categories/{name}": Operation(None, (204,), errors=(403, 409)),
    "PUT /v1/back-office/products/{public_id}/stock": Operation(
        shapes.Stock, body=back_office.StockLevel, errors=(409,)
    ),
    "POST /v1/back-office/stocktakes": Operation(shapes.Counts[shapes.Counted], (207,), back_office.Stocktake),
    "POST /v1/back-office/vouchers": Operation(
        shapes.Voucher, (201,), getattr(validation, "NewVoucher", {"type": "object"}), errors=(409,)
    ),
    "GET /v1/back-office/orders/{public_id}/charges": Operation(shapes.Many[shapes.Charge], errors=(502, 504)),
}
# [end:table]


# What a rule's converters let through; the other names of Werkzeug's are strings.
CONVERTERS: Mapping[str, Json] = {
    "uuid": {"type": "string", "format": "uuid"},
    "int": {"type": "integer", "minimum": 0},
    "": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
}
COMPONENT = "#/components/schemas/{model}"
PLACEHOLDER = re.compile(r"<(?:(\w+)(?:\(([^)]*)\))?:)?(\w+)>")

HEADERS: Mapping[str, str] = {
    "If-Match": "The state that the caller has seen: the ETag of a GET. The request is for that state alone.",
    "If-None-Match": "The state that the caller has already; or `*`: only if there is none.",
    "Idempotency-Key": "Under which name the request can be sent again, and is done once.",
    "ETag": "Names this state, until something about it is other.",
    "Location": "Where it is from now on.",
    "Retry-After": "After how many seconds to ask again.",
    "WWW-Authenticate": "How to show who asks (RFC 6750).",
}
# [start:added]
A_PRODUCT, A_CUSTOMER = "5f0c7a52-6f3f-4a43-a1c2-0c7b4b8f7d11", "9d2f64be-1b0a-4c39-8f2e-3d5f0a6c7e22"
PERIOD = {"starts_at": "2026-12-01T00:00:00Z", "ends_at": "2026-12-31T00:00:00Z"}

EXAMPLES: Mapping[str, Any] = {
    "NewProduct": {
        "sku": "LAMP-1", "name": "A lamp", "category": "Lighting", "price": {"amount": 5900, "currency": "EUR"},
    },
    "ProductChange": {"price_amount": 4900},
    "NewOrder": {"customer_id": A_CUSTOMER, "items": [{"product_id": A_PRODUCT, "quantity": 2}]},
    "Agreed": {"amount": {"amount": 9800, "currency": "EUR"}},
    "NamingList": {"data": [{"sku": "LAMP-1", "name": "A brighter lamp"}]},
    "PriceList": {
        "version": 2, "partner": "Lamps Ltd", "issued_at": "2026-11-01T00:00:00Z",
        "prices": [{"sku": "LAMP-1", "price": {"amount": 4900, "currency": "EUR"}}],
    },
    "NewCategory": {"name": "Lighting"},
    "StockLevel": {"on_hand": 40},
    "Stocktake": {"counts": [{"product_id": A_PRODUCT, "on_hand": 40}]},
    "NewVoucher": {"code": "SORRY-10", "percent": 10, "note": "It came late", **PERIOD},
}  # fmt: skip

# What functions of the shop check, so that pydantic cannot read it off the model.
RULES: Mapping[str, Json] = {
    "NewVoucher": {
        "oneOf": [
            {"required": ["percent"], "properties": {"percent": {"type": "integer"}, "amount": {"type": "null"}}},
            {
                "required": ["amount"],
                "properties": {"amount": {"$ref": COMPONENT.format(model="Money")}, "percent": {"type": "null"}},
            },
        ],
    },
}
# [end:added]

WRITTEN: Mapping[str, Json] = {
    "Retry-After": {"type": "integer"},
    "Idempotency-Key": {"type": "string", "maxLength": 255, "pattern": "^[!-~]+$"},
}
GIVEN_WITH = {401: ("WWW-Authenticate",), 429: ("Retry-After",)}


# [start:document]
def document(app: Flask) -> Json:
    """The application's routes under /v1, as OpenAPI 3.1."""
    wanted = sorted({model for known in OPERATIONS.values() for model in _models(known)}, key=str)
    references, found = models_json_schema(wanted, ref_template=COMPONENT, schema_generator=WithoutFieldTitles)
    schemas = {name: schema | RULES.get(name, {}) | _example(name) for name, schema in found["$defs"].items()}
    paths: Json = {}
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        if rule.rule.startswith("/v1/"):
            path = PLACEHOLDER.sub(r"{\3}", rule.rule)
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):  # which Flask adds by itself
                known = OPERATIONS.get(f"{method} {path}", Operation())
                paths.setdefault(path, {})[method.lower()] = _operation(app, rule, known, references)
    return {
        "openapi": "3.1.1",
        "info": {"title": "The shop", "version": "1.0.0", "description": "Products, orders, payments."},
        "servers": [{"url": "/"}],  # wherever this document is: what a request says of its host, anybody can say
        "paths": paths,
        "components": {
            "schemas": _without_null_defaults(schemas),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(app: Flask, rule: Rule, known: Operation, references: References) -> Json:
    view, topic = app.view_functions[rule.endpoint], rule.endpoint.partition(".")[0]
    guarded = topic == back_office.blueprint.name
    errors = {503, *known.errors}  # what the database cannot do now, no route can
    errors |= {400, 415, 422} if known.body else set()
    errors |= {422} if known.query else set()
    errors |= {404} if rule.arguments else set()
    errors |= {401, 429} if guarded else set()
    told: Json = {
        "operationId": view.__name__,
        "tags": [rule.rule.split("/")[2]],  # in a generated client, a package for each
        "summary": (view.__doc__ or "").strip().partition("\n")[0],
        "parameters": [*_in_path(rule), *_in_query(app, known.query), *_in_headers(known.headers)],
        "responses": {str(status): _answer(status, known, references) for status in known.status}
        | {str(status): _refusal(status, references) for status in sorted(errors)},
    }
    if known.body:
        required = not known.optional
        told["requestBody"] = {"required": required, "content": _content(known.body, "validation", references)}
    if guarded:
        told["security"] = [{"token": []}]
    return told


def _answer(status: int, known: Operation, references: References) -> Json:
    answer: Json = {"description": HTTPStatus(status).phrase, "headers": _headers(known.gives)}
    if known.answer is not None:
        answer["content"] = _content(known.answer, "serialization", references)
    return answer


def _refusal(status: int, references: References) -> Json:
    refusal: Json = {"description": HTTPStatus(status).phrase, "headers": _headers(GIVEN_WITH.get(status, ()))}
    if status != HTTPStatus.NOT_MODIFIED:
        refusal["content"] = _content({PROBLEM: shapes.Problem}, "serialization", references)
    return refusal


def _content(what: Any, mode: Mode, references: References) -> Json:
    return {
        media_type: {} if one is None else {"schema": one if isinstance(one, dict) else references[one, mode]}
        for media_type, one in _by_media_type(what).items()
    }


# [end:document]


def _example(name: str) -> Json:
    return {"examples": [EXAMPLES[name]]} if name in EXAMPLES else {}


def _by_media_type(what: Any) -> Mapping[str, Any]:
    """A model, or a schema, of what is JSON; or what there is for each media type."""
    return what if isinstance(what, dict) and "type" not in what else {JSON: what}


def _models(known: Operation) -> Iterator[tuple[Model, Mode]]:
    yield shapes.Problem, "serialization"
    both: tuple[tuple[Any, Mode], ...] = ((known.body, "validation"), (known.answer, "serialization"))
    for what, mode in both:
        yield from ((one, mode) for one in _by_media_type(what).values() if isinstance(one, type))


# [start:parameters]
def _in_path(rule: Rule) -> Iterator[Json]:
    for converter, words, name in PLACEHOLDER.findall(rule.rule):
        schema = {"enum": words.split(", ")} if converter == "any" else CONVERTERS.get(converter, CONVERTERS[""])
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(app: Flask, model: Model | None) -> Iterator[Json]:
    if model is None:
        return
    told = _without_null_defaults(model.model_json_schema(schema_generator=WithoutFieldTitles))
    for name, own in told["properties"].items():
        schema = own["anyOf"][0] if "anyOf" in own else own  # without null, which no address can say
        if name == "cursor":
            schema["pattern"] = "^[A-Za-z0-9_-]*$"  # RFC 4648, 5
        if name == "limit" and issubclass(model, pagination.PageQuery):
            schema["maximum"] = settings_of(app).page_limit_max  # what no model knows
        parameter = {"name": name, "in": "query", "required": name in told.get("required", ()), "schema": schema}
        if words := _words(name, model):
            several = {"type": "array", "items": {"enum": words}, "minItems": 1}
            parameter |= {"schema": several, "style": "form", "explode": False}  # with commas between
        yield parameter


def _words(name: str, model: Model) -> list[str]:
    """What a parameter may list."""
    products = issubclass(model, pagination.ProductsQuery)
    if name == "sort":
        columns = pagination.PRODUCT_COLUMNS if products else pagination.ORDER_COLUMNS
        return [sign + column for column in columns for sign in ("", "-")]
    if name == "fields":
        return list(pagination.PRODUCT_FIELDS if products else pagination.ORDER_FIELDS)
    return []


def _in_headers(names: tuple[str, ...]) -> Iterator[Json]:
    for name in names:
        required = name.endswith("!")
        yield {"name": name.rstrip("!"), "in": "header", "required": required, **_header(name.rstrip("!"))}


# [end:parameters]


def _headers(names: tuple[str, ...]) -> Json:
    return {name: {"required": True, **_header(name)} for name in names}


def _header(name: str) -> Json:
    return {"description": HEADERS[name], "schema": WRITTEN.get(name, {"type": "string"})}


class WithoutFieldTitles(GenerateJsonSchema):
    """A field has a name: a title that is the same in capitals tells nobody anything."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - as pydantic calls it
        """Never."""
        return False


def _without_null_defaults(schema: Any) -> Any:
    """Pydantic says `"default": null` of what may be left out; a client could take it for something to send."""
    if isinstance(schema, dict):
        return {
            name: _without_null_defaults(value) for name, value in schema.items() if (name, value) != ("default", None)
        }
    return [_without_null_defaults(each) for each in schema] if isinstance(schema, list) else schema
