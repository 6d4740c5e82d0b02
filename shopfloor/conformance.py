"""Tries on a running service what its OpenAPI document says of it, with examples that Schemathesis draws from it.

The same examples each time: they are derived from the document, and nothing is remembered between runs.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

if TYPE_CHECKING:  # it takes a third of a second to import, which only those who use it should spend
    from schemathesis import APIOperation, Case, GenerationMode, Response

Json = dict[str, Any]

ACCEPTED = ["2xx", "304", "401", "403", "404", "409", "410", "412", "413", "415", "422", "428", "429", "503"]
"""What may come of a request that the document allows: a schema cannot know what is in stock."""

REFUSED = ["4xx", "502", "503"]
"""What must come of one that it does not."""

OF_THE_SERVER = {414, 431}  # answered in front of the application, which never hears of such a request
JSON_TYPES = {None, "application/json"}  # None: there is no body
UUID_TEXT = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@dataclass(frozen=True)
class Finding:
    """Something that the document says and the service does not do.

    Attributes:
        operation: such as `GET /v1/orders`.
        request: the smallest that was found to show it, as method, address and body.
        status: of the answer.
        body: the beginning of the answer.
        title: what does not fit, in Schemathesis's words.
        detail: the same at length.
    """

    operation: str
    request: str
    status: int
    body: str
    title: str
    detail: str


class Disagree(AssertionError):  # noqa: N818 - what Hypothesis is to make smaller
    """An example on which document and service disagree."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.title)
        self.finding = finding


@dataclass
class Tried:
    """What came of it.

    Attributes:
        examples: how many requests were made, without those that made one smaller.
        statuses: how many were answered with which status.
        findings: what was found, for each operation the first on requests that are allowed, and on those that are not.
    """

    examples: int
    statuses: Counter[int]
    findings: list[Finding]


def try_examples(
    document: Json,
    url: str,
    *,
    examples: int,
    headers: Mapping[str, str] | None = None,
    known: Mapping[str, Sequence[str]] | None = None,
    to_first_finding: bool = False,
) -> Tried:
    """Draw requests from a document, some that it allows and some that it does not, and judge the answers.

    Args:
        document: of OpenAPI.
        url: of the service.
        examples: how many requests, about equally many for each operation.
        headers: sent with each of them.
        known: ids that exist, by what they are of, such as `products`. Of the examples in which such an id stands, some
            name one of them: what is drawn is of nothing.
        to_first_finding: stop there.

    Raises:
        schemathesis.errors.SchemathesisError: no examples can be drawn from the document.
    """
    import schemathesis  # noqa: PLC0415 - see above
    from schemathesis.config import SchemathesisConfig  # noqa: PLC0415

    config = SchemathesisConfig.from_dict(
        {
            "checks": {
                "positive_data_acceptance": {"expected-statuses": ACCEPTED},
                "negative_data_rejection": {"expected-statuses": REFUSED},
            },
            "output": {"sanitization": {"enabled": False}, "truncation": {"enabled": False}},
        }
    )
    schema = schemathesis.openapi.from_dict(document, config=config)
    schema.config.update(base_url=url)
    tried = Tried(0, Counter(), [])
    runs = [(each.ok(), mode) for each in schema.get_all_operations() for mode in schemathesis.GenerationMode]
    with requests.Session() as session:
        for place, (operation, mode) in enumerate(runs):
            wanted = examples - tried.examples
            share = -(-wanted // (len(runs) - place))  # what others cannot use, because nothing is wrong about them
            finding = _try(operation, mode, share, tried, known or {}, {**(headers or {})}, session)
            tried.findings += [finding] if finding else []
            if finding and to_first_finding:
                break
    return tried


def _try(
    operation: "APIOperation",
    mode: "GenerationMode",
    share: int,
    tried: Tried,
    known: Mapping[str, Sequence[str]],
    headers: dict[str, str],
    session: requests.Session,
) -> Finding | None:
    """Try one operation with requests of one kind; None: nothing was found."""
    from hypothesis import HealthCheck, Phase, given, settings, strategies  # noqa: PLC0415
    from hypothesis.errors import HypothesisException, Unsatisfiable  # noqa: PLC0415

    smallest: list[Finding] = []
    turns = itertools.count()  # one that was paid cannot be paid again

    @settings(
        max_examples=share,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
    )
    @given(case=operation.as_strategy(generation_mode=mode), of_something=strategies.booleans())
    def one(case: "Case", of_something: bool) -> None:
        if not smallest:
            tried.examples += 1
        if of_something:
            _name_what_exists(case, known, turns)
        response = case.call(session=session, headers=headers)
        if not smallest:
            tried.statuses[response.status_code] += 1
        if response.status_code in OF_THE_SERVER:
            return
        if finding := _judged(case, response):
            smallest.append(finding)
            raise Disagree(finding)

    with suppress(Unsatisfiable):  # there is no request of this kind
        try:
            one()
        except (Disagree, HypothesisException, ExceptionGroup):  # the service may answer another time otherwise
            if not smallest:
                raise
    return smallest[-1] if smallest else None


def _judged(case: "Case", response: "Response") -> Finding | None:
    from schemathesis.core.failures import FailureGroup  # noqa: PLC0415

    from schemathesis.checks import CHECKS  # noqa: PLC0415

    # Of other bodies a schema says so little that nobody can draw a right or a wrong one.
    excluded = [] if case.media_type in JSON_TYPES else ["positive_data_acceptance", "negative_data_rejection"]
    try:
        case.validate_response(response, excluded_checks=CHECKS.get_by_names(excluded))
    except FailureGroup as group:
        failure = group.exceptions[0]
        body = response.request.body
        sent = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
        target = urlsplit(str(response.request.url))
        address = target.path + (f"?{target.query}" if target.query else "")
        return Finding(
            operation=case.operation.label,
            request=f"{case.method} {address} {sent}".strip(),
            status=response.status_code,
            body=(response.text or "")[:300],
            title=failure.title,
            detail=failure.message.strip(),
        )
    return None


def _name_what_exists(case: "Case", known: Mapping[str, Sequence[str]], turns: Iterator[int]) -> None:
    """Put ids that exist where ids of nothing are, each time others."""
    wrong = (
        {str(where.value) for where, part in case.meta.components.items() if part.mode.is_negative}
        if case.meta
        else set()
    )
    if "path" not in wrong:
        for kind, name in re.findall(r"/([\w-]+)/\{(\w+)\}", case.path):
            case.path_parameters[name] = _known(kind, case.path_parameters[name], known, turns)
    if "header" not in wrong and case.headers and "If-Match" in case.headers:
        case.headers["If-Match"] = "*"  # whatever state it is in
    if isinstance(case.body, dict | list):
        case.body = _replaced(case.body, known, turns)


def _replaced(value: Any, known: Mapping[str, Sequence[str]], turns: Iterator[int], name: str = "") -> Any:
    if isinstance(value, dict):
        return {each: _replaced(inner, known, turns, each) for each, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, known, turns, name) for inner in value]
    return _known(f"{name.removesuffix('_id')}s", value, known, turns)


def _known(kind: str, value: Any, known: Mapping[str, Sequence[str]], turns: Iterator[int]) -> Any:
    if kind in known and isinstance(value, str) and UUID_TEXT.fullmatch(value):
        return known[kind][next(turns) % len(known[kind])]
    return value
