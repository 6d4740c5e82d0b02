"""The README shows a lab as it looks in the terminal."""

from pathlib import Path

import pytest

from tests.kit import copy_kit
from tests.learner.transcript import comparable, record, recorded


@pytest.mark.slow
def test_the_readme_shows_what_a_learner_sees(tmp_path: Path) -> None:
    shown = record(copy_kit(tmp_path / "kit"))
    assert comparable(shown) == comparable(recorded()), "record it anew: python -m tests.learner.transcript"
    assert max(map(len, recorded().splitlines())) <= 80
