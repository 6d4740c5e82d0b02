"""Two versions of a document: the same change in a request and in an answer."""

from copy import deepcopy
from typing import Any

import pytest

from shopfloor.compatibility import changes

Json = dict[str, Any]

NULL = {"type": "null"}
THING: Json = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["new", "old"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 10},
        "note": {"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}]},
        "size": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}]},
    },
    "required": ["status", "count"],
    "additionalProperties": False,
}


def document(sent: Json, read: Json, **operation: Any) -> Json:
    content = [{"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}} for name in ("Sent", "Read")]
    told: Json = {"requestBody": {"content": content[0]}, "responses": {"200": {"content": content[1]}}}
    return {"paths": {"/things": {"post": told | operation}}, "components": {"schemas": {"Sent": sent, "Read": read}}}


def changed(how: str) -> Json:
    thing = deepcopy(THING)
    exec(how, {"thing": thing, "of": thing["properties"]})
    return thing


@pytest.mark.parametrize(
    ("how", "sender", "reader"),
    [
        ("of['status']['enum'].append('lost')", "nobody", "who reads"),
        ("of['status']['enum'].remove('old')", "who sends", "nobody"),
        ("of['count']['maximum'] = 5", "who sends", "nobody"),
        ("of['count']['maximum'] = 50", "nobody", "who reads"),
        ("del of['count']['minimum']", "nobody", "who reads"),
        ("thing['required'].append('note')", "who sends", "nobody"),
        ("thing['required'].remove('count')", "nobody", "who reads"),
        ("of['note'] = {'type': 'string', 'maxLength': 9}", "who sends", "nobody"),
        ("of['note'] = {'type': ['null', 'string'], 'maxLength': 9}", None, None),
        ("of['note']['anyOf'][0]['maxLength'] = 5", "who sends", "nobody"),
        ("of['note']['anyOf'][0]['maxLength'] = 50", "nobody", "who reads"),
        ("of['note']['anyOf'][0]['pattern'] = '^n'", "who sends", "nobody"),
        ("of['size']['anyOf'][0]['minimum'] = 2", "who sends", "nobody"),
        ("of['size']['anyOf'].append({'type': 'null'})", "nobody", "who reads"),
        ("of['size']['anyOf'].append({'type': 'boolean'})", "nobody", "who reads"),
        ("of['size']['anyOf'].append({'type': 'string', 'pattern': '^n'})", "who sends", "who reads"),
        ("of['count']['type'] = ['integer', 'null']", "nobody", "who reads"),
        ("of['count'] = {'anyOf': [of['count'], {'type': 'string'}]}", "nobody", "who reads"),
        ("of['size'] = {'type': 'integer', 'minimum': 1}", "who sends", "nobody"),
        ("of['more'] = {'type': 'string'}", "nobody", "nobody"),
        ("del of['note']", "who sends", "who reads"),
        ("of['status']['pattern'] = '^n'", "who sends", "nobody"),
        ("of['note']['description'] = 'Any.'", None, None),
    ],
)
def test_a_change_breaks_one_side_or_both_or_none(how: str, sender: str | None, reader: str | None) -> None:
    old, other = document(THING, THING), changed(how)
    found = [changes(old, document(other, THING)), changes(old, document(THING, other))]
    assert [[change.breaks for change in each] for each in found] == [
        [side] if side else [] for side in (sender, reader)
    ]


def test_a_schema_that_is_referred_to_or_null() -> None:
    """As pydantic writes a model that may be missing."""
    inner = {"type": "object", "properties": {"count": {"type": "integer"}}}
    outer = {"type": "object", "properties": {"inner": {"anyOf": [{"$ref": "#/components/schemas/Inner"}, NULL]}}}
    old, new = (document(outer, outer) for _ in range(2))
    old["components"]["schemas"]["Inner"] = inner
    new["components"]["schemas"]["Inner"] = inner | {"required": ["count"]}
    assert [(change.place, change.breaks) for change in changes(old, new)] == [
        ("POST /things request.inner", "who sends"),
        ("POST /things 200.inner", "nobody"),
    ]


def test_what_an_operation_asks_for() -> None:
    page: Json = {"name": "page", "in": "query", "schema": {"type": "integer"}}
    old = document(THING, THING, parameters=[page])
    new = document(THING, THING, parameters=[page | {"required": True}], security=[{"token": []}])
    assert [change.breaks for change in changes(old, new)] == ["who sends"] * 2
    gone: Json = {"paths": {}}
    assert [change.what for change in changes(old, gone)] == ["the operation is gone"]
    assert [change.breaks for change in changes(gone, old)] == ["nobody"]
    assert changes(old, old) == []
