"""The labs: what `lab.toml` says of each, found by address."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shopfloor import contents
from shopfloor.errors import UserError
from shopfloor.paths import material

if TYPE_CHECKING:
    from shopfloor.databases import Size  # not at run time: a hint must not wait for SQLAlchemy

BESIDE = "beside"
"""Marks the checks that a second process judges beside the others: with shops, providers and a database of its own."""
HINTS = 3
PROVIDERS = frozenset({"payments", "delivery"})


@dataclass(frozen=True)
class LabOutage:
    """What goes wrong outside the shop while it is under load.

    Attributes:
        provider: where: `payments` or `delivery`.
        start: from which second of the measured time on; at least 1, so that there is a time before.
        end: until which; at least two seconds later.
        fault: what, as a provider's plan writes it: `hang`, `error 503`.

    Raises:
        ValueError: it is not so.
    """

    provider: str
    start: int
    end: int
    fault: str

    def __post_init__(self) -> None:
        if self.start < 1 or self.end < self.start + 2:
            raise ValueError(f"an outage cannot last from second {self.start} to second {self.end}")


@dataclass(frozen=True)
class LabLoad:
    """The load of a lab whose point is performance; its users are those of `load.py`.

    Attributes:
        users: how many ask at once.
        seconds: how long each shop is asked.
        providers: what the shop has outside, of `payments` and `delivery`.
        outage: what goes wrong with one of them meanwhile.
        settings: more of the shop's settings, by the names of their environment variables.

    Raises:
        ValueError: the outage is of what is not there, or lasts too long.
    """

    users: int = 16
    seconds: int = 8
    providers: tuple[str, ...] = ()
    outage: LabOutage | None = None
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if unknown := set(self.providers) - PROVIDERS:
            raise ValueError(f"no provider is called {', '.join(sorted(unknown))}")
        if self.outage and self.outage.provider not in self.providers:
            raise ValueError(f"the outage is of {self.outage.provider}, which is not among the load's providers")
        if self.outage and self.outage.end > self.seconds:
            raise ValueError(f"the outage ends after the load's {self.seconds} seconds")


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
        needs: what else its checks need: a `valkey` of its own, the providers `payments` and `delivery`,
            a receiver of `traces`.
        solved: topics whose solution the shop has that its file is laid over.
        seconds: how long its checks may take, where that is longer than for others.
        load: how `shopfloor load` loads it.
    """

    address: str
    folder: Path
    title: str
    minutes: int
    read: tuple[str, ...]
    data: "Size"
    hints: tuple[str, ...]
    covers: tuple[str, ...]
    needs: tuple[str, ...] = ()
    solved: tuple[str, ...] = ()
    seconds: float | None = None
    load: LabLoad = LabLoad()

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
    labs = {lab.address: lab for lab in map(read_lab, sorted(material().labs.glob("*/*/lab.toml")))}
    briefs = [page.removeprefix("labs/").removesuffix("/brief") for page in contents.pages(material().root)]
    return {address: labs[address] for address in (*briefs, *labs) if address in labs}


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
            needs=_texts(content, "needs") if "needs" in content else (),
            solved=_texts(content, "solved") if "solved" in content else (),
            seconds=float(content["seconds"]) if "seconds" in content else None,
            load=_load(content.get("load", {})),
            hints=_texts(content, "hints"),
            covers=_texts(content, "covers"),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a well-formed lab.toml: {error}") from error
    if len(lab.hints) != HINTS:
        raise UserError(f"{path}: a lab has {HINTS} hints, not {len(lab.hints)}.")
    return lab


def _load(table: Mapping[str, Any]) -> LabLoad:
    settings = dict(table)
    if "providers" in settings:
        settings["providers"] = _texts(settings, "providers")
    if "outage" in settings:
        settings["outage"] = LabOutage(**settings["outage"])
    if "settings" in settings:
        settings["settings"] = {name: _text(settings["settings"], name) for name in settings["settings"]}
    return LabLoad(**settings)


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content[name]
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{name} is not text")
    return value.strip()


def _texts(content: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(_text({name: value}, name) for value in content[name])
