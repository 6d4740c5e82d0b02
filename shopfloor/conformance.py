"""Tries on a running service what its OpenAPI document says of it, with examples that Schemathesis makes of it.

The same examples each time: they are derived from the document, and nothing is remembered between runs.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import requests

if TYPE_CHECKING:  # it takes a third of a second to import, which only those who use it should spend
    from schemathesis import APIOperation, Case, CheckFunction, GenerationMode, Response

    Operation = APIOperation[Any, Any, Any, Any]
    Example = Case[Any]

Json = dict[str, Any]

ACCEPTED = ["2xx", "304", "401", "403", "404", "409", "410", "412", "413", "415", "422", "428", "429", "503"]
"""What may come of a request that the document allows: a schema cannot know what is in stock."""

REFUSED = ["4xx", "502", "503"]
"""What must come of one that it does not."""

OF_THE_SERVER = {414, 431}  # answered in front of the application, which never hears of such a request
MOST_EDGES = 120
GOLDEN = 0.6180339887  # multiples of it, without what is before the point, fall evenly, however many there are
SMALLER = 50
"""How often an example that shows something is tried in a smaller form."""

JSON_TYPES = {None, "application/json"}  # None: there is no body
UUID_TEXT = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@dataclass(frozen=True)
class Finding:
    """Something that the document says and the service does not do.

    Attributes:
        operation: such as `GET /v1/orders`.
        request: the smallest that was found to show it, as method, address, media type if it is not JSON, and body.
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


class Enough(BaseException):
    """It has been made smaller often enough. Hypothesis lets through what is no `Exception`."""


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
    drawn: int = 0,
    headers: Mapping[str, str] | None = None,
    known: Mapping[str, Sequence[str]] | None = None,
    to_first_finding: bool = False,
) -> Tried:
    """Make requests of a document, some that it allows and some that it does not, and judge the answers.

    Args:
        document: of OpenAPI.
        url: of the service.
        examples: how many requests at the edges of what it says, where most mistakes are: of each operation as many.
        drawn: how many more at random, which takes three times as long.
        headers: sent with each of them.
        known: ids that exist, by what they are of, such as `products`. Every other example names one of them where an
            id stands: what is made up is of nothing.
        to_first_finding: stop there.

    Raises:
        schemathesis.errors.SchemathesisError: no examples can be drawn from the document.
    """
    import schemathesis  # noqa: PLC0415 - see above
    from schemathesis.config import SchemathesisConfig  # noqa: PLC0415
    from schemathesis.core.result import Err  # noqa: PLC0415

    config = SchemathesisConfig.from_dict(
        {
            "checks": {
                "positive_data_acceptance": {"expected-statuses": ACCEPTED},
                "negative_data_rejection": {"expected-statuses": REFUSED},
                "missing_required_header": {"expected-statuses": REFUSED},
            },
            "output": {"sanitization": {"enabled": False}, "truncation": {"enabled": False}},
        }
    )
    schema = schemathesis.openapi.from_dict(document, config=config)
    server = urlsplit(str((document.get("servers") or [{}])[0].get("url", "/"))).path.rstrip("/")
    schema.config.update(base_url=f"{url}{server}")
    tried = Tried(0, Counter(), [])
    operations = []
    for each in schema.get_all_operations():
        if isinstance(each, Err):
            raise each.err()
        operations.append(each.ok())
    with requests.Session() as session:
        trial = _Trial(tried, session, {**(headers or {})}, known or {})
        for finding in itertools.chain(trial.at_the_edges(operations, examples), trial.at_random(operations, drawn)):
            tried.findings.append(finding)
            if to_first_finding:
                break
    return tried


