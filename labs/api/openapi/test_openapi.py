"""Checks of `api/openapi`.

They ask every route of the shop, rightly and wrongly, and lay each question and each answer beside what the document
says of it. At last Schemathesis asks five hundred questions of its own, made of the document. None of the checks
looks at the file: whatever describes the shop is right.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import jsonschema_rs
import pytest
from sqlalchemy import Connection, text

from shopfloor.checks.say import differs, wrong
from shopfloor.checks.shop import Answer, Request, Shop
from shopfloor.services.fault_plan import Plan as FaultPlan
from shopfloor.services.providers import Provider

Json = dict[str, Any]

ADDRESS = "/v1/openapi.json"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
DECLINED = "00000000-0000-4000-8000-000000000402"
JSON, PROBLEM, CSV, XML, YAML = (
    "application/json", "application/problem+json", "text/csv", "application/xml", "application/yaml",
)  # fmt: skip
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
CLERK, MANAGER = {"Authorization": "Bearer clerk"}, {"Authorization": "Bearer manager"}
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(60)
EXAMPLES = 500


@pytest.fixture(scope="session")
def settings() -> dict[str, str]:
    """A back office that can be entered, and patience with providers on a slow machine: a 503 would be a finding."""
    return {
        "CONNECT_TIMEOUT_SECONDS": "10",
        "READ_TIMEOUT_SECONDS": "20",
        "DEADLINE_SECONDS": "60",
        "BACK_OFFICE_CLERK_TOKEN": "clerk",
        "BACK_OFFICE_MANAGER_TOKEN": "manager",
        "BACK_OFFICE_WRONG_TOKENS": "1000000",
        "RETRY_ATTEMPTS": "1",
        "BREAKER_MINIMUM_CALLS": "1000000",
        "PAGE_LIMIT_MAX": "70",
    }


# --- What there is to ask for -----------------------------------------------------------------------------------------

IDS = {
    "products": "SELECT public_id::text FROM products JOIN stock ON product_id = id WHERE withdrawn_at IS NULL"
    " AND on_hand - reserved BETWEEN 5 AND 90 ORDER BY id LIMIT 40",
    "withdrawn": "SELECT public_id::text FROM products WHERE withdrawn_at IS NOT NULL ORDER BY id LIMIT 3",
    "pending": "SELECT public_id::text FROM orders WHERE status = 'pending' AND total_amount > 0 ORDER BY id LIMIT 40",
    "paid": "SELECT public_id::text FROM orders WHERE status = 'paid' ORDER BY id LIMIT 20",
    "customers": "SELECT public_id::text FROM customers ORDER BY id LIMIT 9",
    "categories": "SELECT name FROM categories ORDER BY id LIMIT 2",
    "skus": "SELECT sku FROM products WHERE withdrawn_at IS NULL ORDER BY id LIMIT 2",
}


@pytest.fixture(scope="session")
def ids(database: Connection) -> dict[str, list[str]]:
    """Names of what there is; the last of the pending orders is one whose card is declined."""
    found = {name: [str(value) for value in database.scalars(text(query))] for name, query in IDS.items()}
    renamed = text("UPDATE orders SET public_id = CAST(:to AS uuid) WHERE public_id = CAST(:id AS uuid)")
    database.execute(renamed, {"id": found["pending"].pop(), "to": DECLINED})
    return found


# --- What the document says -------------------------------------------------------------------------------------------


class UnresolvedError(Exception):
    """A reference that leads nowhere."""


class Contract:
    """An OpenAPI document, as far as checks read it."""

    def __init__(self, document: Json) -> None:
        self.document = document
        servers = document.get("servers") or [{"url": "/"}]
        self.prefix = urlsplit(str(servers[0].get("url", "/"))).path.rstrip("/")
        self._registry = jsonschema_rs.Registry([("urn:document", document)])

    @cached_property
    def operations(self) -> dict[str, "Described"]:
        """By `GET /v1/orders/{}`."""
        found = {}
        for path, own in self.document.get("paths", {}).items():
            item = self.resolved(own)
            for method in METHODS:
                if method in item:
                    found[route(method.upper(), self.prefix + path)] = Described(self, path, method, item)
        return found

    def resolved(self, value: Any) -> Any:
        """What a reference refers to, or the value itself."""
        for _ in range(20):
            if not (isinstance(value, dict) and isinstance(value.get("$ref"), str)):
                return value
            value = self.at(value["$ref"])
        raise UnresolvedError("references that go in a circle")

    def at(self, reference: str) -> Any:
        """What stands there."""
        if not reference.startswith("#/"):
            raise UnresolvedError(reference)
        value: Any = self.document
        for part in reference[2:].split("/"):
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            value = value.get(name) if isinstance(value, dict) else None
            if value is None:
                raise UnresolvedError(reference)
        return value

    def problem(self, schema: Any, value: Any) -> str:
        """What does not fit a schema, in one line; empty: nothing."""
        for error in self._validator(json.dumps(schema, sort_keys=True)).iter_errors(value):
            place = ".".join(str(part) for part in error.instance_path)
            return f"{place or 'it'}: {short(error.message)}"
        return ""

    def members(self, schema: Any) -> dict[str, list[Any]] | None:
        """The members that a schema has names for, each with its schemas; None: any name will do."""
        schema = self.resolved(schema)
        if not isinstance(schema, dict):
            return None
        found: dict[str, list[Any]] = {name: [each] for name, each in schema.get("properties", {}).items()}
        parts = [part for name in ("allOf", "anyOf", "oneOf") for part in schema.get(name, ())]
        free = schema.get("additionalProperties") not in (None, False) or (
            not parts and not found and schema.get("type") in (None, "object")
        )
        for part in parts:
            more = self.members(part)
            if more is None:
                free = True
            for name, schemas in (more or {}).items():
                found.setdefault(name, []).extend(schemas)
        return None if free else found

    def elements(self, schema: Any) -> Any:
        """The schema of a list's entries."""
        schema = self.resolved(schema)
        if not isinstance(schema, dict):
            return {}
        parts = [part for name in ("allOf", "anyOf", "oneOf") for part in schema.get(name, ())]
        return next((found for part in parts if (found := self.elements(part))), {}) or schema.get("items", {})

    @cache  # noqa: B019 - one document for all checks
    def _validator(self, schema: str) -> Any:
        return jsonschema_rs.Draft202012Validator(
            rebased(json.loads(schema)), registry=self._registry, validate_formats=True
        )


