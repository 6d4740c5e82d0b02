"""The shop's settings, read from the environment and checked before anything starts: given code, no lab changes it.

Source: the twelve-factor app, https://12factor.net/config.
"""

import re
import tempfile
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Self, cast

from flask import Flask
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

POSTGRESQL = "a PostgreSQL address such as postgresql://user:password@host:5432/name"
REDIS = "a Redis address such as redis://:password@host:6379/0"
NETWORKS = "addresses or networks with commas between them, such as 10.0.0.0/8,::1"


class SettingsError(Exception):
    """The environment does not describe a shop that can start. The message names every problem."""


def _database_url(value: str) -> str:
    try:
        url = make_url(value)
    except (ArgumentError, ValueError) as error:
        raise ValueError(POSTGRESQL) from error
    if url.drivername not in {"postgres", "postgresql", "postgresql+psycopg"} or not url.database:
        raise ValueError(POSTGRESQL)
    return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def _redis_url(value: str) -> str:
    if not re.match(r"(rediss?|unix)://.", value):
        raise ValueError(REDIS)
    return value


def _listed(value: object) -> object:
    """What stands between commas."""
    return [part for each in value.split(",") if (part := each.strip())] if isinstance(value, str) else value


def _networks(value: object) -> object:
    listed = _listed(value)
    if not isinstance(listed, list | tuple):
        raise ValueError(NETWORKS)
    try:
        return tuple(ip_network(each) for each in listed)
    except ValueError as error:
        raise ValueError(NETWORKS) from error


