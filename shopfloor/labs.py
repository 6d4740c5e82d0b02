"""The labs: what `lab.toml` says of each, found by address."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shopfloor.errors import UserError
from shopfloor.paths import material

if TYPE_CHECKING:
    from shopfloor.databases import Size  # not at run time: a hint must not wait for SQLAlchemy

HINTS = 3


@dataclass(frozen=True)
class Lab:
    """A lab.

    Attributes:
        address: such as `data/indexing`.
        folder: `labs/<address>`.
        title: what it is about.
        minutes: how long it takes.
        read: pages of the book to read first, by address.
        data: the size of the seed data that its checks run on.
        hints: three, from gentle to nearly there.
        covers: the syllabus points that it practises.
    """

    address: str
    folder: Path
    title: str
    minutes: int
    read: tuple[str, ...]
    data: "Size"
    hints: tuple[str, ...]
    covers: tuple[str, ...]

    @property
    def file(self) -> str:
        """The one file to change, in `workspace/shop` as in `labs/shop`."""
        return f"{self.address}.py"

    @property
    def starter(self) -> Path:
        """The file as the learner meets it."""
        return material().labs / "shop" / self.file

    @property
    def solution(self) -> Path:
        """The file solved."""
        return material().solutions / "shop" / self.file

    @property
    def tests(self) -> Path:
        """The checks."""
        return self.folder / f"test_{self.folder.name}.py"

    @property
    def mistakes(self) -> dict[str, Path]:
        """The plausible wrong answers, by name."""
        return {path.stem: path for path in sorted((self.folder / "mistakes").glob("*.py"))}

    @property
    def alternatives(self) -> dict[str, Path]:
        """Right answers unlike the solution, by name."""
        return {path.stem: path for path in sorted((self.folder / "alternatives").glob("*.py"))}


def all_labs() -> dict[str, Lab]:
    """Every lab by its address, in the order of the book.

    Raises:
        UserError: a `lab.toml` is not well formed.
    """
    files = sorted(material().labs.glob("*/*/lab.toml"))
    return {lab.address: lab for lab in map(read_lab, files)}


def find_lab(address: str) -> Lab:
    """The lab at an address.

    Raises:
        UserError: there is none; names the nearest.
    """
    labs = all_labs()
    if address not in labs:
        near = difflib.get_close_matches(address, labs, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(labs)}."
        raise UserError(f"No lab has the address {address!r}. {hint}")
    return labs[address]


def read_lab(path: Path) -> Lab:
    """Read a `lab.toml`.

    Raises:
        UserError: it is not well formed; says where.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        lab = Lab(
            address=path.parent.relative_to(material().labs).as_posix(),
            folder=path.parent,
            title=_text(content, "title"),
            minutes=int(content["minutes"]),
            read=_texts(content, "read"),
            data=content["data"],
            hints=_texts(content, "hints"),
            covers=_texts(content, "covers"),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a well-formed lab.toml: {error}") from error
    if len(lab.hints) != HINTS:
        raise UserError(f"{path}: a lab has {HINTS} hints, not {len(lab.hints)}.")
    return lab


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content[name]
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{name} is not text")
    return value.strip()


def _texts(content: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(_text({name: value}, name) for value in content[name])