def rebased(schema: Any) -> Any:
    """A schema that stands in the document, for use outside of it."""
    if isinstance(schema, dict):
        return {
            name: f"urn:document{value}" if name == "$ref" and isinstance(value, str) else rebased(value)
            for name, value in schema.items()
        }
    return [rebased(each) for each in schema] if isinstance(schema, list) else schema


def route(method: str, path: str) -> str:
    """`GET /v1/orders/{}`, whatever the parameter is called."""
    return f"{method} {re.sub(r'{[^{}]*}([.]{[^{}]*})?', '{}', path)}"


@dataclass
class Described:
    """What the document says of one operation."""

    contract: Contract
    path: str
    method: str
    item: Json

    @property
    def told(self) -> Json:
        """The operation object."""
        return dict(self.item[self.method])

    @cached_property
    def parameters(self) -> dict[tuple[str, str], Json]:
        """By where they stand and their names; those of headers in small letters."""
        both = [*self.item.get("parameters", ()), *self.told.get("parameters", ())]
        found = [self.contract.resolved(each) for each in both]
        return {(each["in"], each["name"].lower() if each["in"] == "header" else each["name"]): each for each in found}

    @cached_property
    def responses(self) -> dict[str, Json]:
        """By their statuses."""
        return {str(status): self.contract.resolved(each) for status, each in self.told.get("responses", {}).items()}

    def security(self) -> list[Json]:
        """What must be shown: one of these."""
        return list(self.told.get("security", self.contract.document.get("security", [])))

    def content(self, status: int, media_type: str) -> Json | None:
        """What is said of a body; None: that there is none like it."""
        return by_media_type(self.responses.get(str(status), {}).get("content", {}), media_type)

    def refuses(self, request: Request) -> str:
        """Why a request is not as the document wants it; empty: it is."""
        address = urlsplit(request.address)
        given: dict[tuple[str, str], str] = {("query", name): value for name, value in parse_qsl(address.query, True)}
        given |= {("header", name.lower()): value for name, value in request.headers.items()}
        given |= self._in_path(unquote(address.path))
        for (place, name), parameter in self.parameters.items():
            if (place, name) not in given:
                if parameter.get("required"):
                    return f"the parameter {name} is missing in the {place}"
            elif told := self.refuses_value(parameter, given[place, name]):
                return f"the parameter {name}: {told}"
        return self._refuses_body(request)

    def refuses_value(self, parameter: Json, value: str) -> str:
        """Why a parameter cannot be this; empty: it can."""
        schema = self.contract.resolved(parameter.get("schema", {}))
        values = [decoded(value, kind) for kind in kinds(self.contract, schema)] or [value]
        if "array" in kinds(self.contract, schema):
            inner = self.contract.elements(schema)
            parts = value.split(",") if parameter.get("explode") is False else [value]
            values = [[decoded(part, kind) for part in parts] for kind in kinds(self.contract, inner) or ["string"]]
        problems = [self.contract.problem(schema, each) for each in values]
        return "" if "" in problems else problems[0]

    def _in_path(self, path: str) -> dict[tuple[str, str], str]:
        names = re.findall(r"{([^{}]*)}", self.path)
        pattern = re.sub(r"\\{[^{}]*\\}", "([^/]+)", re.escape(self.contract.prefix + self.path))
        found = re.fullmatch(pattern, path)
        return {("path", name): value for name, value in zip(names, found.groups() if found else (), strict=False)}

    def _refuses_body(self, request: Request) -> str:
        body = self.contract.resolved(self.told.get("requestBody", {}))
        if request.json is None and request.data is None:
            return "the body is missing" if body.get("required") else ""
        if not body:
            return "there should be no body"
        media_type = JSON if request.json is not None else request.headers["Content-Type"].partition(";")[0]
        content = by_media_type(body.get("content", {}), media_type)
        if content is None:
            return f"a body is not {media_type}"
        if request.json is None or "schema" not in content:
            return ""
        return self.contract.problem(content["schema"], request.json)


def by_media_type(content: Json, media_type: str) -> Json | None:
    """What fits best, as the specification says: the more specific key."""
    kind = media_type.partition("/")[0]
    names = {name.partition(";")[0].strip().lower(): value for name, value in content.items()}
    return next((names[name] for name in (media_type, f"{kind}/*", "*/*") if name in names), None)


def kinds(contract: Contract, schema: Any) -> list[str]:
    """The types that a schema allows, as far as it says so."""
    schema = contract.resolved(schema)
    if not isinstance(schema, dict):
        return []
    own = schema.get("type", [])
    found = [own] if isinstance(own, str) else list(own)
    for name in ("anyOf", "oneOf", "allOf"):
        found += [kind for part in schema.get(name, ()) for kind in kinds(contract, part)]
    return [kind for kind in found if kind != "null"]


def decoded(value: str, kind: str) -> Any:
    """A word as what it is to be, if it can be that."""
    if kind in ("integer", "number") and re.fullmatch(r"-?\d+(\.\d+)?", value):
        return json.loads(value) if not re.fullmatch(r"-?0\d+", value) else value
    return {"true": True, "false": False}.get(value, value) if kind == "boolean" else value


