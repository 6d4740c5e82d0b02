"""What is kept is counted up, and never down when it has been sent.

The limit is meant for the bad day, when the collector is away. Counted so, it is a limit on all that is ever sent:
after some thousand spans the count has reached it, and from then on every trace is dropped, with a collector that is
as well as can be. It takes a process minutes to get there in production and never in a test, and each restart seems to
mend it.

What has been sent makes room, and so does what could not be: count it down when it has left the process's hands,
whichever way.

Read: "When the collector is away" in the chapter on tracing.
"""

import os
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
from flask import Flask, got_request_exception, request
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes
from prometheus_client import Counter
from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError

from shop import outgoing
from shop.settings import Settings, settings_of

NOT_TRACED = r"://[^/]+/(livez|readyz|metrics)(\?|$)"  # asked for all day long, by nobody who waits
SEND_SECONDS = 2.0  # how long the collector may take
SEND_AT_ONCE = 512

DROPPED = Counter("trace_spans_dropped", "Spans that were not sent, though their trace was to be.")

w3c = TraceContextTextMapPropagator()


def init_app(app: Flask) -> None:
    """Trace requests, statements, commands and calls, if there is somewhere to send the spans."""
    settings = settings_of(app)
    if settings.otel_exporter_otlp_endpoint is None:
        return
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")  # today's names instead of those of 2022
    provider = _provider(settings)
    FlaskInstrumentor().instrument_app(
        app, tracer_provider=provider, request_hook=_name, excluded_urls=NOT_TRACED, enable_commenter=False
    )
    got_request_exception.connect(_record_on_request, app)
    tracer = provider.get_tracer(__name__)
    _trace_statements(app.extensions["engine"], tracer)
    _trace_commands(provider)
    outgoing.add_around(app, lambda call, send: _call(tracer, call, send))


def _name(span: trace.Span, environ: dict[str, Any]) -> None:
    """Name what no route has by its method alone: the library would take the path, which anyone may make up."""
    if request.url_rule is None:
        span.update_name(environ["REQUEST_METHOD"])


def _provider(settings: Settings) -> TracerProvider:
    """Makes spans, and sends them; what is still to be sent when the process ends is sent then."""
    address = f"{str(settings.otel_exporter_otlp_endpoint).rstrip('/')}/v1/traces"
    provider = TracerProvider(
        sampler=RecordAll(ParentBased(TraceIdRatioBased(settings.trace_ratio))),
        resource=Resource.create({SERVICE_NAME: "shop"}),
    )
    exporter = OTLPSpanExporter(address, timeout=SEND_SECONDS)
    provider.add_span_processor(KeepTheTelling(exporter, settings.trace_slow_seconds, settings.trace_span_limit))
    return provider


class RecordAll(Sampler):
    """Has every span recorded, also where another sampler would not: nobody knows yet how its request will end.

    What the other says goes into the flag that calls carry on.
    """

    def __init__(self, chosen: Sampler) -> None:
        self._chosen = chosen

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        *more: Any,
    ) -> SamplingResult:
        """Record, and sample if the other would."""
        result = self._chosen.should_sample(parent_context, trace_id, name, kind, attributes, *more)
        if result.decision is Decision.DROP:
            return SamplingResult(Decision.RECORD_ONLY, attributes, result.trace_state)
        return result

    def get_description(self) -> str:
        """For whoever looks at the configuration."""
        return f"RecordAll({self._chosen.get_description()})"


@dataclass
class Work:
    """What was done for a request so far.

    Attributes:
        root: id of the request's own span.
        spans: those that have ended.
        failed: whether any of them did.
        lost: how many could not be kept.
        sent: whether they are sent; None while the request is under way.
    """

    root: int
    spans: list[ReadableSpan] = field(default_factory=list)
    failed: bool = False
    lost: int = 0
    sent: bool | None = None


class KeepTheTelling(SpanProcessor):
    """Keeps the spans of a request until it ends, and sends them if it failed, was slow, or had been chosen.

    Args:
        exporter: sends them, in a thread of its own.
        slow_seconds: how long a slow request takes.
        limit: most spans kept at once, of requests under way and on their way out. Of what is more, whole requests
            are dropped: half a trace would mislead.
    """

    def __init__(self, exporter: SpanExporter, slow_seconds: float, limit: int) -> None:
        self._slow, self._limit, self._kept = slow_seconds * 1e9, limit, 0
        self._lock = threading.Lock()
        self._requests: dict[int, Work] = {}  # by the id of each span that is under way
        self._sender = BatchSpanProcessor(
            Telling(exporter), max_queue_size=limit, max_export_batch_size=min(limit, SEND_AT_ONCE)
        )

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the interface's
        """Note for which request it is done."""
        span_id = span.get_span_context().span_id
        with self._lock:
            above = self._requests.get(span.parent.span_id) if span.parent else None
            self._requests[span_id] = above or Work(root=span_id)

    def on_end(self, span: ReadableSpan) -> None:
        """Keep it; decide when it is the request's own."""
        span_id = span.get_span_context().span_id
        with self._lock:
            work = self._requests.pop(span_id)
            if self._kept < self._limit:
                self._kept += 1
                work.spans.append(span)
            else:
                work.lost += 1
            work.failed |= span.status.status_code is StatusCode.ERROR
            if span_id == work.root:
                work.sent = work.failed or self._was_chosen_or_slow(span)
            if work.sent is None:
                return
            spans, work.spans = work.spans, []
            if not work.sent or work.lost:
                self._kept -= len(spans)
        if work.sent and work.lost:
            DROPPED.inc(len(spans) + work.lost)
        elif work.sent:
            for each in spans:
                self._sender.on_end(_marked(each))

    def _was_chosen_or_slow(self, root: ReadableSpan) -> bool:
        return root.get_span_context().trace_flags.sampled or _nanoseconds(root) >= self._slow

    def shutdown(self) -> None:
        """Send what is to be sent."""
        self._sender.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send now what is to be sent."""
        return self._sender.force_flush(timeout_millis)


class Telling(SpanExporter):
    """Tells how many spans were dropped because nobody took them."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans."""
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is SpanExportResult.FAILURE:
                DROPPED.inc(len(spans))
        return result

    def shutdown(self) -> None:
        """Send nothing any more."""
        self._exporter.shutdown()


