"""Where and when a page was measured, in words."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

BUSY = "The machine was busy with other work while this was measured."


def day(provenance: Mapping[str, Any]) -> str:
    """The day of the measurement: `21 November 2025`."""
    moment = datetime.fromisoformat(provenance["date"])
    return f"{moment.day} {moment:%B %Y}"


def machine(provenance: Mapping[str, Any]) -> str:
    """The machine in one line: `AMD EPYC 7B13, 2 cores, 8 GiB, Linux 6.1`."""
    cores = provenance["cores"]
    size = f"{cores} core{'' if cores == 1 else 's'}, {provenance['memory_gib']:g} GiB"
    return f"{provenance['processor']}, {size}, {provenance['os']}"


def programs(provenance: Mapping[str, Any]) -> str:
    """The programs that ran, with their versions: `Python 3.11.9, PostgreSQL 18.6`."""
    names = {"postgresql": "PostgreSQL", "valkey": "Valkey"}
    servers = (f"{names.get(name, name)} {version}" for name, version in provenance["versions"].items())
    return ", ".join([f"Python {provenance['python']}", *servers])


def in_full(provenance: Mapping[str, Any]) -> str:
    """Everything in one sentence, for the line that unfolds below a figure."""
    commit = f" at commit {provenance['commit']}" if provenance["commit"] else ""
    return f"{machine(provenance)}; {programs(provenance)}{commit}."