def short(text: str, most: int = 160) -> str:
    """So much of it as fits in a line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."


@pytest.fixture(scope="session")
def fetched(shop: Shop) -> Answer:
    """The document as it is served to whoever asks first, here somebody who lies about its host."""
    return shop.ask(Request("GET", ADDRESS, headers={"Host": "shop.attacker.example"}))


@pytest.fixture(scope="session")
def contract(fetched: Answer) -> Contract:
    """The document as it is understood."""
    if not isinstance(fetched.body, dict):
        differs(
            did=fetched.did,
            got=f"{fetched.status}: {short(str(fetched.body))}",
            expected="200 and an OpenAPI document",
            matters="Whoever generates a client, a test or a page from it has nothing to begin with.",
        )
    return Contract(fetched.body)


# --- Questions, and what the shop answers -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A question, what its operation is, and what was answered.

    Attributes:
        route: such as `GET /v1/orders/{}`.
        fits: whether the request is one that the document should allow; None: no document can tell.
    """

    route: str
    request: Request
    fits: bool | None
    answer: Answer

    @property
    def words(self) -> str:
        """The request, with the beginning of its body."""
        sent = "" if self.request.json is None else f" with {short(json.dumps(self.request.json), 90)}"
        return f"{self.request}{sent}"

    @property
    def media_type(self) -> str:
        """Of the answer."""
        return self.answer.headers.get("content-type", "").partition(";")[0]


@dataclass
class Caller:
    """Asks, and remembers."""

    shop: Shop
    calls: list[Call] = field(default_factory=list)

    def ask(
        self, method: str, address: str, fits: bool | None = True, json: Any = None, data: Any = None, **more: Any
    ) -> Answer:
        """Ask; ids and names in the address stand between braces, as in `/v1/orders/{7}`."""
        request = Request(method, re.sub(r"[{}]", "", address), json, more.get("headers", {}), data)
        answer = self.shop.ask(request)
        self.calls.append(Call(route(method, address.partition("?")[0]), request, fits, answer))
        return answer


@pytest.fixture(scope="session")
def calls(shop: Shop, ids: dict[str, list[str]], providers: dict[str, Provider]) -> list[Call]:
    """Each route asked rightly and wrongly, and what came of it."""
    caller = Caller(shop)
    for ask in (ask_for_products, ask_for_orders, ask_as_a_partner, ask_in_the_back_office):
        ask(caller, ids, providers)
    return caller.calls


def ask_for_products(caller: Caller, ids: Mapping[str, Sequence[str]], _: object) -> None:
    """What is for sale: read, changed, and listed."""
    ask = caller.ask
    cursor = ask("GET", "/v1/products?limit=2").body["meta"]["next"]
    ask("GET", f"/v1/products?limit=2&cursor={cursor}")
    ask("GET", "/v1/products?limit=70&sort=-price,name&tag=gift")
    ask("GET", "/v1/products?fields=id,price&category=Toys")
    for query in ("limit=0", "limit=71", "limit=few", "sort=weight", "fields=stock", "offset=-1"):
        ask("GET", f"/v1/products?{query}", False)
    new = {"sku": "CONTRACT-1", "name": "A lamp", "category": ids["categories"][0]}
    new["price"] = {"amount": 1999, "currency": "EUR"}
    made = ask("POST", "/v1/products", json=new)
    ask("POST", "/v1/products", json=new | {"sku": "CONTRACT-2", "attributes": {"colour": "red", "tags": ["new"]}})
    ask("POST", "/v1/products", json=new)  # there is one
    ask("POST", "/v1/products", json=new | {"sku": "CONTRACT-3", "category": "None"})
    for wrong_one in (
        new | {"weight": 7}, {"sku": "X"}, new | {"sku": "a b"}, new | {"name": ""}, new | {"name": 7},
        new | {"price": {"amount": -1, "currency": "EUR"}}, new | {"price": {"amount": 1.5, "currency": "EUR"}},
        new | {"price": 1999}, new | {"price": {"amount": 1, "currency": "euro"}}, [new],
    ):  # fmt: skip
        ask("POST", "/v1/products", False, json=wrong_one)
    ask("POST", "/v1/products", None, data=b"{", headers={"Content-Type": JSON})
    ask("POST", "/v1/products", None, data=b"sku", headers={"Content-Type": "text/plain"})

    here = f"/v1/products/{{{made.body['id']}}}"
    tag = ask("GET", here).headers["etag"]
    ask("GET", here, headers={"If-None-Match": tag})
    ask("GET", f"/v1/products/{{{UNKNOWN}}}")
    ask("GET", f"/v1/products/{{{ids['withdrawn'][0]}}}")
    ask("PUT", here, json=new, headers={"If-Match": tag})
    ask("PUT", here, json=new, headers={"If-Match": tag})  # it is other by now
    ask("PUT", here, None, json=new)
    ask("PUT", here, False, json={"name": "A lamp"}, headers={"If-Match": "*"})
    ask("PATCH", here, json={"name": "A light"}, headers={"If-Match": "*"})
    ask("PATCH", here, json={"price_amount": 5}, headers={"If-Match": '"x"'})
    ask("PATCH", here, False, json={"name": "A light"})
    for wrong_one in ({"price_amount": "5"}, {"price": 5}, {"name": ""}):
        ask("PATCH", here, False, json=wrong_one, headers={"If-Match": "*"})

    ask_for_pictures(caller, here)
    ask("DELETE", here, headers={"If-Match": "*"})
    ask("DELETE", here)
    ask("PUT", here, None, json=new, headers={"If-None-Match": "*"})  # for sale again

    ask("GET", "/v1/bestsellers?days=90&limit=3")
    ask("GET", "/v1/bestsellers?days=0", False)
    ask_for_the_catalogue(caller, ids["skus"][0])


def ask_for_pictures(caller: Caller, here: str) -> None:
    """Of the product that is there."""
    ask = caller.ask
    form = "multipart/form-data; boundary=b"
    part = b'--b\r\nContent-Disposition: form-data; name="picture"; filename="p"\r\n\r\n%s\r\n--b--\r\n'
    kept = ask("POST", f"{here}/pictures", data=part % PICTURE, headers={"Content-Type": form})
    ask("POST", f"{here}/pictures", None, data=part % b"no picture at all", headers={"Content-Type": form})
    ask("POST", f"{here}/pictures", False, data=PICTURE, headers={"Content-Type": "image/png"})
    name, _, suffix = kept.body["url"].rpartition("/")[2].partition(".")
    ask("GET", f"/v1/pictures/{{{name}}}.{{{suffix}}}")
    ask("GET", f"/v1/pictures/{{{UNKNOWN}}}.{{png}}")


