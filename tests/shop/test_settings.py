"""The settings, and what is said when they are wrong."""

import pytest

from shop import create_app
from shop.settings import Settings, SettingsError

URL = "postgresql://shop:hunter2@127.0.0.1:5432/shop"
NAMES = ("DATABASE_URL", "REDIS_URL", "PAYMENTS_URL", "POOL_SIZE", "PAGE_LIMIT_DEFAULT", "PAGE_LIMIT_MAX")


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "POOL_TIMEOUT_SECONDS"):
        monkeypatch.delenv(name, raising=False)


def message(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        create_app()
    assert raised.value.__suppress_context__  # pydantic's own words, with the values in them, stay out of the log
    return str(raised.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_way_to_write_the_scheme_ends_at_psycopg(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("DATABASE_URL", URL.replace("postgresql", scheme))
    assert Settings.from_environment().database_url == URL.replace("postgresql", "postgresql+psycopg")


def test_all_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    values = (URL, "redis://127.0.0.1:1/0", "http://127.0.0.1:2", "3", "4", "5")
    for name, value in zip(NAMES, values, strict=True):
        monkeypatch.setenv(name, value)
    settings = create_app().config["SETTINGS"]
    assert settings.redis_url == "redis://127.0.0.1:1/0"
    assert str(settings.payments_url) == "http://127.0.0.1:2/"
    assert (settings.pool_size, settings.page_limit_default, settings.page_limit_max) == (3, 4, 5)


def test_an_empty_variable_is_one_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("REDIS_URL", "")
    assert Settings.from_environment().redis_url is None
    assert "DATABASE_URL is not set" in message(monkeypatch, DATABASE_URL="")


def test_a_missing_database_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    told = message(monkeypatch)
    assert "DATABASE_URL is not set: expected a PostgreSQL address such as postgresql://" in told


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = message(monkeypatch, REDIS_URL="http://x", PAYMENTS_URL="nowhere", POOL_SIZE="many", PAGE_LIMIT_MAX="0")
    lines = told.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [
        "DATABASE_URL",
        "REDIS_URL",
        "POOL_SIZE",
        "PAYMENTS_URL",
        "PAGE_LIMIT_MAX",
    ]
    assert "'http://x': expected a Redis address such as redis://" in lines[1]
    assert "'many'" in lines[2]


@pytest.mark.parametrize(
    "value",
    [
        "mysql://shop:hunter2@127.0.0.1/shop",
        "postgresql://shop:hunter2@127.0.0.1",
        "postgresql://shop:hunter2@127.0.0.1:port/shop",
        "shop:hunter2@127.0.0.1/shop",
        "postgresql//shop:hunter2@127.0.0.1/shop",
        "postgresql://shop:p@ss:hunter2@127.0.0.1:port/shop",
        "postgresql://shop:pa/hunter2@127.0.0.1:port/shop",
        "host=127.0.0.1 password=hunter2",
        "mysql://127.0.0.1/shop?user=shop&password=hunter2",
    ],
)
def test_a_password_is_never_told(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    told = message(monkeypatch, DATABASE_URL=value)
    assert "DATABASE_URL is '" in told
    assert "hunter2" not in told


def test_the_settings_do_not_show_addresses_with_passwords() -> None:
    assert "hunter2" not in repr(Settings(database_url=URL, redis_url="redis://:hunter2@127.0.0.1/0"))


def test_the_default_page_fits_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    told = message(monkeypatch, DATABASE_URL=URL, PAGE_LIMIT_DEFAULT="50", PAGE_LIMIT_MAX="10")
    assert "PAGE_LIMIT_DEFAULT must not exceed PAGE_LIMIT_MAX, which is 10." in told


def test_lists_have_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("API_KEYS", "first, second,")
    monkeypatch.setenv("TRUSTED_PROXIES", "10.0.0.0/8,::1")
    settings = Settings.from_environment()
    assert settings.api_keys == {"first", "second"}
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert "first" not in repr(settings)


def test_a_proxy_is_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    told = message(monkeypatch, DATABASE_URL=URL, TRUSTED_PROXIES="10.0.0.0/8,everybody")
    assert "TRUSTED_PROXIES is '10.0.0.0/8,everybody': expected addresses or networks with commas" in told


@pytest.mark.parametrize("deprecated", ["", "2026-03-02T00:00:00Z"])
def test_a_version_is_deprecated_before_it_is_gone(monkeypatch: pytest.MonkeyPatch, deprecated: str) -> None:
    dates = {"V1_DEPRECATED_AT": deprecated, "V1_SUNSET_AT": "2026-03-01T23:00:00-00:30"}
    told = message(monkeypatch, DATABASE_URL=URL, **dates)
    assert "V1_SUNSET_AT needs a V1_DEPRECATED_AT that is not later." in told


def test_a_version_may_end_when_it_is_deprecated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("V1_DEPRECATED_AT", "2026-03-01T23:30:00Z")
    monkeypatch.setenv("V1_SUNSET_AT", "2026-03-01T23:00:00-00:30")
    settings = Settings.from_environment()
    assert settings.v1_deprecated_at == settings.v1_sunset_at


def test_a_date_says_its_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "V1_DEPRECATED_AT" in message(monkeypatch, DATABASE_URL=URL, V1_DEPRECATED_AT="2026-03-01T00:00:00")
