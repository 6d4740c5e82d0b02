"""The scanner for malware that every file from outside has to pass: given code, no lab changes it.

It stands where clamd would, and knows one thing: the test file of EICAR, which scanners agree to find and which does no
harm (https://www.eicar.org/download-anti-malware-testfile/). Like clamd, it refuses to judge what is too large.
"""

from pathlib import Path

MARK = b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE"  # not the whole of it, or a scanner would find this very module
CHUNK = 2**20


class NotScanned(Exception):  # noqa: N818 - neither good nor bad has been found
    """The scanner cannot say whether the file is clean."""


def scan(file: Path, limit_bytes: int) -> str | None:
    """Look for malware.

    Args:
        file: which, closed and complete.
        limit_bytes: the largest that is judged, as clamd's `StreamMaxLength`.

    Returns:
        The name of what was found, or None.

    Raises:
        NotScanned: the file is larger than that.
    """
    if file.stat().st_size > limit_bytes:
        raise NotScanned(f"The scanner judges {limit_bytes} bytes at most.")
    tail = b""
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            if MARK in tail + chunk:
                return "Eicar-Test-Signature"
            tail = chunk[-len(MARK) :]
    return None