def ask_for_the_catalogue(caller: Caller, sku: str) -> None:
    """In its formats."""
    ask = caller.ask
    ask("GET", "/v1/catalogue")
    ask("GET", "/v1/catalogue", headers={"Accept": CSV})
    ask("GET", "/v1/catalogue", None, headers={"Accept": "image/png"})
    ask("POST", "/v1/catalogue", json={"data": [{"sku": sku, "name": "One"}]})
    ask("POST", "/v1/catalogue", False, json={"data": [{"sku": sku}]})
    ask("POST", "/v1/catalogue", data=f"sku,name\r\n{sku},Two\r\n".encode(), headers={"Content-Type": CSV})
    ask("POST", "/v1/catalogue", data=f'<l><p sku="{sku}">Three</p></l>'.encode(), headers={"Content-Type": XML})
    ask("POST", "/v1/catalogue", False, data=b"x", headers={"Content-Type": "image/png"})
    ask("POST", "/v1/catalogue", None, data=b"x" * 1_000_001, headers={"Content-Type": CSV})


def ask_for_orders(caller: Caller, ids: Mapping[str, Sequence[str]], providers: Mapping[str, Provider]) -> None:
    """Orders: listed, placed, paid and sent."""
    ask, customer = caller.ask, ids["customers"][0]
    for base in ("/v1/orders", f"/v1/customers/{{{customer}}}/orders"):
        cursor = ask("GET", f"{base}?limit=1").body["meta"]["next"]
        ask("GET", f"{base}?limit=1&cursor={cursor}")
        ask("GET", f"{base}?status=delivered&sort=total_amount,-placed_at&fields=id,total,customer")
        ask("GET", f"{base}?placed_after=2026-01-01T00:00:00Z&placed_before=2026-12-01T00:00:00%2B01:00")
        for query in ("status=lost", "placed_after=2026", "placed_after=yesterday", "sort=size", "limit=71"):
            ask("GET", f"{base}?{query}", False)
    ask("GET", f"/v1/orders?customer={customer}")
    ask("GET", "/v1/orders?customer=7", False)
    ask("GET", f"/v1/customers/{{{UNKNOWN}}}/orders")

    line = {"product_id": ids["products"][0], "quantity": 1}
    basket = {"customer_id": customer, "items": [line]}
    placed = ask("POST", "/v1/orders", json=basket)
    ask("POST", "/v1/orders", json=basket | {"items": [line | {"quantity": 100}]})
    ask("POST", "/v1/orders", json=basket | {"customer_id": UNKNOWN})
    for wrong_one in (
        {"items": [line]}, basket | {"items": []}, basket | {"items": [line | {"quantity": 0}]},
        basket | {"items": [line | {"quantity": 101}]}, basket | {"items": [{"product_id": line["product_id"]}]},
        basket | {"items": [line | {"product_id": "7"}]}, basket | {"coupon": "SPRING"}, basket | {"items": line},
    ):  # fmt: skip
        ask("POST", "/v1/orders", False, json=wrong_one)

    here = f"/v1/orders/{{{placed.body['id']}}}"
    tag = ask("GET", here).headers["etag"]
    ask("GET", here, headers={"If-None-Match": tag})
    ask("GET", f"/v1/orders/{{{UNKNOWN}}}")
    total = placed.body["total"]
    for wrong_one in ([], {"amout": total}, {"amount": total["amount"]}):
        ask("POST", f"{here}/payments", False, json=wrong_one)
    ask("POST", f"{here}/payments", json={"amount": total | {"amount": total["amount"] + 1}})
    ask("POST", f"{here}/payments", json={"amount": total}, headers={"Idempotency-Key": "contract-1"})
    ask("POST", f"{here}/payments")
    ask("POST", f"/v1/orders/{{{UNKNOWN}}}/payments")
    ask("POST", f"/v1/orders/{{{DECLINED}}}/payments")
    providers["payments"].plan = FaultPlan(script=("error 500",))
    ask("POST", f"/v1/orders/{{{ids['pending'][-1]}}}/payments")

    ask("GET", f"{here}/delivery-quotes")
    ask("GET", f"/v1/orders/{{{UNKNOWN}}}/delivery-quotes")
    providers["delivery"].plan = FaultPlan(script=("error 500",) * 2)
    ask("GET", f"{here}/delivery-quotes")
    providers["delivery"].plan = FaultPlan()
    ask("POST", f"{here}/pickup")
    ask("POST", f"{here}/pickup")


def ask_as_a_partner(caller: Caller, ids: Mapping[str, Sequence[str]], _: object) -> None:
    """By machine, in several formats."""
    ask = caller.ask
    ask("GET", "/v1/exports/orders?limit=3")
    for accepted, fits in (("application/x-ndjson", True), ("application/vnd.msgpack", True), ("image/png", None)):
        ask("GET", "/v1/exports/orders?limit=3", fits, headers={"Accept": accepted})
    ask("GET", "/v1/exports/orders?limit=1001", False)
    listed = {"partner": "P", "issued_at": "2026-11-01T00:00:00Z"}
    first = listed | {"prices": [{"sku": ids["skus"][0], "price": 19.99}]}
    second = listed | {"version": 2, "reference": "7", "prices": []}
    second["prices"] = [{"sku": ids["skus"][0], "price": {"amount": 1999, "currency": "EUR"}}]
    ask("POST", "/v1/price-lists", json=first)
    ask("POST", "/v1/price-lists", json=second)
    ask("POST", "/v1/price-lists", data=json.dumps(second).encode(), headers={"Content-Type": YAML})
    ask("POST", "/v1/price-lists", json=second | {"prices": [{**second["prices"][0], "sku": "NONE"}]})
    for wrong_one in (listed, second | {"issued_at": "yesterday"}, second | {"version": 3}, [second]):
        ask("POST", "/v1/price-lists", False, json=wrong_one)
    ask("POST", "/v1/price-lists", False, data=b"x", headers={"Content-Type": "text/plain"})
    ask("POST", "/v1/price-lists", None, data=b"{", headers={"Content-Type": JSON})


