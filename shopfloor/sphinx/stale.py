"""Which pages a build must take up again although their own source has not changed.

Sphinx compares sources. Here, pages also depend on the ledger and on each other: a notebook page takes its outputs
from the cache only when it is read, and the derived pages show what other pages and the ledger say. What the last
*finished* build drew from is written beside its doctrees, so that a build broken off half-way is made good.
"""

import hashlib
import json
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from shopfloor.sphinx.facts import facts_of
from shopfloor.sphinx.record import record_of

logger = logging.getLogger(__name__)


def connect(app: Sphinx) -> None:
    """Take part in Sphinx's decision what to read and what to write."""
    app.connect("env-get-outdated", _pages_measured_anew)
    app.connect("env-updated", _pages_drawn_anew)
    app.connect("env-check-consistency", _check_covers)
    app.connect("build-finished", _remember)


def _pages_measured_anew(
    app: Sphinx, env: BuildEnvironment, _added: Set[str], _changed: Set[str], _removed: Set[str]
) -> list[str]:
    """The notebook pages whose entry in the ledger is another than the one they were last drawn from."""
    drawn = _drawn(app).get("measured", {})
    return [
        name for name, signature in _measured(env).items() if name in env.found_docs and drawn.get(name) != signature
    ]


def _pages_drawn_anew(app: Sphinx, env: BuildEnvironment) -> Iterable[str]:
    """The pages that show what is said elsewhere, when that has changed."""
    before, now = _drawn(app), _inputs(env)
    if before.get("navigation") != now["navigation"]:
        return list(env.found_docs)  # the navigation stands on every page
    if before.get("proofs") != now["proofs"]:
        return [name for name, page in record_of(env).items() if page.derived]
    return []


def _check_covers(_app: Sphinx, env: BuildEnvironment) -> None:
    """Complain about claims and labs that cover what the syllabus does not have."""
    facts = facts_of(env)
    known = facts.syllabus.points
    covers = [(f"{name}: the claim “{c.text}”", c.covers) for name, page in facts.pages.items() for c in page.claims]
    covers += [(f"the lab {lab.address}", lab.covers) for lab in facts.labs]
    for what, point_ids in covers:
        for point_id in point_ids:
            if point_id not in known:
                logger.warning("%s covers %s, which the syllabus does not have", what, point_id)


def _remember(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        _memory(app).write_text(json.dumps({**_inputs(app.env), "measured": _measured(app.env)}), encoding="utf8")


def _measured(env: BuildEnvironment) -> dict[str, str]:
    return {name: _digest(page.signature) for name, page in facts_of(env).pages.items()}


def _inputs(env: BuildEnvironment) -> dict[str, Any]:
    record = record_of(env)
    facts = facts_of(env)
    titles = {name: title.astext() for name, title in env.titles.items()}
    documents = {letter: record.page_of_document(letter) for letter in facts.syllabus.documents}
    return {
        # The titles stand in the navigation, and every page that tells a point links to the documents' pages.
        "navigation": _digest([sorted(titles.items()), documents]),
        "proofs": _digest([facts, sorted(record.items()), sorted(env.found_docs)]),
    }


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def _memory(app: Sphinx) -> Path:
    return Path(app.doctreedir) / "shopfloor-drawn.json"


def _drawn(app: Sphinx) -> dict[str, Any]:
    try:
        drawn: dict[str, Any] = json.loads(_memory(app).read_text(encoding="utf8"))
    except FileNotFoundError:
        return {}
    return drawn
