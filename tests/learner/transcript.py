"""What a learner sees, recorded: `python -m tests.learner.transcript` puts it anew into the README.

Times of day and durations are written as those of the recording; the test that compares leaves them out.
"""

import re
import tempfile
from pathlib import Path

import pexpect

from shopfloor.paths import material
from tests.kit import copy_kit
from tests.learner.tiny import Kit

BEGIN, END = "<!-- transcript -->\n```text\n", "```\n<!-- end of transcript -->\n"
ADDRESS, MISTAKE = "data/n_plus_one", "joined_collection_with_limit"


def record(root: Path) -> str:
    """Play the session in a copy of the kit, on a terminal of 80 columns, and return what it showed."""
    kit = Kit(root)
    lab = root / "labs" / ADDRESS
    with kit.terminal("watch", ADDRESS) as terminal:
        text = [f"$ shopfloor watch {ADDRESS}\n"]

        def until(words: str) -> None:
            terminal.expect(words)
            text.extend([terminal.before or "", terminal.match[0]])

        until("q quit\r\n")
        text.append("\n[You ask for orders and their items in one statement, and save the file.]\n")
        kit.file(ADDRESS).write_bytes((lab / "mistakes" / f"{MISTAKE}.py").read_bytes())
        until(r"How far: [^.]*\.[^.]*\.\r\n")
        text.append("\n[You press h.]\n")
        terminal.send("h")
        until(r"Hint 1 of 3.*?\.\r\n(?=.*)")
        text.append("\n[You write it in another way, and save the file.]\n")
        kit.file(ADDRESS).write_bytes((root / "solutions/shop" / f"{ADDRESS}.py").read_bytes())
        until("Press n to go on.|You have finished every lab.")
        text.append("\r\n\n[You press q.]\n")
        terminal.send("q")
        terminal.expect(pexpect.EOF)
    shown = "".join(text).replace("\r\n", "\n")
    return shown.replace(f"Checking {ADDRESS} ...\n", "")  # where the first check had to wait for the seed data


def recorded() -> str:
    """What the README shows."""
    return _readme().read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]


def comparable(text: str) -> str:
    """A transcript without what no two runs share."""
    return re.sub(r"\d\d:\d\d:\d\d", "hh:mm:ss", re.sub(r"\(\d+\.\d s\)", "(n s)", text))


def _readme() -> Path:
    return material().root / "README.md"


def main() -> None:
    """Record it anew."""
    with tempfile.TemporaryDirectory() as folder:
        shown = record(copy_kit(Path(folder) / "kit"))
    readme = _readme().read_text(encoding="utf-8")
    before, rest = readme.split(BEGIN)
    _readme().write_text(before + BEGIN + shown + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
