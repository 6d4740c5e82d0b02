"""What a build starts from: the syllabus, the ledger of claims, and the labs. Read once a build, never changed."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError

from shopfloor import syllabus as syllabus_file
from shopfloor.errors import UserError
from shopfloor.syllabus import Syllabus


@dataclass(frozen=True)
class RecordedClaim:
    """A claim as the ledger has it.

    Attributes:
        id: the page's anchor is `claim-<id>`.
        display: the measured figure, as it is read.
        covers: ids of the syllabus points that it shows.
    """

    id: str
    text: str
    display: str
    covers: tuple[str, ...]
    passed: bool


@dataclass(frozen=True)
class MeasuredPage:
    """A notebook page as the ledger has it.

    Attributes:
        executed: false while its outputs are placeholders.
        provenance: where and when it was measured; `None` while it has not been.
        signature: changes whenever anything in the entry does.
    """

    executed: bool
    claims: tuple[RecordedClaim, ...]
    provenance: Mapping[str, Any] | None
    signature: str


@dataclass(frozen=True)
class Lab:
    """A lab, as far as the book needs it.

    Attributes:
        address: such as `data/indexing`.
        covers: ids of the syllabus points that it practises.
    """

    address: str
    title: str
    covers: tuple[str, ...]

    @property
    def page(self) -> str:
        """The name of its brief's page."""
        return f"labs/{self.address}/brief"


@dataclass(frozen=True)
class Facts:
    """Everything that the derived pages are drawn from, apart from the pages themselves."""

    syllabus: Syllabus
    pages: Mapping[str, MeasuredPage]
    labs: tuple[Lab, ...]


_loaded: WeakKeyDictionary[Sphinx, Facts] = WeakKeyDictionary()


def facts_of(env: BuildEnvironment) -> Facts:
    """The facts of the build that `env` belongs to."""
    return _loaded[env.app]


def load(app: Sphinx) -> None:
    """Read the facts when a build begins."""
    root = Path(app.srcdir)
    try:
        syllabus = syllabus_file.load(root / app.config.shopfloor_syllabus)
    except UserError as error:
        raise ExtensionError(str(error)) from error
    _loaded[app] = Facts(syllabus, _pages(root / app.config.shopfloor_ledger), _labs(root / app.config.shopfloor_labs))


def _pages(ledger: Path) -> dict[str, MeasuredPage]:
    """Read the ledger. None yet is a book of which nothing has been executed."""
    if not ledger.is_file():
        return {}
    entries: dict[str, Any] = json.loads(ledger.read_text(encoding="utf8"))["pages"]
    return {
        name: MeasuredPage(
            executed=entry["executed"],
            claims=tuple(_claim(claim) for claim in entry["claims"]),
            provenance=entry["provenance"],
            signature=json.dumps(entry, sort_keys=True),
        )
        for name, entry in entries.items()
    }


def _claim(entry: Mapping[str, Any]) -> RecordedClaim:
    return RecordedClaim(entry["id"], entry["text"], entry["display"], tuple(entry["covers"]), entry["passed"])


def _labs(folder: Path) -> tuple[Lab, ...]:
    return tuple(_lab(file, folder) for file in sorted(folder.glob("*/*/lab.toml")))


def _lab(file: Path, folder: Path) -> Lab:
    about = tomllib.loads(file.read_text(encoding="utf8"))
    return Lab(file.parent.relative_to(folder).as_posix(), about["title"], tuple(about.get("covers", ())))
