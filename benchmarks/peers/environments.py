"""Environments: what a peer needs, installed once from exact versions into a folder that is never committed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.program import NotPossible

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
REQUIREMENTS = HERE / "requirements"
INSTALLED = REPOSITORY / "build" / "peers"

_INSTALL_SECONDS = 600


def python(name: str) -> Path:
    """Return the interpreter of a virtual environment with `requirements/NAME.txt`, making it if need be."""
    asked = REQUIREMENTS / f"{name}.txt"
    folder = INSTALLED / name
    interpreter = folder / "bin" / "python"
    if not _is_made(folder, asked):
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        _run([str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(asked)])
        _mark_made(folder, asked)
    return interpreter


def binary(name: str, pattern: str) -> Path:
    """Return the program that matches `pattern` among the packages of `requirements/NAME/package.json`."""
    asked = REQUIREMENTS / name / "package.json"
    folder = INSTALLED / f"{name}-npm"
    if not _is_made(folder, asked):
        npm = shutil.which("npm")
        if npm is None:
            raise NotPossible("there is no npm (Debian: apt-get install npm)")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(asked, folder)
        # No script of a package is needed, and one of them would report the installation.
        _run([npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)])
        _mark_made(folder, asked)
    for found in sorted(folder.glob(f"node_modules/{pattern}")):
        return found
    raise NotPossible(f"{asked.relative_to(REPOSITORY)} has no {pattern} for this machine")


def _is_made(folder: Path, asked: Path) -> bool:
    stamp = folder / ".made"
    return stamp.exists() and stamp.read_text() == _digest(asked)


def _mark_made(folder: Path, asked: Path) -> None:
    (folder / ".made").write_text(_digest(asked))


def _digest(asked: Path) -> str:
    return hashlib.sha256(asked.read_bytes() + sys.version.encode()).hexdigest()


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()
        raise NotPossible(f"not installed: {said[-1] if said else error}") from None
    except (subprocess.TimeoutExpired, OSError) as error:
        raise NotPossible(f"not installed: {error}") from None