def ask_in_the_back_office(caller: Caller, ids: Mapping[str, Sequence[str]], providers: Mapping[str, Provider]) -> None:
    """With a token, and without."""
    ask, base, product = caller.ask, "/v1/back-office", ids["products"][1]
    manager = {"headers": MANAGER}
    ask("POST", f"{base}/categories", json={"name": "Contracts"}, **manager)
    ask("POST", f"{base}/categories", json={"name": "Contracts"}, **manager)
    ask("POST", f"{base}/categories", json={"name": "More"}, headers=CLERK)
    ask("POST", f"{base}/categories", None, json={"name": "More"})
    for wrong_one in ({"name": "a/b"}, {"name": ""}, {}, {"name": "More", "shelf": 7}):
        ask("POST", f"{base}/categories", False, json=wrong_one, **manager)
    for name in ("Contracts", "None"):
        ask("GET", f"{base}/categories/{{{name}}}", **manager)
    for name in ("Contracts", "Contracts", ids["categories"][0]):
        ask("DELETE", f"{base}/categories/{{{name}}}", **manager)
    ask("DELETE", f"{base}/categories/{{Toys}}", headers=CLERK)

    for public_id, on_hand in ((product, 900), (UNKNOWN, 900), (product, 0)):
        ask("PUT", f"{base}/products/{{{public_id}}}/stock", json={"on_hand": on_hand}, **manager)
    ask("PUT", f"{base}/products/{{{product}}}/stock", False, json={"on_hand": -1}, **manager)
    counts = [{"product_id": each, "on_hand": 900} for each in (product, UNKNOWN)]
    ask("POST", f"{base}/stocktakes", json={"counts": counts}, **manager)
    for wrong_one in ({"counts": []}, {"counts": [{"product_id": "7", "on_hand": 1}]}):
        ask("POST", f"{base}/stocktakes", False, json=wrong_one, **manager)

    voucher = {"code": "CONTRACT-5", "starts_at": "2027-01-01T00:00:00Z", "ends_at": "2027-02-01T00:00:00Z"}
    amount = {"amount": {"amount": 500, "currency": "EUR"}}
    ask("POST", f"{base}/vouchers", json=voucher | {"percent": 5, "email": None}, **manager)
    ask("POST", f"{base}/vouchers", json=voucher | {"code": "CONTRACT-6", "note": "Sorry"} | amount, **manager)
    ask("POST", f"{base}/vouchers", json=voucher | {"percent": 5}, **manager)
    for wrong_one in (voucher, voucher | {"percent": 5} | amount, voucher | {"percent": 0}, {"percent": 5}):
        ask("POST", f"{base}/vouchers", False, json=wrong_one, **manager)

    ask("GET", f"{base}/orders/{{{ids['pending'][0]}}}/charges", **manager)
    ask("GET", f"{base}/orders/{{{UNKNOWN}}}/charges", **manager)
    paid = next(
        call for call in caller.calls if call.route == "POST /v1/orders/{}/payments" and call.answer.status == 201
    )
    ask("GET", f"{base}/orders/{{{paid.request.address.split('/')[3]}}}/charges", **manager)
    providers["payments"].plan = FaultPlan(script=("error 500",))
    ask("GET", f"{base}/orders/{{{ids['pending'][0]}}}/charges", **manager)
    providers["payments"].plan = FaultPlan()


# --- The document itself ----------------------------------------------------------------------------------------------


def test_it_is_openapi(contract: Contract, fetched: Answer) -> None:
    """The document is OpenAPI 3.1, and its references lead somewhere."""
    version = contract.document.get("openapi")
    if not str(version).startswith("3.1."):
        differs(
            did=fetched.did,
            got=f"openapi: {version}",
            expected="3.1.0 or 3.1.1, whose schemas are JSON Schema",
            matters="A tool reads a document by its version: in 3.0, null and examples are written otherwise.",
        )
    for reference in references(contract.document):
        try:
            contract.resolved({"$ref": reference})
        except UnresolvedError as lost:
            told = {"did": f"looked up each $ref of {ADDRESS}", "got": f"nothing at {lost}"}
            if str(lost).startswith("#/$defs/"):
                wrong("defs_left_inside", **told, expected="a reference that leads somewhere in the document")
            differs(**told, expected="something", matters="Generators, tests and pages give up at the first of these.")
    if problem := specified().problem({"$ref": "#"}, contract.document):
        differs(
            did=f"held {ADDRESS} against the schema of OpenAPI 3.1",
            got=problem,
            expected="a document as the specification has it",
            matters="What a tool does with another is its own affair: most leave out what they do not understand.",
        )
    for name, schema in contract.document.get("components", {}).get("schemas", {}).items():
        if not jsonschema_rs.meta.is_valid(schema):
            differs(
                did=f"held components.schemas.{name} against JSON Schema 2020-12",
                got="no schema",
                expected="one",
                matters="A validator that meets it raises an error, or checks nothing.",
            )


