"""Make .venv and install what requirements.lock pins, once; do nothing when that is done.

Runs on whatever ``python3`` the machine has, before anything is installed, so it imports the
standard library alone and keeps to a syntax that an old interpreter can read far enough to be
told that it is old.
"""

from __future__ import print_function

import hashlib
import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "installed")
INPUTS = ("requirements.lock", "pyproject.toml")


def say(text):
    print(text)
    sys.stdout.flush()


def fail(text):
    sys.stderr.write(text.rstrip() + "\n")
    sys.exit(1)


def require_python():
    if sys.version_info < OLDEST:
        found = ".".join(str(part) for part in sys.version_info[:3])
        fail(
            "Shopfloor needs Python 3.11 or newer; {0} is Python {1}.\n"
            "Install a newer one, then name it:  make start PYTHON=python3.12".format(sys.executable, found)
        )


def wanted_stamp():
    """What the environment must have been made from: the inputs' content and the interpreter."""
    digest = hashlib.sha256(sys.version.encode())
    digest.update(VENV.encode())  # a moved folder's scripts name the old one
    for name in INPUTS:
        with open(os.path.join(ROOT, name), "rb") as source:
            digest.update(source.read())
    return digest.hexdigest()


def is_current():
    try:
        with open(STAMP) as stamp:
            return stamp.read() == wanted_stamp()
    except OSError:
        return False


def venv_python():
    return os.path.join(VENV, "bin", "python")


def make_venv(uv):
    shutil.rmtree(VENV, ignore_errors=True)
    if uv:
        return subprocess.call([uv, "venv", "--quiet", "--python", sys.executable, VENV]) == 0
    made = subprocess.run(
        [sys.executable, "-m", "venv", VENV], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if made.returncode == 0:
        return True
    shutil.rmtree(VENV, ignore_errors=True)
    version = "{0}.{1}".format(*sys.version_info[:2])
    fail(
        "Python {0} could not make a virtual environment:\n\n{1}\n\n"
        "On Debian, Ubuntu and WSL:  sudo apt install python{0}-venv\n"
        "On Fedora:                  sudo dnf install python3\n"
        "On macOS:                   brew install python\n"
        "Or install uv (https://docs.astral.sh/uv/), which needs no venv module.".format(version, made.stdout.strip())
    )


def run_quietly(command):
    """Run an installer; show its output only when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    if done.returncode:
        sys.stderr.write(done.stdout[-4000:] + "\n")
    return done.returncode == 0


def install(uv):
    """Install what the lock names, which is all there is: nothing is left for the installer to resolve."""
    lock = os.path.join(ROOT, "requirements.lock")
    if uv:
        pip = [uv, "pip", "install", "--quiet", "--python", venv_python(), "--no-deps"]
    else:
        pip = [venv_python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip.append("--no-compile")  # it would use one processor
    installed = run_quietly(pip + ["--require-hashes", "-r", lock]) and run_quietly(
        pip + ["--no-build-isolation", "--editable", ROOT]
    )
    if installed and not uv:
        compile_packages()
    return installed


def compile_packages():
    """Compile them on all processors. What cannot be compiled, such as examples of syntax errors, is never imported."""
    packages = os.path.join(VENV, "lib")
    subprocess.call([venv_python(), "-W", "ignore", "-m", "compileall", "-qq", "-j", "0", packages])


def main():
    require_python()
    if is_current():
        return
    uv = shutil.which("uv")
    tool = "uv" if uv else "pip"
    say("Environment: installing the pinned packages into .venv with {0} (first time: a minute or two)".format(tool))
    done = make_venv(uv) and install(uv)
    if not done and uv:
        say("Environment: uv could not do it; trying with pip, which may know another package index")
        done = make_venv(None) and install(None)
    if not done:
        fail(
            "The packages could not be installed; what the installer said stands above.\n"
            "Nothing else was changed. Mend the cause (often the network or a proxy) and run make again."
        )
    with open(STAMP, "w") as stamp:
        stamp.write(wanted_stamp())
    say("Environment: ready")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("\nInterrupted. Run make again: the installation starts over where it is not complete.")