class _Trial:
    """Asks, and judges what is answered."""

    def __init__(
        self, tried: Tried, session: requests.Session, headers: dict[str, str], known: Mapping[str, Sequence[str]]
    ) -> None:
        self._tried, self._session, self._headers, self._known = tried, session, headers, known
        self._turns = itertools.count()  # one that was paid cannot be paid again

    def at_the_edges(self, operations: Sequence["Operation"], most: int) -> Iterator[Finding]:
        """What is found at the bounds of what is said, and just beyond them; each operation in turn."""
        from schemathesis.core.errors import SerializationNotPossible  # noqa: PLC0415 - see above

        runs = [_edges(operation) for operation in operations]
        cases = (case for turn in itertools.zip_longest(*runs) for case in turn if case is not None)
        found = set()
        for case in itertools.islice(cases, most):
            with suppress(SerializationNotPossible):
                finding = self._ask(case, next(self._turns) % 2 == 0)
                self._tried.examples += 1
                kind = case.operation.label, case.meta and case.meta.generation.mode
                if finding and kind not in found:
                    found.add(kind)
                    yield finding

    def at_random(self, operations: Sequence["Operation"], most: int) -> Iterator[Finding]:
        """What is found with examples that are drawn at random, made as small as they get."""
        from schemathesis import GenerationMode  # noqa: PLC0415

        share = most // (2 * len(operations))
        for operation, mode in itertools.product(operations if share else (), GenerationMode):
            if finding := self._at_random(operation, mode, share):
                yield finding

    def _at_random(self, operation: "Operation", mode: "GenerationMode", share: int) -> Finding | None:
        from hypothesis import HealthCheck, Phase, given, settings, strategies  # noqa: PLC0415
        from hypothesis.errors import HypothesisException, Unsatisfiable  # noqa: PLC0415

        smallest: list[Finding] = []
        smaller = itertools.count()

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
        def one(case: "Example", of_something: bool) -> None:
            if not smallest:
                self._tried.examples += 1
            elif next(smaller) > SMALLER:
                raise Enough
            if finding := self._ask(case, of_something):
                smallest.append(finding)
                raise Disagree(finding)

        with suppress(Unsatisfiable):  # there is no request of this kind
            try:
                one()
            except (Disagree, Enough, HypothesisException, ExceptionGroup):  # it may answer otherwise another time
                if not smallest:
                    raise
        return smallest[-1] if smallest else None

    def _ask(self, case: "Example", of_something: bool) -> Finding | None:
        """Ask, and judge the answer.

        Args:
            case: what to ask.
            of_something: put ids that exist where ids of nothing are.
        """
        if of_something:
            self._name_what_exists(case)
        left_out = getattr(case.meta and case.meta.phase.data, "parameter", None)
        headers = {name: value for name, value in self._headers.items() if name != left_out}
        response = case.call(session=self._session, headers=headers)
        self._tried.statuses[response.status_code] += 1
        return None if response.status_code in OF_THE_SERVER else _judged(case, response)

    def _name_what_exists(self, case: "Example") -> None:
        parts = case.meta.components.items() if case.meta else ()
        wrong = {str(where.value) for where, part in parts if part.mode.is_negative}
        if "path" not in wrong:
            for kind, name in re.findall(r"/([\w-]+)/\{(\w+)\}", case.path):
                if name in case.path_parameters:
                    case.path_parameters[name] = self._existing(kind, case.path_parameters[name])
        if "header" not in wrong and case.headers and "If-Match" in case.headers:
            case.headers["If-Match"] = "*"  # whatever state it is in
        if isinstance(case.body, dict | list):
            case.body = self._with_existing(case.body)

    def _with_existing(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {each: self._with_existing(inner, each) for each, inner in value.items()}
        if isinstance(value, list):
            return [self._with_existing(inner, name) for inner in value]
        return self._existing(f"{name.removesuffix('_id')}s", value)

    def _existing(self, kind: str, value: Any) -> Any:
        if kind in self._known and isinstance(value, str) and UUID_TEXT.fullmatch(value):
            return self._known[kind][next(self._turns) % len(self._known[kind])]
        return value


def _labelled(response: "Response") -> str:
    """What a request says that its body is, if that is not JSON."""
    said = str(response.request.headers.get("Content-Type") or "")
    if not response.request.body:
        return "without a body" if response.request.method in ("POST", "PUT", "PATCH") else ""
    return "" if said == "application/json" else f"as {said or 'nothing'}"


def _edges(operation: "Operation") -> list["Example"]:
    """Requests at the edges of what is said of an operation. Whoever takes the first few has some of every kind."""
    from schemathesis import GenerationMode  # noqa: PLC0415

    generation = operation.schema.config.generation_for(operation=operation, phase="coverage")
    both = list(GenerationMode)
    cases = operation.schema.iter_coverage_cases(operation, generation_modes=both, generation_config=generation)
    in_order = enumerate(itertools.islice(cases, MOST_EDGES))
    return [
        case for _, case in sorted(in_order, key=lambda numbered: (_is_whole(numbered[1]), numbered[0] * GOLDEN % 1))
    ]


def _is_whole(case: "Example") -> bool:
    """Whether nothing is missing and the body is labelled rightly: the others come first, as people do not try them."""
    scenario = str(getattr(case.meta and case.meta.phase.data, "scenario", ""))
    return scenario not in ("malformed_content_type", "unsupported_content_type", "missing_parameter")


def _judged(case: "Example", response: "Response") -> Finding | None:
    from schemathesis.checks import CHECKS  # noqa: PLC0415
    from schemathesis.core.failures import FailureGroup  # noqa: PLC0415

    # Of other bodies a schema says so little that nobody can draw a right or a wrong one.
    excluded = [] if case.media_type in JSON_TYPES else ["positive_data_acceptance", "negative_data_rejection"]
    try:
        case.validate_response(response, excluded_checks=cast("list[CheckFunction]", CHECKS.get_by_names(excluded)))
    except FailureGroup as group:
        failure = group.exceptions[0]
        body = response.request.body
        sent = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
        target = urlsplit(str(response.request.url))
        address = target.path + (f"?{target.query}" if target.query else "")
        return Finding(
            operation=case.operation.label,
            request=" ".join(part for part in (case.method, address, _labelled(response), sent) if part),
            status=response.status_code,
            body=(response.text or "")[:300],
            title=failure.title,
            detail=failure.message.strip(),
        )
    return None
