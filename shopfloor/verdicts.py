"""A verdict in words for a terminal of 80 columns, and as JSON for programs.

The JSON is an object with these members; later versions of the kit may add others:

- `address` of the lab, such as `data/indexing`;
- `passed`, a truth value: every check ran and was satisfied;
- `checks`, how many there are (0 if it did not come so far), and `satisfied`, how many of them were;
- `failed`, the title of the first check that was not satisfied, or "";
- `finding`, null or an object with the texts `did`, `got`, `expected`, `matters` (why), and `mistake`: the name of the
  known mistake that it shows, or "";
- `diagnosis`, what that mistake is, or "";
- `story`, what happened, if the file could not be judged, or "";
- `trace`, where it happened, or "";
- `printed`, the first of what the learner's code printed, and `printed_bytes`, how much it was in all;
- `seconds` from the request to the verdict.
"""

import json
import re
import textwrap

from shopfloor.checks.engine import Verdict
from shopfloor.checks.say import Finding
from shopfloor.labs import Lab
from shopfloor.words import WIDTH, counted

PRINTED_LINES = 8
LABEL = 10
INDENT = " " * 4


def as_json(verdict: Verdict) -> str:
    """A verdict for programs, as the top of this file says."""
    return json.dumps(verdict.as_dict(), indent=1)


def render(verdict: Verdict, *, trace: bool = False, following: Lab | None = None) -> str:
    """A verdict in words, as plain text.

    Args:
        verdict: what to tell.
        trace: tell where it happened, too.
        following: the lab to go on with after a pass.
    """
    if verdict.passed:
        parts = [
            f"{verdict.address}: passed. {_all(verdict.checks)} ({verdict.seconds:.1f} s)",
            _next(verdict, following),
        ]
    else:
        outcome = "could not be checked." if verdict.story else "not right yet."
        parts = [f"{verdict.address}: {outcome}", _flowing(verdict.diagnosis or verdict.story)]
        parts += [_evidence(verdict.finding)] if verdict.finding else []
        parts += [_how_far(verdict), _trace(verdict, shown=trace)]
    return _visible("\n\n".join(part for part in [*parts, _printed(verdict)] if part))


def _all(checks: int) -> str:
    return "Its one check holds." if checks == 1 else f"All {checks} checks hold."


def _next(verdict: Verdict, following: Lab | None) -> str:
    lines = ["Compare your answer with the solution:", f"{INDENT}shopfloor diff {verdict.address}"]
    if following:
        lines += [_flowing(f"The next lab is {following.address}: {following.title}")]
    return "\n".join(lines)


def _evidence(finding: Finding) -> str:
    labelled = {"Did:": finding.did, "Got:": finding.got, "Expected:": finding.expected}
    lines = [_hanging(label, text) for label, text in labelled.items()]
    return "\n".join(lines + ([_flowing(f"Why it matters: {finding.matters}")] if finding.matters else []))


def _hanging(label: str, text: str) -> str:
    rest = " " * LABEL
    lines = [_wrapped(line, rest) if line.strip() else "" for line in text.splitlines()] or [rest]
    return label.ljust(LABEL) + "\n".join(lines)[LABEL:]


def _how_far(verdict: Verdict) -> str:
    if not verdict.checks:
        return ""
    hold = "holds" if verdict.satisfied == 1 else "hold"
    far = f"How far: {verdict.satisfied} of {counted(verdict.checks, 'check')} {hold}."
    return _flowing(f"{far} This one does not: {verdict.failed}" if verdict.failed else far)


def _trace(verdict: Verdict, *, shown: bool) -> str:
    if not verdict.trace:
        return ""
    if shown:
        return "Where it happened:\n" + textwrap.indent(verdict.trace.rstrip(), INDENT)
    return f"To see where it happened:\n{INDENT}shopfloor check {verdict.address} --trace"


def _printed(verdict: Verdict) -> str:
    if not verdict.printed_bytes:
        return ""
    lines = verdict.printed.splitlines()
    most = WIDTH - len(INDENT)
    shown = [line if len(line) <= most else f"{line[: most - 3]}..." for line in lines[:PRINTED_LINES]]
    whole = shown == lines and len(verdict.printed.encode()) >= verdict.printed_bytes
    title = f"Your code printed {counted(verdict.printed_bytes, 'byte')}" + (":" if whole else ", beginning with:")
    return "\n".join([title, *(f"{INDENT}{line}".rstrip() for line in shown)])


def _flowing(text: str) -> str:
    """Paragraphs filled anew to the width; lines that are indented or in a list stay lines."""
    paragraphs = re.split(r"\n\s*\n", text.strip("\n"))
    return "\n\n".join(map(_paragraph, paragraphs))


def _paragraph(text: str) -> str:
    lines = text.splitlines()
    if any(line.startswith((" ", "- ", "* ")) for line in lines):
        return "\n".join(line if line.startswith(" ") else _wrapped(line) for line in lines)
    return _wrapped(" ".join(lines))


def _wrapped(text: str, indent: str = "") -> str:
    """Lines of the width; a path, an address or a statement's name is never broken."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _visible(text: str) -> str:
    """Without what a terminal would obey: some of the text is the learner's program's."""
    return "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in text.expandtabs(4))