def references(value: Any) -> Iterator[str]:
    """All that are in a document."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


@cache
def specified() -> Contract:
    """The schema of OpenAPI 3.1, as the package that validates it has it; importing that would take seconds."""
    package = find_spec("openapi_spec_validator")
    assert package is not None
    assert package.origin is not None
    return Contract(json.loads(Path(package.origin).with_name("resources").joinpath(SPECIFICATION).read_text()))


SPECIFICATION = "schemas/v3.1/schema.json"


def test_every_route_and_no_other(contract: Contract, calls: list[Call], shop: Shop) -> None:
    """Each route of the shop under /v1 is described, and nothing that is none."""
    described, there = set(contract.operations), {call.route for call in calls}
    flasks = [path for path in contract.document.get("paths", {}) if re.search(r"<|{\w+[:(]", path)]
    if flasks:
        wrong(
            "flask_paths",
            did=f"read the paths of {ADDRESS}",
            got=flasks[0],
            expected=re.sub(r"[<{](?:\w+(?:\(.*?\))?:)?(\w+)[>}]", r"{\1}", flasks[0]),
        )
    others = sorted(each for each in described if each.startswith(("HEAD ", "OPTIONS ")))
    if others:
        wrong(
            "head_and_options",
            did=f"read the operations of {ADDRESS}",
            got=f"{others[0]} and {len(others) - 1} more like it",
            expected="what the shop's own functions do",
        )
    missing = sorted(there - described)
    late = {each for each in there if re.search("back-office|exports|price-lists", each)}
    told = {"did": f"compared the operations of {ADDRESS} with the shop's routes", "got": listed(missing, "missing")}
    if missing and set(missing) == late:
        wrong("made_too_early", **told, expected=f"all {len(there)} routes under /v1")
    if missing:
        differs(
            **told,
            expected=f"all {len(there)} routes under /v1",
            matters="What is not in the document nobody tests, and a generated client cannot call it.",
        )
    for extra in sorted(described - there - {f"GET {ADDRESS}"}):
        method, _, path = extra.partition(" ")
        allowed = shop.ask(Request("OPTIONS", path.replace("{}", UNKNOWN))).headers.get("allow", "")
        if method not in allowed:
            differs(
                did=f"looked for the route of {extra}",
                got="There is none.",
                expected="nothing that the shop does not do",
                matters="A client has a function that can only fail, and finds out when it is called.",
            )


def listed(names: Sequence[str], what: str) -> str:
    """The first of them, and how many more there are."""
    return f"{what}: {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def test_each_operation_has_a_name_of_its_own(contract: Contract) -> None:
    """Each operation has an operationId, and no two have the same."""
    seen: dict[str, str] = {}
    for name, described in sorted(contract.operations.items()):
        own = described.told.get("operationId", "")
        if not own or own in seen:
            differs(
                did=f"read the operationId of {name}",
                got=f"{own}, which {seen[own]} has as well" if own else "none",
                expected="one, and no other operation's",
                matters="It is the name of the function in a generated client: without one it is made up, and changes.",
            )
        seen[own] = name


def test_where_the_shop_is(contract: Contract, fetched: Answer) -> None:
    """Whoever reads the document finds the shop, and nobody else."""
    if "attacker.example" in json.dumps(contract.document):
        wrong(
            "servers_from_the_request",
            did=f"{fetched.did} with Host: shop.attacker.example",
            got=f"servers: {contract.document.get('servers')}",
            expected="servers that do not depend on who asks, such as /",
        )
    for server in contract.document.get("servers", []):
        if urlsplit(server["url"]).netloc:
            differs(
                did=f"read the servers of {ADDRESS}",
                got=server["url"],
                expected="an address relative to the document's, such as /",
                matters="The same file runs in development, in tests and in production. One of them is that server.",
            )


def test_who_must_show_a_token(contract: Contract) -> None:
    """The back office is for those with a token, the rest is for everyone, and the document says so."""
    schemes = contract.document.get("components", {}).get("securitySchemes", {})
    for name, described in sorted(contract.operations.items()):
        needed = [each for each in described.security() if each]
        for_all = not needed or {} in described.security()
        told = {"did": f"read who may call {name}", "got": f"security: {described.security()}"}
        if "back-office" in name:
            kinds_of = [contract.resolved(schemes.get(each, {})) for one in needed for each in one]
            if for_all or not all(
                k.get("type") == "http" and k.get("scheme", "").lower() == "bearer" for k in kinds_of
            ):
                differs(
                    **told,
                    expected="a scheme of components.securitySchemes with type http and scheme bearer",
                    matters="A generated client has no way to send the token, and a scanner takes the route for open.",
                )
        elif not for_all:
            wrong("a_token_for_everything", **told, expected="none: the shop asks nobody for a token here")


# --- What the shop answers, beside what the document says -------------------------------------------------------------


def test_what_may_be_answered(contract: Contract, calls: list[Call]) -> None:
    """Each status that the shop answers with is described for its route."""
    for call in calls:
        described, status = contract.operations[call.route], call.answer.status
        if str(status) in described.responses:
            continue
        told = {"did": call.words, "got": f"{status}; described are {', '.join(described.responses) or 'none'}"}
        if {"default", f"{status // 100}XX"} & described.responses.keys():
            wrong("default_for_the_rest", **told, expected=f"{status} by itself, with what comes with it")
        failing = {each for one in contract.operations.values() for each in one.responses if each[0] in "45"}
        if status >= 400 and not failing:
            wrong("only_what_goes_well", **told, expected=f"{status} among them")
        differs(
            **told,
            expected=f"{status} among them",
            matters="A generated client has no case for it: it raises an error of its own, or returns nothing.",
        )


def test_as_what_it_is_answered(contract: Contract, calls: list[Call]) -> None:
    """Each answer has a media type that is described."""
    for call in calls:
        described, status = contract.operations[call.route], call.answer.status
        there = described.responses[str(status)].get("content", {})
        told = {"did": call.words, "got": f"{status} as {call.media_type or 'nothing'}; described: {', '.join(there)}"}
        if not call.answer.content and there:
            differs(**told, expected="no content", matters="A client waits for a body, and fails to read what is none.")
        if call.answer.content and described.content(status, call.media_type) is None:
            if call.media_type == PROBLEM and JSON in there:
                wrong("errors_as_plain_json", **told, expected=PROBLEM)
            differs(
                **told,
                expected=call.media_type,
                matters="A client chooses its parser by this, and takes what it does not know for an error.",
            )


def test_answers_are_as_described(contract: Contract, calls: list[Call]) -> None:
    """Each answer fits the schema that is given for it."""
    for call in calls:
        problem = contract.problem(_schema_of(contract, call), call.answer.body)
        if not problem:
            continue
        told = {"did": call.words, "got": f"{call.answer.status}: {problem}"}
        if "null is not" in problem and '"nullable"' in json.dumps(contract.document):
            wrong("nullable_as_it_was", **told, expected='null among the types: "type": ["string", "null"]')
        differs(
            **told,
            expected="an answer that fits the schema",
            matters="A generated client raises an error at an answer that is right, or reads something else out of it.",
        )


def _schema_of(contract: Contract, call: Call) -> Any:
    """What is said of an answer's body, if it is JSON; else a schema that everything fits."""
    content = contract.operations[call.route].content(call.answer.status, call.media_type)
    return (content or {}).get("schema", {}) if call.media_type.endswith("json") and call.answer.content else {}


