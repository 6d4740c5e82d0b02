"""Modules of the shop that few labs change, imported once and lent to the learner's processes that have the same.

To import them takes most of the time in which a shop starts, and some checks start six. The process that lends them
runs nothing of the learner's for it: these files are the kit's.
"""

import importlib
import sys
from dataclasses import dataclass
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from sqlalchemy.orm import configure_mappers

from shopfloor.paths import material

# Each imports no other of the shop's than those before it. None keeps the time of day, which checks turn.
MODULES = ("settings", "database", "outgoing", "models", "price_list", "foundations.validation", "shapes")


@dataclass(frozen=True)
class Given:
    """A module that was imported, and the content of its file."""

    name: str
    module: ModuleType
    path: Path
    content: bytes


@cache
def given() -> tuple[Given, ...]:
    """Import the modules, up to the first that cannot be, and leave no trace of them among this process's own."""
    labs = material().labs
    package = sys.modules["shop"] = ModuleType("shop")  # its own file would import all that labs change
    package.__path__ = [str(labs / "shop")]
    modules = []
    try:
        for name in MODULES:
            modules.append(_imported(labs, name))  # noqa: PERF401 - those before a failure are wanted
        configure_mappers()
    except Exception:  # noqa: BLE001 - somebody is at work on them; each shop that starts will say so
        return tuple(modules)
    finally:
        forget_shop()
    return tuple(modules)


def forget_shop() -> None:
    """Have the next import of the shop be a first one."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


def lend(stage: Path) -> None:
    """Have this process's imports find the modules made already, up to the first whose file is another in this stage.

    What follows that one may import it.
    """
    lent = {}
    for one in given():
        if not _is_same(stage / one.path, one.content):
            break
        lent[one.name] = one.module
    sys.meta_path.insert(0, _Lent(lent))


def _imported(labs: Path, module: str) -> Given:
    path = Path("shop", *module.split(".")).with_suffix(".py")
    content = (labs / path).read_bytes()
    return Given(f"shop.{module}", importlib.import_module(f"shop.{module}"), path, content)


def _is_same(file: Path, content: bytes) -> bool:
    try:
        return file.read_bytes() == content
    except OSError:
        return False


class _Lent(MetaPathFinder, Loader):
    """Finds modules in place of those on disk."""

    def __init__(self, modules: dict[str, ModuleType]) -> None:
        self._modules = modules

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """Say that it knows the module."""
        return ModuleSpec(name, self, origin=self._modules[name].__file__) if name in self._modules else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Give it as it is."""
        return self._modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: it was executed when it was imported."""
