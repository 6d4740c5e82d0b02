"""Every span of every request is sent.

On a developer's machine that is the best there is. In production each request makes dozens of spans, and a page with
an N+1 hundreds. They are encoded, sent, stored and paid for, and nobody will look at one in ten thousand of them.
Teams find out by the bill, or because the collector drops what it cannot take: then it is chance that decides, and
with a queue that is full in every peak, it loses most when it matters most.

Keep what tells something: what failed and what was slow, and of the rest a share, TRACE_RATIO.

Read: "Head or tail" in the chapter on tracing.
"""

import os
import traceback
from collections.abc import Sequence
from typing import Any

import httpx2
from flask import Flask, got_request_exception, request
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
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
        sampler=ALWAYS_ON,
        resource=Resource.create({SERVICE_NAME: "shop"}),
    )
    exporter = Telling(OTLPSpanExporter(address, timeout=SEND_SECONDS))
    limit = settings.trace_span_limit
    provider.add_span_processor(
        BatchSpanProcessor(exporter, max_queue_size=limit, max_export_batch_size=min(limit, SEND_AT_ONCE))
    )
    return provider


class Telling(SpanExporter):
    """Counts the spans that nobody took."""

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
