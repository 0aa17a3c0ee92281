"""The folder of the survey: finds its text files and reads them.

Whatever the folder holds, this comes back soon: it follows no link, opens nothing but regular files, waits for no pipe,
and stops at the limits below. Names need not be UTF-8, and files may vanish meanwhile.
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter, deque
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST_FILES = 5_000
MOST_FOLDERS = 5_000
MOST_BYTES_OF_A_FILE = 4 << 20
MOST_SECONDS = 2.0
"""The longest one tool goes on."""

SKIPPED_FOLDERS = frozenset(
    {".git", ".hg", ".svn", ".venv", "venv", "__pycache__", "node_modules", ".tox", ".nox", ".hypothesis", ".idea"}
)
"""Left out with everything whose name ends in `cache`, and what carries one of the marks."""

FOLDER_MARKS = frozenset({"CACHEDIR.TAG", "pyvenv.cfg"})

LANGUAGES = {
    ".c": "C",
    ".cc": "C++",
    ".cpp": "C++",
    ".cs": "C#",
    ".css": "CSS",
    ".go": "Go",
    ".h": "C",
    ".hpp": "C++",
    ".html": "HTML",
    ".java": "Java",
    ".js": "JavaScript",
    ".json": "JSON",
    ".kt": "Kotlin",
    ".md": "Markdown",
    ".php": "PHP",
    ".proto": "Protocol Buffers",
    ".py": "Python",
    ".pyi": "Python",
    ".rb": "Ruby",
    ".rs": "Rust",
    ".rst": "reStructuredText",
    ".sh": "Shell",
    ".sql": "SQL",
    ".swift": "Swift",
    ".toml": "TOML",
    ".ts": "TypeScript",
    ".tsx": "TypeScript",
    ".txt": "text",
    ".yaml": "YAML",
    ".yml": "YAML",
}
NOT_SOURCE = frozenset({"CSS", "HTML", "JSON", "Markdown", "reStructuredText", "TOML", "text", "YAML"})
GENERATED = "generated code"

_LONGEST_SUFFIX = 12


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A text file of the folder."""

    path: Path
    """Relative to the folder."""

    size: int
    generated: bool = False
    """Whether it says that it was made by a program and is not to be edited."""

    @property
    def name(self) -> str:
        """Where it is, as it can be shown."""
        return shown(str(self.path))

    @property
    def language(self) -> str:
        """What it is written in, as far as its name tells."""
        if self.generated:
            return GENERATED
        suffix = self.path.suffix.lower()
        return LANGUAGES.get(suffix) or (shown(suffix) if 0 < len(suffix) <= _LONGEST_SUFFIX else "other")

    @property
    def is_source(self) -> bool:
        """Whether it is program text, written by a person."""
        return self.language in LANGUAGES.values() and self.language not in NOT_SOURCE


@dataclass(frozen=True, slots=True)
class Listing:
    """What `list_files` found."""

    files: tuple[FoundFile, ...]
    folders: int
    left_out: dict[str, int]
    complete: bool

    def text(self) -> str:
        """Return the totals and the first files."""
        names = [file.name for file in self.files[:8]]
        more = [f"… {len(self.files) - len(names):,} more"] if len(self.files) > len(names) else []
        return "\n".join([self.totals(), *names, *more])

    def totals(self) -> str:
        """Return how much there is, and what was left out."""
        size = in_bytes(sum(file.size for file in self.files))
        told = f"{count(len(self.files), 'text file')} in {count(self.folders, 'folder')}, {size}"
        if self.left_out:
            told += "; left out: " + ", ".join(count(number, what) for what, number in sorted(self.left_out.items()))
        return told if self.complete else f"{told}; there is more, I stopped at my limit"


def list_files(folder: Path) -> Listing:
    """List the text files, those near the top first. Raises OSError when the folder itself cannot be listed."""
    return _Walk(folder).run()


def read_texts(folder: Path, files: Iterable[FoundFile]) -> Iterator[tuple[FoundFile, str]]:
    """Yield the files with their text until the time is up, without those too large or no longer readable."""
    deadline = _deadline()
    for file in files:
        if time.monotonic() > deadline:
            return
        if file.size > MOST_BYTES_OF_A_FILE:
            continue
        try:
            text = read_text(folder / file.path) if file.size else ""
        except OSError:
            continue
        yield file, text


