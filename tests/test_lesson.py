"""What chapters import: what is not seen from any single chapter."""

import psutil
import pytest

from shopfloor import lesson
from shopfloor.services import Services


def test_served_shops_share_no_cache(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chapters run side by side: one's cached products and counted requests would be met by another's shop."""
    monkeypatch.setattr(lesson, "_services", lambda: services)
    with lesson.serving("small", one="naive", other="naive") as servers:
        caches = {psutil.Process(server.pid).environ()["REDIS_URL"] for server in servers.values()}
    assert len(caches - {services.redis_url}) == 2