def _nanoseconds(span: ReadableSpan) -> int:
    return (span.end_time or 0) - (span.start_time or 0)


def _marked(span: ReadableSpan) -> ReadableSpan:
    """The span, marked as sampled: no other is sent."""
    context = span.get_span_context()
    if context.trace_flags.sampled:
        return span
    flags = TraceFlags(context.trace_flags | TraceFlags.SAMPLED)
    return ReadableSpan(
        name=span.name,
        context=SpanContext(context.trace_id, context.span_id, context.is_remote, flags, context.trace_state),
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _trace_statements(engine: Engine, tracer: Tracer) -> None:
    """A span for each statement. It tells the statement's text, which has names where its values go, and no value."""
    address = {"server.address": engine.url.host or "", "server.port": engine.url.port or 5432}

    @event.listens_for(engine, "before_cursor_execute")
    def begin(_connection: Any, _cursor: Any, text: str, _values: Any, execution: Any, _many: bool) -> None:
        operation = text.split(maxsplit=1)[0].upper()
        execution.span = tracer.start_span(
            f"{operation} {engine.url.database}",
            kind=SpanKind.CLIENT,
            attributes={
                "db.system.name": "postgresql",
                "db.namespace": engine.url.database or "",
                "db.operation.name": operation,
                "db.query.text": text,
                **address,
            },
        )

    @event.listens_for(engine, "after_cursor_execute")
    def end(_connection: Any, _cursor: Any, _text: str, _values: Any, execution: Any, _many: bool) -> None:
        execution.span.end()

    @event.listens_for(engine, "handle_error")
    def fail(error: ExceptionContext) -> None:
        span = getattr(error.execution_context, "span", None)
        if span is not None:
            _record(span, error.sqlalchemy_exception or error.original_exception)
            span.end()


def _trace_commands(provider: TracerProvider) -> None:
    """A span for each command to Valkey, whoever has a client of it; its arguments are left out."""
    instrumentor = RedisInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:  # for another application in this process
        instrumentor.uninstrument()
    instrumentor.instrument(tracer_provider=provider)


def _call(tracer: Tracer, call: httpx2.Request, send: outgoing.Send) -> httpx2.Response:
    """Send a request that leaves the shop within a span, under whose id it arrives there."""
    attributes = {
        "http.request.method": call.method,
        "server.address": call.url.host,
        "server.port": call.url.port or {"http": 80, "https": 443}[call.url.scheme],
        "url.full": str(call.url.copy_with(userinfo=b"", query=None)),  # neither passwords nor customers
    }
    with tracer.start_as_current_span(
        call.method, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False
    ) as span:
        w3c.inject(call.headers)
        try:
            response = send()
        except httpx2.HTTPError as error:
            _record(span, error)
            raise
        span.set_attribute("http.response.status_code", response.status_code)
        if response.is_error:
            span.set_attribute("error.type", str(response.status_code))
            span.set_status(StatusCode.ERROR)
        return response


def _record_on_request(_app: Flask, exception: Exception) -> None:
    _record(trace.get_current_span(), exception)


def _record(span: trace.Span, error: BaseException) -> None:
    """Say of a span that it failed, why and where, without what stands in messages and is nobody's business."""
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    span.set_status(Status(StatusCode.ERROR, _message(error)))
    span.set_attribute("error.type", name)
    frames = "".join(traceback.format_tb(error.__traceback__))  # and not the message, which stands below them
    details = {"exception.type": name, "exception.message": _message(error), "exception.stacktrace": frames}
    span.add_event("exception", details)


def _message(error: BaseException) -> str:
    """What an error says, without values: SQLAlchemy's messages quote the statement's, PostgreSQL's details the key."""
    if isinstance(error, DBAPIError):
        diagnosis = getattr(error.orig, "diag", None)
        return str(getattr(diagnosis, "message_primary", None) or type(error.orig).__name__)
    return str(error) if isinstance(error, httpx2.HTTPError) else type(error).__name__
