"""What the learner's shop has logged, as the end of a sentence."""

import re

from shopfloor.checks.shop import Shop

# What differs from run to run, or says nothing.
NOISE = re.compile(r" at 0x[0-9a-f]+| \(Background on .*\)")


def logged_error(shop: Shop, *, patience: float = 0.3) -> str:
    """The last error that the shop logged, and where in it that was raised; empty if there is none.

    Args:
        shop: the learner's.
        patience: seconds until it must have been read: it has been printed by the process already.
    """
    error = last_error(shop.printed(lambda output: bool(last_error(output)), patience=patience))
    return error and f", and in the shop's log: {error}"


def last_error(output: str) -> str:
    """The line that names the error of the last traceback, and its place; empty if there is none, or not all of it."""
    _, found, traceback = output.rpartition("Traceback (most recent call last):\n")
    error = re.search(r"^(?:\w+\.)*(\w+(?:: .*)?)\n", traceback, re.MULTILINE)
    if not found or not error:
        return ""
    frames = re.findall(r'/(shop/[\w/]+\.py)", line (\d+)', traceback)
    return NOISE.sub("", error[1]) + (f" ({frames[-1][0]}, line {frames[-1][1]})" if frames else "")
