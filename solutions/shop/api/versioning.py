"""Two versions side by side: /v2 is /v1's own handlers, heard and spoken in other words.

Every blueprint under /v1 is registered once more under /v2, its guards with it. Where the second version of something
is other than the first, what was asked is put into v1's words before the handler hears it, and what it said into v2's
afterwards. No rule of the shop stands here, so none can be other in one version than in the other.

Sources: RFC 9745 (Deprecation), RFC 8594 (Sunset), RFC 5829 (successor-version), RFC 8288 (Link).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from io import BytesIO
from typing import Any, get_args

from flask import Flask, Response, current_app, g, jsonify, request, url_for
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.exceptions import Gone
from werkzeug.http import http_date

from shop.foundations.validation import Invalid
from shop.models import OrderStatus
from shop.settings import settings_of

Json = dict[str, Any]

V2 = "v2_"  # how the endpoints of the second version begin
OF_V1 = frozenset({"openapi"})  # blueprints that speak of the first version alone


# [start:mount]
def init_app(app: Flask) -> None:
    """Answer under /v2 whatever is answered under /v1, and say of /v1 that it will go."""
    for blueprint in list(app.blueprints.values()):
        prefix = blueprint.url_prefix or ""
        if prefix.split("/")[1:2] == ["v1"] and blueprint.name not in OF_V1:
            app.register_blueprint(blueprint, name=V2 + blueprint.name, url_prefix=_successor(prefix))
    app.before_request(_refuse_after_sunset)
    app.before_request(_understand)
    app.after_request(_announce)
    app.after_request(_speak)  # the last one here is the first to see the answer


def _successor(path: str) -> str:
    """The same path in the second version."""
    return "/v2" + path.removeprefix("/v1")


def _in_v1() -> bool:
    return request.path.split("/")[1] == "v1"


# [end:mount]


# --- The end of the first version -------------------------------------------------------------------------------------


# [start:announce]
def _announce(response: Response) -> Response:
    """Say of whatever /v1 answers, errors among it, from when on it is deprecated and gone, and what comes after."""
    settings = settings_of(current_app)
    if settings.v1_deprecated_at is None or not _in_v1():
        return response
    response.headers["Deprecation"] = f"@{int(settings.v1_deprecated_at.timestamp())}"
    topics = ["deprecation"]
    if settings.v1_sunset_at:
        response.headers["Sunset"] = http_date(settings.v1_sunset_at)
        topics.append("sunset")
    if settings.v1_migration_guide:
        for topic in topics:  # two links, as some libraries take a rel of two words for one
            response.headers.add("Link", f'<{settings.v1_migration_guide}>; rel="{topic}"')
    if f"{V2}{request.endpoint}" in current_app.view_functions:
        successor = url_for(V2 + request.endpoint, **request.view_args or {})
        response.headers.add("Link", f'<{successor}>; rel="successor-version"')
    return response


# [end:announce]


# [start:sunset]
def _refuse_after_sunset() -> None:
    """Do nothing more for /v1 once it is past its time. The clock is asked each time: a process lives for weeks."""
    settings = settings_of(current_app)
    if settings.v1_sunset_at and _in_v1() and datetime.now(UTC) >= settings.v1_sunset_at:
        where = settings.v1_migration_guide or "/v2"
        raise Gone(f"Version 1 ended at {settings.v1_sunset_at.isoformat()}. Go on at {where}.")


# [end:sunset]


# --- What is other about the second -----------------------------------------------------------------------------------

# [start:words]
SWAPPED = {"items": "lines", "lines": "items"}  # to swap them leaves no word that means two things
FIELDS = {"customer": "customer_id", "items": "lines"}  # v1's word: v2's
STATUSES = {"pending": "awaiting_payment"}

ALL_FIELDS = {FIELDS.get(word, word): word for word in ("id", "status", "placed_at", "total", "customer", "items")}
ALL_STATUSES = {STATUSES.get(word, word): word for word in get_args(OrderStatus)}


def _order(order: Json) -> Json:
    """An order as v2 shows it; of one that shows less, what it shows."""
    shown = {FIELDS.get(name, name): value for name, value in order.items()}
    if "status" in shown:
        shown["status"] = STATUSES.get(order["status"], order["status"])
    if "customer_id" in shown:
        shown["customer_id"] = order["customer"]["id"]  # and not the name
    if "lines" in shown:
        shown["lines"] = [_line(item) for item in order["items"]]
    return shown


def _line(item: Json) -> Json:
    product = item["product"]
    ordered = {name: item[name] for name in ("quantity", "unit_price")}
    return {"product_id": product["id"], "sku": product["sku"], "name": product["name"], **ordered}


def _page(page: Json) -> Json:
    return {**page, "data": [_order(order) for order in page["data"]]}


def _picture(picture: Json) -> Json:
    return {**picture, "url": _successor(picture["url"])}


def _problem(problem: Json) -> Json:
    """An error that names fields, as whoever sent them knows them."""
    if "errors" not in problem:
        return problem
    return {**problem, "errors": [{**error, "field": _field(error["field"])} for error in problem["errors"]]}


def _field(place: str) -> str:
    first, *rest = place.split(".")
    return ".".join([SWAPPED.get(first, first), *rest])


# [end:words]


# [start:hear]
def _understand() -> None:
    """Put what was asked of v2 into v1's words, before the handler hears it."""
    if request.endpoint in HEARD:
        HEARD[request.endpoint]()


