"""Making applications and solving topics, for the shop's tests."""

import importlib.util
import sys
from types import ModuleType

import pytest
from flask import Flask
from sqlalchemy import Connection

from shop import create_app
from shop.data import n_plus_one
from shop.settings import Settings
from shopfloor.paths import material


def make_app(url: str, bind: Connection | None = None, **settings: object) -> Flask:
    """The shop, which sends what it sends within `bind`'s transaction if that is given."""
    app = create_app(Settings(database_url=url, **settings))
    app.extensions["engine"].dispose()
    if bind is not None:
        app.extensions["engine"] = bind
    return app


def load_solution(address: str) -> ModuleType:
    """The solution's module of a topic, beside the naive one."""
    spec = importlib.util.spec_from_file_location(
        f"solution_{address.replace('/', '_')}", material().solutions / "shop" / f"{address}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where pydantic looks for the module that a generic model is made in
    spec.loader.exec_module(module)
    return module


def solve_n_plus_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the application read orders as the solution does, for the length of the test."""
    solution = load_solution("data/n_plus_one")
    monkeypatch.setattr(n_plus_one, "orders_page", solution.orders_page)
    monkeypatch.setattr(n_plus_one, "order_detail", solution.order_detail)