def test_nothing_of_an_answer_is_left_out(contract: Contract, calls: list[Call]) -> None:
    """Each member of an answer is described."""
    for call in calls:
        if call.media_type in (JSON, PROBLEM) and call.route != f"GET {ADDRESS}":
            for place in undescribed(contract, _schema_of(contract, call), call.answer.body, ()):
                differs(
                    did=call.words,
                    got=f"{call.answer.status} with {'.'.join(place)}, of which the document knows nothing",
                    expected="every member that there is",
                    matters="The answer still fits, so no test notices: a schema allows what it is silent on.",
                )


def undescribed(contract: Contract, schema: Any, value: Any, place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Where a value has members that its schema has no name for."""
    if isinstance(value, list) and value:
        yield from undescribed(contract, contract.elements(schema), value[0], (*place, "0"))
    if isinstance(value, dict):
        members = contract.members(schema)
        free = members is None and place and place[-1] == "attributes"
        for name in () if free else value:
            schemas = (members or {}).get(name)
            if schemas is None:
                yield (*place, name)
            else:
                found = [list(undescribed(contract, each, value[name], (*place, name))) for each in schemas]
                yield from min(found, key=len)


OPTIONAL = {"offset", "stock", "detail", "errors"}
"""Members that are not always there."""

NULLABLE = {"reference", "email", "percent", "amount", "redeemed_at", "prev", "next"}
"""Members that can be null."""

SPARSE = ("GET /v1/products", "GET /v1/orders", "GET /v1/customers/{}/orders")
"""Lists whose entries have what the parameter `fields` names."""

WORDS = {"status": "lost", "speed": "slow", "issued_by": "nobody"}


def test_a_schema_that_says_something(contract: Contract, calls: list[Call]) -> None:
    """What the shop never answers does not fit: members are missing, or are something else."""
    seen: set[tuple[str, int]] = set()
    for call in calls:
        if call.media_type not in (JSON, PROBLEM) or (call.route, call.answer.status) in seen:
            continue
        seen.add((call.route, call.answer.status))
        schema = _schema_of(contract, call)
        for what, other in spoiled(call.answer.body, call.route in SPARSE, ()):
            if contract.problem(schema, other):
                continue
            told = {"did": f"spoiled the answer to {call.words}: {what}", "got": "It still fits the schema."}
            if what.endswith("is missing"):
                wrong("nothing_is_required", **told, expected="a schema that does not take it")
            differs(
                **told,
                expected="a schema that does not take it",
                matters="What is not said cannot be relied on, and no test of the contract notices when it changes.",
            )


def spoiled(value: Any, sparse: bool, place: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """An answer with one thing wrong, each time another, and what that is."""
    if isinstance(value, list) and value:
        for what, other in spoiled(value[0], sparse, (*place, "0")):
            yield what, [other, *value[1:]]
    if not isinstance(value, dict):
        return
    in_list = sparse and place == ("data", "0")
    for name, own in value.items():
        here, where = (*place, name), ".".join((*place, name))
        if name not in OPTIONAL and not in_list:
            yield f"{where} is missing", {each: inner for each, inner in value.items() if each != name}
        yield from ((f"{where} is {other!r}", value | {name: other}) for other in not_so(name, own))
        if name != "attributes":
            yield from ((what, value | {name: other}) for what, other in spoiled(own, sparse, here))


def not_so(name: str, own: Any) -> Iterator[Any]:
    """What a member is never."""
    if own is not None:
        yield other_type(own)
    if name not in NULLABLE:
        yield None
    if isinstance(own, int) and not isinstance(own, bool):
        yield own + 0.5
    if isinstance(own, str):
        yield WORDS.get(name, 7)
        yield "yesterday" if name.endswith("_at") else 7
    if name == "id" and len(str(own)) == len(UNKNOWN):
        yield "7"


def other_type(value: Any) -> Any:
    """Something of another type."""
    return {str: 7, bool: "yes", int: "many", list: {}, dict: []}.get(type(value), "x")


HEADERS = ("etag", "location", "www-authenticate", "retry-after")


def test_headers_of_answers(contract: Contract, calls: list[Call]) -> None:
    """The headers that a client acts on are described."""
    for call in calls:
        response = contract.operations[call.route].responses[str(call.answer.status)]
        described = {name.lower() for name in response.get("headers", {})}
        for name in HEADERS:
            if name in call.answer.headers and name not in described and call.answer.status not in (304, 503):
                wrong(
                    "headers_forgotten",
                    did=call.words,
                    got=f"{call.answer.status} with {name}; described: {', '.join(sorted(described)) or 'none'}",
                    expected=f"{name} among the headers of {call.answer.status}",
                )


# --- What the shop is asked, beside what the document says ------------------------------------------------------------


def test_parameters(contract: Contract, calls: list[Call]) -> None:
    """The document allows the parameters that the shop takes, and no others."""
    for call in calls:
        if call.request.json is None and call.request.data is None:
            compare_parameters(contract.operations[call.route], call)


def compare_parameters(described: Described, call: Call) -> None:
    """Of a request without a body."""
    named, told = dict(parse_qsl(urlsplit(call.request.address).query, True)), {"did": call.words}
    for name in named:
        if ("query", name) not in described.parameters:
            differs(
                **told,
                got=f"{call.answer.status}; described: {', '.join(name for _, name in described.parameters)}",
                expected=f"{name} among the parameters",
                matters="A generated client cannot ask for it.",
            )
    refused, got = described.refuses(call.request), f"{call.answer.status}, and the document allows it"
    if call.fits and refused:
        differs(
            **told,
            got=f"{call.answer.status}; in the document, {refused}",
            expected="a document that allows what the shop takes",
            matters="A client that keeps to the document cannot ask what the shop would answer.",
        )
    if call.fits is False and not refused and named.get("limit") == "71":
        largest = "the largest page as the maximum: PAGE_LIMIT_MAX is 70 here"
        wrong("limit_without_a_maximum", **told, got=got, expected=largest)
    if call.fits is False and not refused:
        wrong("everything_is_a_string", **told, got=got, expected="a schema that says what can be there")


def test_ids(contract: Contract) -> None:
    """What stands in a path has its own type."""
    for name, described in sorted(contract.operations.items()):
        for (place, parameter), told_of in described.parameters.items():
            if place == "path" and parameter.endswith("id") and not described.refuses_value(told_of, "7"):
                wrong(
                    "everything_is_a_string",
                    did=f"read what the parameter {parameter} of {name} can be",
                    got=f"{short(json.dumps(told_of.get('schema')))}, so 7 can be one",
                    expected="type string, format uuid",
                )


def test_requests(contract: Contract, calls: list[Call]) -> None:
    """The document allows the bodies and headers that the shop takes, and no others."""
    for call in calls:
        refused = contract.operations[call.route].refuses(call.request)
        told = {"did": call.words}
        if call.fits and refused:
            differs(
                **told,
                got=f"{call.answer.status}; in the document, {refused}",
                expected="a document that allows what the shop takes",
                matters="A generated client has no way to say it, or forces its caller to say more.",
            )
        if call.fits is not False or refused:
            continue
        got, sent = f"{call.answer.status}, and the document allows it", call.request.json
        if call.answer.status == 428:
            wrong("headers_forgotten", **told, got=got, expected="If-Match as a required parameter in the header")
        if isinstance(sent, dict) and {"weight", "coupon", "amout", "shelf"} & sent.keys():
            wrong("unknown_members_allowed", **told, got=got, expected="additionalProperties: false")
        if isinstance(sent, dict) and "code" in sent and {"percent", "amount"} <= sent.keys():
            wrong("any_of_for_one_of", **told, got=got, expected="either percent or amount")
        differs(
            **told,
            got=got,
            expected="a document that does not allow it",
            matters="Who relies on the document finds out at run time, when the shop refuses.",
        )


def test_examples(contract: Contract) -> None:
    """What callers copy is right: each JSON body that they send has an example, and every example fits."""
    for name, described in sorted(contract.operations.items()):
        body = contract.resolved(described.told.get("requestBody", {})).get("content", {})
        if JSON in body and not list(examples_of(contract, body[JSON], body[JSON].get("schema", {}))):
            differs(
                did=f"looked for an example of what to send to {name}",
                got="none",
                expected="one, at the schema or beside it",
                matters="It is what people read first, copy, and change until it works.",
            )
    for place, schema, example in all_examples(contract):
        if problem := contract.problem(schema, example):
            wrong(
                "examples_never_tried",
                did=f"held the example at {place} against its schema",
                got=f"{short(json.dumps(example), 90)}: {problem}",
                expected="one that fits",
            )


def examples_of(contract: Contract, beside: Json, schema: Any) -> Iterator[Any]:
    """The examples beside a schema, and its own."""
    yield from ([beside["example"]] if "example" in beside else [])
    named = beside.get("examples", {})
    yield from (contract.resolved(each).get("value") for each in (named.values() if isinstance(named, dict) else ()))
    own = contract.resolved(schema)
    yield from own.get("examples", []) if isinstance(own, dict) else []


def all_examples(contract: Contract) -> Iterator[tuple[str, Any, Any]]:
    """Where each is, its schema, and itself."""
    for name, schema in contract.document.get("components", {}).get("schemas", {}).items():
        for example in schema.get("examples", []):
            yield f"components.schemas.{name}", schema, example
    for name, described in sorted(contract.operations.items()):
        bodies = [described.told.get("requestBody", {}), *described.responses.values()]
        for content in [each for body in bodies for each in contract.resolved(body).get("content", {}).values()]:
            schema = content.get("schema", {})
            yield from ((name, schema, example) for example in examples_of(contract, content, schema))
        for parameter in described.parameters.values():
            schema = parameter.get("schema", {})
            yield from ((name, schema, example) for example in examples_of(contract, parameter, schema))


# --- Five hundred questions that nobody thought of --------------------------------------------------------------------


def test_five_hundred_examples(
    request: pytest.FixtureRequest, contract: Contract, shop: Shop, ids: Mapping[str, Sequence[str]]
) -> None:
    """Schemathesis makes 500 requests of the document, and finds nothing wrong."""
    if request.session.testsfailed:
        differs(
            did="nothing: a check before this one has failed",
            got="no examples",
            expected=f"{EXAMPLES} of them, when the others are satisfied",
            matters="What is not described rightly is found by the checks above, and told more plainly.",
        )
    from shopfloor.conformance import try_examples  # noqa: PLC0415 - it takes a while, which only this check should

    known = {name: ids[name] for name in ("products", "customers")} | {"orders": [*ids["pending"], *ids["paid"]]}
    tried = try_examples(
        deepcopy(contract.document), shop.url, examples=EXAMPLES, headers=MANAGER, known=known, to_first_finding=True
    )
    for finding in tried.findings:
        told = {"did": short(finding.request, 300), "got": f"{finding.status} {short(finding.body)}"}
        expected = f"what the document says of {finding.operation}. {finding.title}: {short(finding.detail, 300)}"
        if "status" in finding.title.lower():
            wrong("statuses_from_memory", **told, expected=expected)
        differs(**told, expected=expected, matters="Somebody's client, test or gateway believes the document.")
