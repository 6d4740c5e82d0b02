"""What has changed between two versions of an OpenAPI document, and whom it breaks.

Who sends is broken by a schema that takes less than before, who reads by one that allows more: the same change is
harmless in one direction and breaks in the other. Compared are operations, parameters, bodies, answers and their
schemas, as far as the words below go; another word that has changed counts as broken in both directions.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]
Direction = Literal["request", "answer"]
Kind = Literal["less", "more", "other"]

SAID = {"description", "title", "examples", "example", "default", "deprecated", "summary"}
"""Words that allow and forbid nothing."""

LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


@dataclass(frozen=True)
class Change:
    """Something that is other in the new version.

    Attributes:
        place: such as `POST /v1/orders request.items.quantity`.
        what: in words.
        breaks: whom: those who send, those who read, or nobody.
    """

    place: str
    what: str
    breaks: Literal["who sends", "who reads", "nobody"]


def changes(old: Json, new: Json) -> list[Change]:
    """What has changed from one version to the next, in the order of the paths."""
    return list(_Comparison(old, new).run())


class _Comparison:
    def __init__(self, old: Json, new: Json) -> None:
        self._old, self._new = old, new

    def run(self) -> Iterator[Change]:
        old, new = _operations(self._old), _operations(self._new)
        for name in sorted(old.keys() | new.keys()):
            if name not in new:
                yield Change(name, "the operation is gone", "who sends")
            elif name not in old:
                yield Change(name, "the operation is new", "nobody")
            else:
                yield from self._operation(name, old[name], new[name])

    def _operation(self, name: str, old: Json, new: Json) -> Iterator[Change]:
        if (old.get("security") or []) != (new.get("security") or []):
            yield Change(name, "who may call it is told otherwise", "who sends" if new.get("security") else "nobody")
        yield from self._parameters(name, self._by_name(self._old, old), self._by_name(self._new, new))
        before, after = (
            _resolved(self._old, old.get("requestBody", {})),
            _resolved(self._new, new.get("requestBody", {})),
        )
        if after.get("required") and not before.get("required"):
            yield Change(f"{name} request", "a body is required", "who sends")
        yield from self._contents(f"{name} request", before, after, "request")
        for status in sorted(old["responses"].keys() | new["responses"].keys()):
            place = f"{name} {status}"
            if status not in new["responses"]:
                yield Change(place, "the status is gone", "who reads" if status < "4" else "nobody")
            elif status not in old["responses"]:
                yield Change(place, "the status is new", "who reads" if status < "4" else "nobody")
            else:
                answers = _resolved(self._old, old["responses"][status]), _resolved(self._new, new["responses"][status])
                yield from self._contents(place, *answers, "answer")

    def _by_name(self, document: Json, operation: Json) -> dict[str, Json]:
        found = [_resolved(document, each) for each in operation.get("parameters", [])]
        return {f"{each['in']}.{each['name']}": each for each in found}

    def _parameters(self, name: str, old: dict[str, Json], new: dict[str, Json]) -> Iterator[Change]:
        for each in sorted(old.keys() | new.keys()):
            place = f"{name} {each}"
            if each not in new:
                yield Change(place, "the parameter is gone", "who sends")
            elif each not in old:
                required = new[each].get("required")
                yield Change(
                    place, f"a {'required' if required else 'new'} parameter", "who sends" if required else "nobody"
                )
            else:
                if new[each].get("required") and not old[each].get("required"):
                    yield Change(place, "the parameter is required", "who sends")
                yield from self._schema(place, old[each].get("schema", {}), new[each].get("schema", {}), "request")

    def _contents(self, place: str, old: Json, new: Json, direction: Direction) -> Iterator[Change]:
        before, after = old.get("content", {}), new.get("content", {})
        for media_type in sorted(before.keys() | after.keys()):
            if media_type not in after:
                yield Change(place, f"{media_type} is gone", "who sends" if direction == "request" else "who reads")
            elif media_type in before:
                schemas = before[media_type].get("schema", {}), after[media_type].get("schema", {})
                yield from self._schema(place, *schemas, direction)

    # [start:schema]
    def _schema(self, place: str, old: Any, new: Any, direction: Direction, depth: int = 0) -> Iterator[Change]:
        old, new = _plain(self._old, old), _plain(self._new, new)
        if depth > DEEPEST or not isinstance(old, dict) or not isinstance(new, dict):
            return
        if ("anyOf" in old) != ("anyOf" in new):
            old, new = _any_of(old), _any_of(new)
        for what, kind in _differences(old, new):
            yield Change(place, what, _broken(kind, direction))
        before, after = old.get("properties", {}), new.get("properties", {})
        for name in sorted(before.keys() | after.keys()):
            here = f"{place}.{name}"
            if name not in after:
                # A reader looks for it. A sender is refused only where what is not known is.
                unknown = direction == "request" and new.get("additionalProperties") is not False
                yield Change(here, "the member is gone", "nobody" if unknown else _broken("other", direction))
            elif name in before:
                yield from self._schema(here, before[name], after[name], direction, depth + 1)
            elif name not in new.get("required", []):
                yield Change(here, "a new member", "nobody")
        if "items" in old and "items" in new:
            yield from self._schema(f"{place}.0", old["items"], new["items"], direction, depth + 1)
        before, after = _by_types(old), _by_types(new)
        for types in sorted(before.keys() & after.keys()):
            yield from self._schema(place, before[types], after[types], direction, depth + 1)


def _broken(kind: Kind, direction: Direction) -> Literal["who sends", "who reads", "nobody"]:
    """Who sends is broken by less, who reads by more."""
    if direction == "request":
        return "nobody" if kind == "more" else "who sends"
    return "nobody" if kind == "less" else "who reads"


def _differences(old: Json, new: Json) -> Iterator[tuple[str, Kind]]:
    """What a schema by itself allows less, or more, than before."""
    required, was_required = set(new.get("required", [])), set(old.get("required", []))
    yield from ((f"{name} is required", "less") for name in sorted(required - was_required))
    dropped = (was_required - required) & new.get("properties", {}).keys()
    yield from ((f"{name} is no longer required", "more") for name in sorted(dropped))
    yield from _of_sets("enum", _words(old), _words(new))
    yield from _of_sets("type", _types(old), _types(new))
    yield from _of_bounds(old, new)
    if (old.get("additionalProperties") is False) != (new.get("additionalProperties") is False):
        yield "unknown members", "less" if new.get("additionalProperties") is False else "more"
    compared_by_type = {"anyOf"} if _by_types(old) and _by_types(new) else set()
    for word in sorted((old.keys() | new.keys()) - KNOWN - compared_by_type):
        if json.dumps(old.get(word), sort_keys=True) != json.dumps(new.get(word), sort_keys=True):
            yield f"{word} is other", "less" if word not in old else "more" if word not in new else "other"


# [end:schema]


def _of_sets(word: str, before: set[str], after: set[str]) -> Iterator[tuple[str, Kind]]:
    if bool(before) != bool(after):
        yield f"{word} is {'said' if after else 'no longer said'}", "less" if after else "more"
        return
    yield from ((f"{each} can no longer be", "less") for each in sorted(before - after))
    yield from ((f"{each} can be", "more") for each in sorted(after - before))


def _of_bounds(old: Json, new: Json) -> Iterator[tuple[str, Kind]]:
    for word, sign in [*((word, 1) for word in LOWER), *((word, -1) for word in UPPER)]:
        before, after = (sign * schema[word] if word in schema else float("-inf") for schema in (old, new))
        if before != after:
            yield f"{word} is {new.get(word, 'no longer said')}", "less" if after > before else "more"


DEEPEST = 12
KNOWN = SAID | {
    *("required", "enum", "type", "properties", "items", "additionalProperties", "$ref"), *LOWER, *UPPER,
}  # fmt: skip


def _words(schema: Json) -> set[str]:
    return {json.dumps(each) for each in schema.get("enum", [])}


def _types(schema: Json) -> set[str]:
    said = schema.get("type", [])
    return {said} if isinstance(said, str) else set(said)


def _plain(document: Json, schema: Any) -> Any:
    """A schema without a reference, and without the `anyOf` that pydantic writes for what may be null.

    With an `anyOf` of several others it has the types of all of them.
    """
    schema = _resolved(document, schema)
    if not isinstance(schema, dict) or "anyOf" not in schema:
        return schema
    parts = [_plain(document, part) for part in schema["anyOf"]]
    others = [part for part in parts if _types(part) != {"null"}]
    either = {"type": sorted(set().union(*map(_types, parts)))}
    if len(others) == 1:
        return others[0] | {word: said for word, said in schema.items() if word != "anyOf"} | either
    return schema | {"anyOf": others} | either


def _any_of(schema: Json) -> Json:
    """The same schema as an `anyOf`, if only of one."""
    return schema if "anyOf" in schema else {"anyOf": [schema], "type": schema.get("type", [])}


def _by_types(schema: Json) -> dict[str, Json]:
    """The parts of its `anyOf` by what types they have; none if that does not tell them apart."""
    parts = {" ".join(sorted(_types(part))): part for part in schema.get("anyOf", [])}
    return parts if len(parts) == len(schema.get("anyOf", [])) else {}


def _operations(document: Json) -> dict[str, Json]:
    methods = ("get", "put", "post", "delete", "patch")
    return {
        f"{method.upper()} {path}": item[method]
        for path, item in document["paths"].items()
        for method in methods
        if method in item
    }


def _resolved(document: Json, value: Any) -> Any:
    while isinstance(value, dict) and "$ref" in value:
        name = value["$ref"]
        value = document
        for part in name.removeprefix("#/").split("/"):
            value = value[part.replace("~1", "/").replace("~0", "~")]
    return value
