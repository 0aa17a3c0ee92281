"""A file system of a few MiB that can be filled up, for as long as it is wanted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_BYTES: Final = 40 << 20


class SmallDisk:
    """A small disk: `folder` is where it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, but: int) -> None:
        """Take up all space but so many bytes."""
        space = os.statvfs(self.folder)
        with self._filler.open("ab") as file:
            file.write(bytes(max(0, space.f_bavail * space.f_frsize - but)))

    def free(self) -> None:
        """Give the space back."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk | None]:
    """Mount a small disk on the folder for the length of the block; None where that is not allowed."""
    folder.mkdir(parents=True)
    mount, unmount = shutil.which("mount") or "", shutil.which("umount") or ""
    options = ["-t", "tmpfs", "-o", f"size={_MOST_BYTES}", "tmpfs", str(folder)]
    able = sys.platform.startswith("linux") and os.geteuid() == 0 and mount and unmount
    if not able or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield SmallDisk(folder)
    except BaseException:
        _keep(folder)
        raise
    finally:
        subprocess.run([unmount, "--lazy", str(folder)], check=True)


def _keep(folder: Path) -> None:
    """Copy what is on the disk beside it, for whoever looks for what went wrong; it is gone with the disk."""
    shutil.copytree(folder, folder.with_name(f"{folder.name}-kept"), ignore=shutil.ignore_patterns("filler"))
