"""The MIME type of a claim's record: for the ledger, not for the reader.

MyST-NB warns about outputs whose type it does not know. A claim shows itself as HTML; its record, which stands
beside that in the same output, is known here and drawn as nothing.
"""

from collections.abc import Sequence
from typing import ClassVar

from docutils import nodes
from myst_nb.core.render import MimeData, NbElementRenderer, load_mime_renders

from shopfloor.claims import MIME_TYPE


class ClaimRecord:
    """MyST-NB's `MimeRenderPlugin` for the MIME type of claims."""

    mime_priority_overrides: ClassVar[Sequence[tuple[str, str, int | None]]] = ()

    @staticmethod
    def handle_mime(_renderer: NbElementRenderer, data: MimeData, _inline: bool) -> list[nodes.Element] | None:
        """Draw nothing for a claim's record; leave every other type to others."""
        return [] if data.mime_type == MIME_TYPE else None


def register() -> None:
    """Add the renderer to MyST-NB's list, once a process: it reads its entry points into one list and keeps that."""
    renderers = load_mime_renders()
    if ClaimRecord not in renderers:
        renderers.append(ClaimRecord)
