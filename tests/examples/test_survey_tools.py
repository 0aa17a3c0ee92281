from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from examples import survey_folder
from examples.survey_folder import list_files
from examples.survey_tools import count_imports, count_lines, find_markers, read_file, telling_files

if TYPE_CHECKING:
    from pathlib import Path

    from examples.survey_folder import FoundFile


def written(folder: Path, **texts: str) -> tuple[FoundFile, ...]:
    """Write files, named with __ for a dot; return them as listed."""
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text)
    return list_files(folder).files


def test_lines_are_counted_per_language(tmp_path: Path) -> None:
    files = written(tmp_path, a__py="1\n2\n", b__py="1", c__md="", d__unknown="1\n")
    counts = count_lines(tmp_path, files)
    assert [(row.language, row.files, row.lines, row.size) for row in counts.languages] == [
        ("Python", 2, 3, 5),
        (".unknown", 1, 1, 2),
        ("Markdown", 1, 0, 0),
    ]
    assert (counts.lines, counts.unread) == (4, 0)
    assert counts.text().endswith("4 lines in 4 files")


def test_a_file_too_large_is_told_as_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = written(tmp_path, a__py="12345")
    monkeypatch.setattr(survey_folder, "MOST_BYTES_OF_A_FILE", 4)
    assert count_lines(tmp_path, files).text() == "0 lines in 0 files; 1 file not read"


@pytest.mark.parametrize(
    ("name", "text", "summary"),
    [
        ("a.md", "[![b](c)]\n# T\n\n**Say** it.\n```\n# no\n```\n", "Say it. [7 lines, 1 heading (T)]"),
        ("b.py", '#!x\n# coding: y\n"""Doc."""\nclass A:\n  def f(): 1\n', "Doc. [5 lines, 2 definitions (A, f)]"),
        ("c.go", "// Words\nfunc (t *T) Go() {}\n", "Words [2 lines, 1 definition (Go)]"),
        ("pyproject.toml", '[a]\ndescription = "What"\n[b]\n', "What [3 lines, 2 tables (a, b)]"),
        ("Makefile", "# Makes\na: b\nc := d\n", "Makes [3 lines, 1 target (a)]"),
        ("empty", "", "no words in it [0 lines]"),
    ],
)
def test_a_file_is_summed_up_in_a_line(tmp_path: Path, name: str, text: str, summary: str) -> None:
    (tmp_path / name).write_text(text)
    (file,) = list_files(tmp_path).files
    assert read_file(tmp_path, file).summary() == f"{name}: {summary}"


def test_markers_are_found_with_their_places(tmp_path: Path) -> None:
    # Not written as they are searched for, since the demonstration surveys this file too.
    todo, fixme = "TODO", "FIXME"
    files = written(tmp_path, a__py=f"{todo}_LIST\n# {todo}: x\n", b__c=f"\n\n/* {fixme}(me) {todo}: y */")
    markers = find_markers(tmp_path, files)
    assert markers.words == {"TODO": 2, "FIXME": 1}
    assert markers.places == ("a.py:2", "b.c:3", "b.c:3")


def test_imports_are_counted_once_per_file(tmp_path: Path) -> None:
    files = written(
        tmp_path,
        a__py="import os\nimport grpc\nimport grpc.aio\nfrom b import c\n",
        b__py='"""\nfrom the heart\nimport this well\n"""\nfrom grpc import aio\nimport yaml as y\n',
    )
    imports = count_imports(tmp_path, files)
    assert imports.own == (("b", 1),)
    assert imports.outside == (("grpc", 2), ("yaml", 1))


def test_the_files_that_tell_most_are_chosen_once_each(tmp_path: Path) -> None:
    files = written(tmp_path, README__md="a", setup__py="a" * 9, main__py="a", Makefile="a", x__json="a" * 99)
    assert [file.name for file in telling_files(files)] == ["README.md", "Makefile", "main.py", "setup.py"]


def test_where_nothing_tells_the_largest_are_chosen(tmp_path: Path) -> None:
    files = written(tmp_path, a__txt="1", b__txt="22", c__txt="333", d__txt="4444")
    assert [file.name for file in telling_files(files)] == ["d.txt", "c.txt", "b.txt"]
