"""Makes and checks `requirements.lock`: every package at one version, with hashes, on any platform.

A version that is locked stays locked while it satisfies `pyproject.toml`, so neither the check nor
a rewrite moves because something new was released.

    python tools/lock.py              write the lock anew
    python tools/lock.py upgrade      the same, with the newest versions allowed
    python tools/lock.py check        fail if the lock no longer fits pyproject.toml
"""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HEADER = "# Written by `make lock` from pyproject.toml. Do not edit.\n\n"


class ResolutionError(Exception):
    """The requirements could not be resolved; the message is what uv said."""


def resolve(*options: str) -> str:
    """Return the lock that pyproject.toml asks for, with the present versions where they fit.

    Raises ResolutionError where neither a package index nor uv's cache answers, or nothing fits.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, LOCK.name)
        if LOCK.exists():
            shutil.copy(LOCK, output)
        command = [str(Path(sys.executable).parent / "uv"), "pip", "compile", "pyproject.toml"]
        command += ["--group=dev", "--universal", "--python-version=3.11", "--generate-hashes"]
        command += ["--no-header", "--no-emit-index-url", "--no-emit-find-links", "--quiet"]
        command += [*options, f"--output-file={output}"]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
        if ran.returncode != 0:
            raise ResolutionError(ran.stderr.strip())
        return HEADER + output.read_text("utf-8")


def check() -> int:
    """Compare the lock with what pyproject.toml asks for; the exit status is 0 if it fits.

    Hashes are left out, as a wheel may be added to a locked version. When nothing can be resolved,
    for want of a network, this only warns; in CI, where that must not pass for a success, it fails.
    """
    try:
        wanted = resolve()
    except ResolutionError as error:
        print(
            f"{error}\nrequirements.lock could not be compared with pyproject.toml (offline?)",
            file=sys.stderr,
        )
        return 1 if os.environ.get("CI") else 0
    locked = LOCK.read_text("utf-8") if LOCK.exists() else ""
    difference = list(difflib.unified_diff(_pins(locked), _pins(wanted), "locked", "wanted", n=0, lineterm=""))
    if difference:
        print("\n".join(difference))
        print("requirements.lock does not fit pyproject.toml: run `make lock`", file=sys.stderr)
    return 1 if difference else 0


def _pins(lock: str) -> list[str]:
    return [line.removesuffix(" \\") for line in lock.splitlines() if line[:1] not in {"", " ", "#"}]


def main() -> int:
    """Run from the command line; the exit status is 0 when all is well."""
    if sys.argv[1:] == ["check"]:
        return check()
    try:
        LOCK.write_text(resolve(*(["--upgrade"] if sys.argv[1:] == ["upgrade"] else [])), "utf-8")
    except ResolutionError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
