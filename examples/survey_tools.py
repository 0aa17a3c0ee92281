"""The tools of the survey agent: they look at real files by simple rules, and know nothing of Runstream.

Each returns a finding, whose `text()` is what the agent reports as the tool's result. One more tool, `list_files`,
stands in `survey_folder`.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from examples.survey_folder import (
    MOST_BYTES_OF_A_FILE,
    FoundFile,
    count,
    in_bytes,
    read_text,
    read_texts,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

MANIFESTS = ("pyproject.toml", "package.json", "Cargo.toml", "go.mod", "pom.xml", "CMakeLists.txt", "Makefile")
ENTRANCES = frozenset({"__main__", "main", "server", "index", "app", "cli"})

MOST_ROWS = 10
MOST_LETTERS = 120
MOST_LINES_BEFORE_OPENING = 60

# A text may be anything: every repetition is bounded, or cannot match where the next part could.
_MARKER = re.compile(r"\b(TODO|FIXME|XXX|HACK)[:(]")
_MODULE = r"([A-Za-z_][\w.]{0,200})"
_IMPORT = re.compile(
    rf"^[ \t]{{0,16}}(?:from {_MODULE} import\b|import {_MODULE}(?=[ \t]{{0,4}}(?:$|[,;#]|as\b)))", re.MULTILINE
)
_MODIFIER = r"(?:export|default|pub|public|private|static|abstract|final|async)"
_KEYWORD = r"(?:def|class|function|func|fn|struct|enum|trait|interface|message|service|rpc)"
_DEFINITION = re.compile(
    rf"^[ \t]{{0,8}}(?:{_MODIFIER} ){{0,3}}{_KEYWORD} (?:\([^)\n]{{0,80}}\) )?([A-Za-z_]\w{{0,200}})"
    r"(?= ?[(:<{\[;=]| extends | implements | for |$)",
    re.MULTILINE,
)
_TABLE = re.compile(r"^\[{1,2}([^\[\]\n]{1,200})\]", re.MULTILINE)
_TARGET = re.compile(r"^([A-Za-z][\w.-]{0,100}):(?!=)", re.MULTILINE)
_HEADING = re.compile(r"#{1,4} +(.{1,200})")
_DESCRIPTION = re.compile(r'^[ \t]{0,8}"?description"? ?[:=] ?"([^"\n]{1,300})"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LanguageCount:
    """How much is written in one language."""

    language: str
    files: int
    lines: int
    size: int


@dataclass(frozen=True, slots=True)
class LineCounts:
    """What `count_lines` found, the most lines first."""

    languages: tuple[LanguageCount, ...]
    unread: int
    """The files that were too large, no longer readable, or too many for the time."""

    @property
    def lines(self) -> int:
        """All lines."""
        return sum(each.lines for each in self.languages)

    def text(self) -> str:
        """Return a row per language, and the total."""
        rows = [
            f"{row.language:<18} {count(row.files, 'file'):>12} {count(row.lines, 'line'):>16} {in_bytes(row.size):>12}"
            for row in self.languages[:MOST_ROWS]
        ]
        total = f"{count(self.lines, 'line')} in {count(sum(each.files for each in self.languages), 'file')}"
        return "\n".join([*rows, total + (f"; {count(self.unread, 'file')} not read" if self.unread else "")])


@dataclass(frozen=True, slots=True)
class Outline:
    """What `read_file` found."""

    name: str
    length: str
    opening: str
    kind: str
    """What its parts are: headings, definitions, …"""

    parts: tuple[str, ...]

    def text(self) -> str:
        """Return the opening and the parts."""
        first = self.parts[:MOST_ROWS]
        more = [f"  … {len(self.parts) - len(first):,} more"] if len(self.parts) > len(first) else []
        return "\n".join([self.opening, *(f"  {part}" for part in first), *more])

    def summary(self) -> str:
        """Return the file in a line."""
        told = [self.length]
        if self.parts:
            more = ", …" if len(self.parts) > len(self.parts[:3]) else ""
            told.append(f"{count(len(self.parts), self.kind)} ({', '.join(self.parts[:3])}{more})")
        return f"{self.name}: {self.opening or 'no words in it'} [{', '.join(told)}]"


@dataclass(frozen=True, slots=True)
class Markers:
    """What `find_markers` found."""

    words: dict[str, int]
    places: tuple[str, ...]

    def text(self) -> str:
        """Return the totals and the first places."""
        return "\n".join([self.totals() or "none", *self.places])

    def totals(self) -> str:
        """Return how many of each; empty when there are none."""
        return ", ".join(f"{number:,} {word}" for word, number in sorted(self.words.items()))


@dataclass(frozen=True, slots=True)
class Imports:
    """What `count_imports` found: module and number of files, the most first."""

    own: tuple[tuple[str, int], ...] = ()
    outside: tuple[tuple[str, int], ...] = ()

    def text(self) -> str:
        """Return both lists."""
        return f"own modules: {ranking(self.own) or 'none'}\noutside packages: {ranking(self.outside) or 'none'}"


def count_lines(folder: Path, files: Sequence[FoundFile]) -> LineCounts:
    """Count files, lines and bytes per language."""
    found: dict[str, list[int]] = {}
    for file, text in read_texts(folder, files):
        sums = found.setdefault(file.language, [0, 0, 0])
        for place, more in enumerate((1, _lines(text), file.size)):
            sums[place] += more
    rows = [LanguageCount(language, *sums) for language, sums in found.items()]
    rows.sort(key=lambda row: (-row.lines, row.language))
    return LineCounts(tuple(rows), len(files) - sum(row.files for row in rows))


def read_file(folder: Path, file: FoundFile) -> Outline:
    """Read a file: how it opens, and its headings, tables, targets or definitions. Raises OSError."""
    text = read_text(folder / file.path) if file.size else ""
    kind, parts = _parts(file, text)
    length = count(_lines(text), "line")
    if file.size > MOST_BYTES_OF_A_FILE:
        length = f"more than {length}"
    described = _DESCRIPTION.search(text) if file.path.name in MANIFESTS else None
    opening = _shortened(described.group(1)) if described else _opening(text, markdown=kind == "heading")
    return Outline(file.name, length, opening, kind, tuple(shown(part.strip()) for part in parts))


def find_markers(folder: Path, files: Iterable[FoundFile]) -> Markers:
    """Find what was left to be done: TODO, FIXME, XXX and HACK, followed by a colon or a name in parentheses."""
    words: Counter[str] = Counter()
    places: list[str] = []
    for file, text in read_texts(folder, files):
        for found in _MARKER.finditer(text):
            words[found.group(1)] += 1
            if len(places) < MOST_ROWS:
                places.append(f"{file.name}:{text.count(chr(10), 0, found.start()) + 1}")
    return Markers(words, tuple(places))


def count_imports(folder: Path, files: Sequence[FoundFile]) -> Imports:
    """Count in how many Python files a module is imported: those of the folder, and packages from outside."""
    modules = [file for file in files if file.path.suffix == ".py"]
    names = {part for file in modules for part in (*file.path.parts[:-1], file.path.stem)}
    names -= sys.stdlib_module_names | {"__main__"}
    own: Counter[str] = Counter()
    outside: Counter[str] = Counter()
    for _, text in read_texts(folder, modules):
        imported = {found.group(1) or found.group(2) for found in _IMPORT.finditer(text)}
        packages = {module.partition(".")[0] for module in imported}
        own.update(module for module in imported if module.partition(".")[0] in names)
        outside.update(packages - names - sys.stdlib_module_names)
    return Imports(tuple(own.most_common(5)), tuple(outside.most_common(5)))


def telling_files(files: Sequence[FoundFile]) -> list[FoundFile]:
    """Choose the files that tell most: a README, the manifest, the entrance, the largest source file."""
    chosen = [
        next((file for file in files if file.path.name.lower().startswith("readme")), None),
        next((file for name in MANIFESTS for file in files if file.path.name == name), None),
        largest_source(file for file in files if file.path.stem in ENTRANCES),
        largest_source(files),
    ]
    found = [file for file in dict.fromkeys(chosen) if file is not None]
    return found or sorted(files, key=lambda file: -file.size)[:3]


def largest_source(files: Iterable[FoundFile]) -> FoundFile | None:
    """Choose the source file with the most bytes; None when there is none."""
    return max((file for file in files if file.is_source), key=lambda file: file.size, default=None)


def ranking(pairs: Iterable[tuple[str, int]]) -> str:
    """Return names with their numbers, `grpc (24), rich (16)`."""
    return ", ".join(f"{name} ({number:,})" for name, number in pairs)


def _parts(file: FoundFile, text: str) -> tuple[str, list[str]]:
    """Return what a file's parts are, and the parts."""
    if file.language == "Markdown":
        return "heading", _headings(text)
    if file.language == "TOML":
        return "table", _TABLE.findall(text)
    if file.path.name == "Makefile":
        return "target", _TARGET.findall(text)
    return "definition", _DEFINITION.findall(text)


def _headings(text: str) -> list[str]:
    """Return the headings of a Markdown text, without the comments of quoted code."""
    headings, quoted = [], False
    for line in text.splitlines():
        quoted ^= line.startswith("```")
        if not quoted and (found := _HEADING.match(line)):
            headings.append(found.group(1))
    return headings


def _opening(text: str, *, markdown: bool) -> str:
    """Return the first line that says something, without the signs of a comment or a docstring."""
    for line in text.splitlines()[:MOST_LINES_BEFORE_OPENING]:
        skipped = line.startswith(("#", "[![", "<")) if markdown else line.startswith("#!") or "coding:" in line
        words = line.replace("**", "").strip("\"'#/*<>!-=;[]{}() \t")
        if not skipped and any(letter.isalpha() for letter in words):
            return _shortened(words)
    return ""


def _shortened(text: str) -> str:
    return shown(text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…")


def _lines(text: str) -> int:
    return text.count("\n") + bool(text and not text.endswith("\n"))
