"""A process that uses the services: says what it does and where they are, a JSON object a line, and holds them until
its standard input ends.

python owner.py STATE [--ordinary-user]
"""

import dataclasses
import json
import os
import pwd
import select
import shutil
import sys
from pathlib import Path

from shopfloor.errors import UserError
from shopfloor.services import running_services


def become_ordinary() -> None:
    """Give up being root, and with it the interpreter if that lies in root's home."""
    "loaded while it can be".encode("idna")
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
    if not os.access(os.path.realpath(sys.executable), os.X_OK):
        system = shutil.which("python3", path=os.defpath + ":/usr/local/bin")
        if not system:
            raise UserError("no Python that an ordinary user can execute")
        sys.executable = system


def main() -> None:
    try:
        if "--ordinary-user" in sys.argv:
            become_ordinary()
        with running_services(Path(sys.argv[1]), progress=lambda message: say({"progress": message})) as services:
            say(dataclasses.asdict(services) | {"state": str(services.state)})
            # Not a plain read: a signal that comes just before the system call would wait for its end.
            while not select.select([sys.stdin], [], [], 0.1)[0]:
                pass
    except UserError as error:
        say({"error": str(error)})


def say(content: dict[str, object]) -> None:
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    main()