class Settings(BaseSettings):
    """What the shop can be told. Each is an environment variable of the same name in capitals.

    Attributes:
        database_url: where PostgreSQL is.
        redis_url: where the Redis protocol is spoken; none: the shop does without.
        pool_size: most connections to the database that a process keeps.
        pool_timeout_seconds: how long a request waits for one of them.
        cache_ttl_seconds: how long what is kept in the cache may be out of date at most.
        cache_timeout_seconds: how long a request may wait for the cache each time.
        payments_url: where the payment provider is; none: orders cannot be paid.
        delivery_url: where the delivery company is; none: there are no quotes, and no courier can be ordered.
        connect_timeout_seconds: how long connecting to either of the two may take.
        read_timeout_seconds: how long an answer of theirs may take.
        deadline_seconds: how long a call of theirs may take in all, however often it is repeated.
        retry_attempts: how often a call is attempted at most.
        retry_wait_seconds: the longest wait before the second attempt; before each further one it may be twice as long.
        retry_budget: how many retries a process may spend on either of the two when every call fails.
        retry_budget_share: what each call adds to these again, as a share of a retry.
        breaker_window_seconds: how far back a circuit breaker looks.
        breaker_minimum_calls: how many calls it must have seen in that time before it judges.
        breaker_failure_rate: the share of failures from which on it opens, up to 1.
        breaker_recovery_seconds: how long it stays open before it lets a call through again.
        breaker_successes: how many such calls must succeed in a row for it to close.
        bulkhead_size: most calls to one of the two at once.
        bulkhead_queue: most requests that wait until they may call.
        bulkhead_wait_seconds: how long they wait at most.
        cors_origins: the origins of pages whose scripts may read the shop's answers, with commas between them.
        compress_from_bytes: the size from which on answers are compressed; none: they never are.
        order_watchers: how many may watch their orders at once in a process; none: orders cannot be watched.
        order_watch_seconds: how often the shop looks what has become of an order that is watched.
        otel_exporter_otlp_endpoint: where traces are sent; none: nowhere.
        trace_ratio: the share of traces that are sent whatever became of the request.
        trace_slow_seconds: how long a request takes whose trace is sent in any case.
        trace_span_limit: most spans that a process keeps in memory, of requests under way and on their way out.
        slo_availability: the share of requests that the shop promises to answer without an error of its own.
        slo_latency: the share of requests that it promises to answer in time.
        slo_latency_seconds: what in time means.
        slo_window_days: the days over which both promises hold.
        slo_minimum_requests: with fewer than so many requests in its long window, an alert does not fire.
        rate_limit_per_user: most requests that a user may make in a window; none: as many as they like.
        rate_limit_per_address: the same for an address, for whoever is no known user.
        rate_limit_window_seconds: how long such a window is.
        rate_limit_fail_open: when nobody can tell how many there were, whether they are let through.
        api_keys: what makes a caller a known user, with commas between them.
        trusted_proxies: the addresses or networks whose X-Forwarded-For is believed, with commas between them.
        warehouse_url: where the warehouse is, which is told of each order; none: nobody is told.
        marketplace_token: what the marketplace shows when it sends orders; none: there is no marketplace.
        order_total_max: the most that an order may cost, in minor units; none: any amount.
        order_attempts: how often an order is attempted at most when others get in its way in the database.
        order_wait_seconds: the longest wait before the second attempt; before each further one it may be twice as long.
        uploads_folder: where the files that are uploaded are kept; made when it is needed.
        upload_limit_bytes: the largest such file.
        body_limit_bytes: the largest list that is read in one piece, packed or unpacked.
        scanner_limit_bytes: the largest file that the scanner for malware judges.
        page_limit_default: entries on a page of a list when the caller names no limit.
        page_limit_max: most entries on a page that a caller may ask for.
        cursor_key: what the shop signs its cursors with, the same for every process; none: each process draws its own,
            which does as long as there is one.
        idempotency_key_required: whether a payment without an Idempotency-Key is refused.
        idempotency_key_hours: how long a key is remembered.
        idempotency_claim_seconds: after how long without an answer a repeat may take over the work on its request.
        v1_deprecated_at: from when on nobody should use /v1 any more; none: it is not deprecated.
        v1_sunset_at: from when on /v1 is gone; none: nobody knows.
        v1_migration_guide: where one reads how to leave /v1; none: nowhere.
        back_office_clerk_token: opens the back office; none: for nobody.
        back_office_manager_token: opens all of it; none: for nobody.
        back_office_wrong_tokens: how many wrong tokens an address may show a process in a minute.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    database_url: Annotated[str, AfterValidator(_database_url)] = Field(repr=False)
    redis_url: Annotated[str, AfterValidator(_redis_url)] | None = Field(default=None, repr=False)
    pool_size: int = Field(default=10, ge=1, le=100)
    pool_timeout_seconds: float = Field(default=30, gt=0, le=300)
    cache_ttl_seconds: float = Field(default=300, gt=0)
    cache_timeout_seconds: float = Field(default=0.1, gt=0)
    payments_url: HttpUrl | None = None
    delivery_url: HttpUrl | None = None
    connect_timeout_seconds: float = Field(default=0.5, gt=0)
    read_timeout_seconds: float = Field(default=2, gt=0)
    deadline_seconds: float = Field(default=5, gt=0)
    retry_attempts: int = Field(default=4, ge=1)
    retry_wait_seconds: float = Field(default=0.1, gt=0)
    retry_budget: float = Field(default=10, ge=0)
    retry_budget_share: float = Field(default=0.1, ge=0, le=1)
    breaker_window_seconds: float = Field(default=10, gt=0)
    breaker_minimum_calls: int = Field(default=10, ge=1)
    breaker_failure_rate: float = Field(default=0.5, gt=0, le=1)
    breaker_recovery_seconds: float = Field(default=5, gt=0)
    breaker_successes: int = Field(default=3, ge=1)
    bulkhead_size: int = Field(default=3, ge=1)
    bulkhead_queue: int = Field(default=1, ge=0)
    bulkhead_wait_seconds: float = Field(default=0.2, ge=0)
    cors_origins: Annotated[frozenset[str], NoDecode, BeforeValidator(_listed)] = frozenset()
    compress_from_bytes: int | None = Field(default=None, ge=0)
    order_watchers: int | None = Field(default=None, ge=1)
    order_watch_seconds: float = Field(default=1, gt=0)
    otel_exporter_otlp_endpoint: HttpUrl | None = None
    trace_ratio: float = Field(default=1, ge=0, le=1)
    trace_slow_seconds: float = Field(default=1, gt=0)
    trace_span_limit: int = Field(default=5000, ge=1)
    slo_availability: float = Field(default=0.999, gt=0, lt=1)
    slo_latency: float = Field(default=0.99, gt=0, lt=1)
    slo_latency_seconds: float = Field(default=0.25, gt=0)
    slo_window_days: int = Field(default=28, ge=1)
    slo_minimum_requests: int = Field(default=100, ge=1)
    rate_limit_per_user: int | None = Field(default=None, ge=1)
    rate_limit_per_address: int | None = Field(default=None, ge=1)
    rate_limit_window_seconds: float = Field(default=60, gt=0)
    rate_limit_fail_open: bool = True
    api_keys: Annotated[frozenset[str], NoDecode, BeforeValidator(_listed)] = Field(default=frozenset(), repr=False)
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)] = ()
    warehouse_url: HttpUrl | None = None
    marketplace_token: SecretStr | None = None
    order_total_max: int | None = Field(default=None, ge=1)
    order_attempts: int = Field(default=5, ge=1)
    order_wait_seconds: float = Field(default=0.02, ge=0)
    uploads_folder: Path = Path(tempfile.gettempdir(), "shop-uploads")
    upload_limit_bytes: int = Field(default=5_000_000, ge=1)
    body_limit_bytes: int = Field(default=1_000_000, ge=1)
    scanner_limit_bytes: int = Field(default=25_000_000, ge=1)
    page_limit_default: int = Field(default=20, ge=1)
    page_limit_max: int = Field(default=100, ge=1, le=1000)
    cursor_key: SecretStr | None = Field(default=None, min_length=32)
    idempotency_key_required: bool = False
    idempotency_key_hours: float = Field(default=24, gt=0)
    idempotency_claim_seconds: float = Field(default=30, gt=0)
    v1_deprecated_at: AwareDatetime | None = None
    v1_sunset_at: AwareDatetime | None = None
    v1_migration_guide: HttpUrl | None = None
    back_office_clerk_token: SecretStr | None = None
    back_office_manager_token: SecretStr | None = None
    back_office_wrong_tokens: int = Field(default=10, ge=1)

    @model_validator(mode="after")
    def _default_fits_the_maximum(self) -> Self:
        if self.page_limit_default > self.page_limit_max:
            raise ValueError(f"PAGE_LIMIT_DEFAULT must not exceed PAGE_LIMIT_MAX, which is {self.page_limit_max}")
        return self

    @model_validator(mode="after")
    def _deprecated_before_it_is_gone(self) -> Self:
        if self.v1_sunset_at and not (self.v1_deprecated_at and self.v1_deprecated_at <= self.v1_sunset_at):
            raise ValueError("V1_SUNSET_AT needs a V1_DEPRECATED_AT that is not later")
        return self

    @classmethod
    def from_environment(cls) -> Self:
        """Read the environment.

        Raises:
            SettingsError: with one message that tells all problems at once and no password.
        """
        try:
            return cls()  # type: ignore[call-arg]  # the values come from the environment
        except ValidationError as error:
            problems = "\n".join(f"  {_problem(detail)}" for detail in error.errors())
            raise SettingsError(f"The shop cannot start with these settings:\n{problems}") from None


def settings_of(app: Flask) -> Settings:
    """The settings that the application was made with."""
    return cast("Settings", app.config["SETTINGS"])


def _problem(detail: ErrorDetails) -> str:
    """One line: the variable, what came, what is expected."""
    expected = detail["msg"].removeprefix("Value error, ")
    if not detail["loc"]:
        return f"{expected}."
    name = str(detail["loc"][0]).upper()
    if detail["type"] == "missing":
        return f"{name} is not set: expected {POSTGRESQL}."
    return f"{name} is {_shown(detail['input'])}: expected {expected[0].lower()}{expected[1:]}."


def _shown(value: object) -> str:
    """The value as it may be printed: whatever could be a password is struck out."""
    without_credentials = re.sub(r"(//|^)[^/]*:.*@", r"\1***@", str(value))
    return repr(re.sub(r"(?i)(passw\w*=)[^&\s]*", r"\1***", without_credentials))
