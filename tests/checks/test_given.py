"""The modules that are imported once for all of the learner's processes."""

import ast
import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shopfloor.checks import given as given_module
from shopfloor.checks.given import MODULES, forget_shop, given, lend
from shopfloor.paths import Material, material

TELL_THE_TIME = {"now", "utcnow", "today", "time", "time_ns", "localtime", "gmtime"}


@pytest.fixture(autouse=True)
def _no_shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No shop has been imported, and what is lent is forgotten afterwards."""
    imported = {name: module for name, module in sys.modules.items() if _is_shop(name)}
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    forget_shop()
    yield
    forget_shop()
    sys.modules.update(imported)


@pytest.fixture
def labs(tmp_path: Path) -> Path:
    """A copy of the shop."""
    shutil.copytree(material().labs / "shop", tmp_path / "labs" / "shop")
    return tmp_path / "labs"


def test_a_module_that_is_the_same_is_lent(labs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lent = {one.name: one.module for one in given()}
    assert list(lent) == [f"shop.{name}" for name in MODULES]
    monkeypatch.syspath_prepend(labs)
    lend(labs)
    shop = importlib.import_module("shop")
    assert {name: sys.modules[name] for name in lent} == lent
    assert shop.__file__ == str(labs / "shop" / "__init__.py")
    assert shop.models is lent["shop.models"]
    assert sys.modules["shop.back_office"].__file__ == str(labs / "shop" / "back_office.py")


def test_nothing_is_lent_from_the_first_that_differs_on(labs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lent = {one.name: one.module for one in given()}
    with (labs / "shop" / "foundations" / "validation.py").open("a") as file:
        file.write("WRITTEN_BY = 'a learner'\n")
    monkeypatch.syspath_prepend(labs)
    lend(labs)
    importlib.import_module("shop")
    assert sys.modules["shop.models"] is lent["shop.models"]
    assert sys.modules["shop.foundations.validation"].WRITTEN_BY == "a learner"
    assert sys.modules["shop.shapes"] is not lent["shop.shapes"]
    assert sys.modules["shop.shapes"].Strict is sys.modules["shop.foundations.validation"].Strict


def test_a_module_that_somebody_is_at_work_on(labs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (labs / "shop" / "models.py").write_text("class Produ")
    monkeypatch.setattr(given_module, "material", lambda: Material(labs.parent))
    assert [one.name for one in given.__wrapped__()] == ["shop.settings", "shop.database", "shop.outgoing"]


def test_no_trace_is_left(labs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_module, "material", lambda: Material(labs.parent))
    given.__wrapped__()
    assert not [name for name in sys.modules if _is_shop(name)]


@pytest.mark.parametrize("module", MODULES)
def test_each_imports_only_those_before_it(module: str) -> None:
    tree = ast.parse((material().labs / "shop" / Path(*module.split("."))).with_suffix(".py").read_bytes())
    imported = {node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module}
    own = {name.removeprefix("shop.") for name in imported if _is_shop(name)}
    assert own <= set(MODULES[: MODULES.index(module)])


@pytest.mark.parametrize("module", MODULES)
def test_none_asks_for_the_time_of_day(module: str) -> None:
    """A check may turn the clock of a shop, which one that is imported before then would not notice."""
    tree = ast.parse((material().labs / "shop" / Path(*module.split("."))).with_suffix(".py").read_bytes())
    asked = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not {name for name in asked if name.rpartition(".")[2] in TELL_THE_TIME} - {"func.now"}


def _is_shop(name: str) -> bool:
    return name.partition(".")[0] == "shop"