def read_text(path: Path) -> str:
    """Return the text of a file, at most its first 4 MiB; what is not UTF-8 is replaced. Raises OSError."""
    return _read_bytes(path, MOST_BYTES_OF_A_FILE).decode("utf-8", "replace")


def shown(text: str) -> str:
    """Return text as it can be sent and shown: names of files need not be UTF-8, nor printable."""
    return "".join(letter if letter.isprintable() else _escaped(ord(letter)) for letter in text)


def count(number: int, what: str) -> str:
    """Return `1 file`, `2 files`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def in_bytes(size: float) -> str:
    """Return a size in the unit that suits it."""
    if size < 1024:  # noqa: PLR2004  # the next unit
        return f"{size:,.0f} bytes"
    for unit in ("KiB", "MiB"):
        size /= 1024
        if size < 1024:  # noqa: PLR2004  # the next unit
            return f"{size:,.1f} {unit}"
    return f"{size / 1024:,.1f} GiB"


class _Walk:
    """A walk over a folder: every folder of one level before those of the next."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[FoundFile] = []
        self._left_out: Counter[str] = Counter()
        self._waiting: deque[Path] = deque()
        self._folders = 0
        self._deadline = _deadline()
        self._complete = True

    def run(self) -> Listing:
        self._take(Path(), self._entries(Path()))
        while self._waiting and self._has_room():
            below = self._waiting.popleft()
            try:
                entries = self._entries(below)
            except OSError:
                self._left_out["unreadable folder"] += 1
                continue
            if any(entry.name in FOLDER_MARKS for entry in entries):
                self._left_out["tool folder"] += 1
            else:
                self._take(below, entries)
        return Listing(tuple(self._files), self._folders, self._left_out, self._complete and not self._waiting)

    def _entries(self, below: Path) -> list[os.DirEntry[str]]:
        with os.scandir(self._folder / below) as entries:
            found = list(islice(entries, MOST_FILES))
            self._complete &= next(entries, None) is None
        return sorted(found, key=lambda entry: entry.name)

    def _take(self, below: Path, entries: Iterable[os.DirEntry[str]]) -> None:
        self._folders += 1
        for entry in entries:
            if not self._has_room():
                self._complete = False
                return
            try:
                left_out = self._look_at(entry, below)
            except OSError:
                left_out = "unreadable file"
            if left_out:
                self._left_out[left_out] += 1

    def _look_at(self, entry: os.DirEntry[str], below: Path) -> str:
        """Keep a text file, remember a folder; return what anything else is."""
        if entry.is_dir(follow_symlinks=False):
            if entry.name in SKIPPED_FOLDERS or entry.name.lower().endswith("cache"):
                return "tool folder"
            self._waiting.append(below / entry.name)
            return ""
        if not entry.is_file(follow_symlinks=False):
            return "link" if entry.is_symlink() else "special file"
        size = entry.stat(follow_symlinks=False).st_size
        beginning = _read_bytes(Path(entry.path), 4096) if size else b""
        if b"\0" in beginning:
            return "binary file"
        self._files.append(FoundFile(below / entry.name, size, b"do not edit" in beginning[:1024].lower()))
        return ""

    def _has_room(self) -> bool:
        room = len(self._files) < MOST_FILES and self._folders + len(self._waiting) < MOST_FOLDERS
        return room and time.monotonic() < self._deadline


def _read_bytes(path: Path, most: int) -> bytes:
    with open(path, "rb", opener=_open_regular) as stream:
        return stream.read(most)


def _open_regular(path: str, flags: int) -> int:
    """Open a regular file. What has become a link or a pipe since it was listed is refused, and never waited for."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(f"{path} is no regular file")


def _escaped(code: int) -> str:
    """Return a letter as an escape; Python hands out bytes that are not UTF-8 as the codes from U+DC80 on."""
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code  # noqa: PLR2004
    return f"\\x{byte:02x}" if byte <= 0xFF else f"\\u{byte:04x}"  # noqa: PLR2004


def _deadline() -> float:
    return time.monotonic() + MOST_SECONDS
