"""Says whether a server answers at a URL, and which version it is."""

from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shopfloor.errors import UserError

OLDEST_POSTGRES = 14
OLDEST_REDIS = 7
TIMEOUT_SECONDS = 5


def postgres_version(url: str) -> str:
    """The version of the server at a `postgresql+psycopg://` URL, such as "18.6".

    Raises:
        psycopg.Error: it does not answer, or refuses us.
    """
    plain = url.replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(plain, connect_timeout=TIMEOUT_SECONDS) as connection:
        major, minor = divmod(connection.info.server_version, 10_000)
    return f"{major}.{minor}"


def redis_version(url: str) -> tuple[str, str]:
    """The kind and the version of the server at a `redis://` URL, such as ("valkey", "9.1.2").

    Raises:
        redis.RedisError: it does not answer, or refuses us.
    """
    # The client would try a dead server again and again, for seconds.
    client = redis.Redis.from_url(
        url,
        socket_connect_timeout=TIMEOUT_SECONDS,
        socket_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )
    with client:
        facts = client.info("server")
    kind = "valkey" if "valkey_version" in facts else "redis"
    return kind, facts[f"{kind}_version"]


def given_database(text: str) -> str:
    """Check the server that DATABASE_URL names; return its URL with SQLAlchemy's scheme for psycopg.

    Raises:
        UserError: the URL is not one, or the server does not answer, refuses us, or is too old. The message never
            holds the password.
    """
    parts = parse("DATABASE_URL", text, ("postgresql", "postgres", "postgresql+psycopg"))
    url = f"postgresql+psycopg:{text.split(':', 1)[1]}"
    try:
        version = postgres_version(url)
    except psycopg.Error as error:
        raise refusal("DATABASE_URL", "PostgreSQL", parts, error) from None
    if int(version.split(".")[0]) < OLDEST_POSTGRES:
        raise UserError(
            f"DATABASE_URL: the server is PostgreSQL {version}, but {OLDEST_POSTGRES} is the oldest that will do."
        )
    return url


def given_redis(text: str) -> str:
    """Check the server that REDIS_URL names; return its URL with a scheme that the client knows.

    Raises:
        UserError: as for `given_database`.
    """
    parts = parse("REDIS_URL", text, ("redis", "rediss", "unix", "valkey", "valkeys"))
    url = text.replace("valkey", "redis", 1) if parts.scheme.startswith("valkey") else text
    try:
        kind, version = redis_version(url)
    except (redis.RedisError, ValueError) as error:
        raise refusal("REDIS_URL", "Valkey", parts, error) from None
    if kind == "redis" and int(version.split(".")[0]) < OLDEST_REDIS:
        raise UserError(f"REDIS_URL: the server is Redis {version}, but {OLDEST_REDIS} is the oldest that will do.")
    return url


def parse(variable: str, text: str, schemes: tuple[str, ...]) -> SplitResult:
    """Take a URL apart, and refuse one that clients read in different ways: their messages could tell the password."""
    try:
        parts = urlsplit(text)
        well_formed = parts.netloc.count("@") <= 1 and (parts.port or True)
    except ValueError:
        well_formed = False
    if not well_formed:
        raise UserError(
            f"{variable} is not a valid URL. Characters such as @ : / ? # % in a password are written as %40 and so on."
        )
    if parts.scheme not in schemes:
        raise UserError(f"{variable} begins with {parts.scheme or 'no scheme'}:, but should with {schemes[0]}://")
    return parts


def refusal(variable: str, name: str, parts: SplitResult, error: Exception) -> UserError:
    """What to tell a user whose server did not answer or let us in."""
    reason = " ".join(str(error).split())
    for secret in (parts.password, unquote(parts.password or ""), *parse_qs(parts.query).get("password", [])):
        if secret:
            reason = reason.replace(secret, "***")
    where = f"{parts.hostname or 'this machine'}{f':{parts.port}' if parts.port else ''}"
    return UserError(
        f"{variable} is set, but its server at {where} cannot be used: {reason}\n"
        f"Correct {variable}, or unset it to use a {name} of Shopfloor's own."
    )
