"""Makes and checks the locks: every package at one version, with hashes, on any platform.

`requirements.lock` is for work on Runstream, `requirements-frameworks.lock` for that and the tests of its adapters.

A version that is locked stays locked while it satisfies `pyproject.toml`, so neither the check nor
a rewrite moves because something new was released.

    python tools/lock.py              write the locks anew
    python tools/lock.py upgrade      the same, with the newest versions allowed
    python tools/lock.py check        fail if a lock no longer fits pyproject.toml
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
#: The locks, by the dependency group that each is for. The first one bounds the others.
LOCKS = {"dev": LOCK, "frameworks": ROOT / "requirements-frameworks.lock"}
HEADER = "# Written by `make lock` from pyproject.toml. Do not edit.\n\n"


class ResolutionError(Exception):
    """The requirements could not be resolved; the message is what uv said."""


def resolve(group: str, *options: str) -> str:
    """Return the lock that pyproject.toml asks for, with the present versions where they fit.

    Raises ResolutionError where neither a package index nor uv's cache answers, or nothing fits.
    """
    with tempfile.TemporaryDirectory() as folder:
        lock = LOCKS[group]
        output = Path(folder, lock.name)
        if lock.exists():
            shutil.copy(lock, output)
        command = [str(Path(sys.executable).parent / "uv"), "pip", "compile", "pyproject.toml"]
        if lock != LOCK:
            command += [f"--constraints={LOCK}"]
        command += [f"--group={group}", "--universal", "--python-version=3.11", "--generate-hashes"]
        command += ["--no-header", "--no-emit-index-url", "--no-emit-find-links", "--quiet"]
        command += [*options, f"--output-file={output}"]
        ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
        if ran.returncode != 0:
            raise ResolutionError(ran.stderr.strip())
        return HEADER + output.read_text("utf-8")


def check() -> int:
    """Compare the locks with what pyproject.toml asks for; the exit status is 0 if they fit.

    Hashes are left out, as a wheel may be added to a locked version. When nothing can be resolved,
    for want of a network, this only warns; in CI, where that must not pass for a success, it fails.
    """
    return max(_check(group, lock) for group, lock in LOCKS.items())


def _check(group: str, lock: Path) -> int:
    try:
        wanted = resolve(group)
    except ResolutionError as error:
        print(
            f"{error}\n{lock.name} could not be compared with pyproject.toml (offline?)",
            file=sys.stderr,
        )
        return 1 if os.environ.get("CI") else 0
    locked = lock.read_text("utf-8") if lock.exists() else ""
    difference = list(difflib.unified_diff(_pins(locked), _pins(wanted), "locked", "wanted", n=0, lineterm=""))
    if difference:
        print("\n".join(difference))
        print(f"{lock.name} does not fit pyproject.toml: run `make lock`", file=sys.stderr)
    return 1 if difference else 0


def _pins(lock: str) -> list[str]:
    return [line.removesuffix(" \\") for line in lock.splitlines() if line[:1] not in {"", " ", "#"}]


def main() -> int:
    """Run from the command line; the exit status is 0 when all is well."""
    if sys.argv[1:] == ["check"]:
        return check()
    try:
        for group, lock in LOCKS.items():
            lock.write_text(resolve(group, *(["--upgrade"] if sys.argv[1:] == ["upgrade"] else [])), "utf-8")
    except ResolutionError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