def _hear_new_order() -> None:
    sent = request.get_data(cache=False)
    try:
        new = json.loads(sent)
    except (ValueError, RecursionError):
        new = None  # which the handler says
    if isinstance(new, dict):
        sent = json.dumps({SWAPPED.get(name, name): value for name, value in new.items()}).encode()
    request.stream = BytesIO(sent)  # which the handler reads


def _hear_query() -> None:
    query = request.args.to_dict(flat=False)
    query["status"] = _words("status", query.get("status", ()), ALL_STATUSES)
    query["fields"] = [",".join(_words("fields", names.split(","), ALL_FIELDS)) for names in query.get("fields", ())]
    request.args = ImmutableMultiDict(query)


def _words(name: str, said: Sequence[str], known: Mapping[str, str]) -> list[str]:
    unknown = [word for word in said if word not in known]
    if unknown:
        raise Invalid([{"field": name, "detail": f"{', '.join(unknown)!r} is none of {', '.join(known)}."}])
    return [known[word] for word in said]


def _hear_condition() -> None:
    """Keep the caller's tags from v1's handler: they stand for other bytes than those that it will make."""
    names = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH")
    g.conditions = {name: request.environ.pop(name) for name in names if name in request.environ}


HEARD: dict[str, Callable[[], None]] = {
    f"{V2}business_logic.create_order": _hear_new_order,
    f"{V2}pagination.orders": _hear_query,
    f"{V2}pagination.customer_orders": _hear_query,
    f"{V2}resources.order": _hear_condition,
}
# [end:hear]


# [start:speak]
SAID: dict[str, Callable[[Json], Json]] = {
    f"{V2}business_logic.create_order": _order,
    f"{V2}pagination.orders": _page,
    f"{V2}pagination.customer_orders": _page,
    f"{V2}resources.order": _order,
    f"{V2}request_content.upload": _picture,
}


def _speak(response: Response) -> Response:
    """Put what v1's handler answered into v2's words."""
    endpoint = request.endpoint or ""
    if not endpoint.startswith(V2):
        return response
    if response.headers.get("Location", "").startswith("/v1/"):
        response.headers["Location"] = _successor(response.headers["Location"])
    if endpoint in SAID and response.is_json:
        say = _problem if response.status_code >= HTTPStatus.BAD_REQUEST else SAID[endpoint]
        response.data = jsonify(say(response.get_json())).data
    if "conditions" in g and "ETag" in response.headers:
        response.add_etag(overwrite=True)  # of v2's own bytes
        request.environ.update(g.conditions)
        if g.conditions.get("HTTP_IF_MATCH") != "*":  # which make_conditional takes for a tag that does not match
            response.make_conditional(request)
    return response


# [end:speak]
