from __future__ import annotations

import os
from pathlib import Path

import pytest

from examples import survey_folder
from examples.survey_folder import FoundFile, in_bytes, list_files, read_texts, shown


def paths(folder: Path) -> list[str]:
    return [str(file.path) for file in list_files(folder).files]


def test_files_near_the_top_come_first(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("z", "a/c", "a/b/d"):
        (tmp_path / name).write_text("text")
    listing = list_files(tmp_path)
    assert [str(file.path) for file in listing.files] == ["z", "a/c", "a/b/d"]
    assert (listing.folders, listing.left_out, listing.complete) == (3, {}, True)


def test_what_no_person_wrote_is_left_out(tmp_path: Path) -> None:
    for folder in (".git", ".venv", "node_modules", ".mypy_cache", "marked"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("text")
    (tmp_path / "marked" / "pyvenv.cfg").write_text("")
    (tmp_path / "picture").write_bytes(b"PNG\0\0")
    (tmp_path / "made.py").write_text("# Generated. DO NOT EDIT!\n")
    listing = list_files(tmp_path)
    assert listing.files == (FoundFile(Path("made.py"), 26, generated=True),)
    assert listing.left_out == {"tool folder": 5, "binary file": 1}
    assert listing.files[0].language == "generated code"
    assert not listing.files[0].is_source


def test_neither_links_nor_pipes_are_followed(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("outside")
    (inside / "out").symlink_to(tmp_path)
    (inside / "loop").symlink_to(inside)
    (inside / "file").symlink_to(tmp_path / "secret")
    os.mkfifo(inside / "pipe")
    listing = list_files(inside)
    assert listing.files == ()
    assert listing.left_out == {"link": 3, "special file": 1}


def test_a_file_that_became_a_pipe_or_a_link_or_vanished_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    listed = [FoundFile(Path(name), 4) for name in ("pipe", "link", "gone", "file")]
    assert [(file.name, text) for file, text in read_texts(tmp_path, listed)] == [("file", "text")]


def test_names_and_texts_need_not_be_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"n\xfe\n.py")
    try:
        (tmp_path / name).write_bytes(b"x = '\xff'\n")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (file,) = list_files(tmp_path).files
    assert file.name == "n\\xfe\\x0a.py"
    assert [text for _, text in read_texts(tmp_path, [file])] == ["x = '\ufffd'\n"]


def test_it_stops_at_its_limits_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (tmp_path / f"{number}").write_text("text")
    monkeypatch.setattr(survey_folder, "MOST_FILES", 3)
    listing = list_files(tmp_path)
    assert len(listing.files) == 3
    assert not listing.complete
    assert "there is more" in listing.text()


def test_it_stops_when_its_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("text")
    monkeypatch.setattr(survey_folder, "MOST_SECONDS", -1)
    assert not list_files(tmp_path).complete
    assert list(read_texts(tmp_path, [FoundFile(Path("file"), 4)])) == []


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list_files(tmp_path / "gone")


def test_what_is_shown_is_printable() -> None:
    assert shown("a\x1b[31mb\u2028é\udc80") == "a\\x1b[31mb\\u2028é\\x80"


def test_a_size_is_told_in_its_unit() -> None:
    assert [in_bytes(size) for size in (0, 1023, 1024, 3 << 20, 5 << 30)] == [
        "0 bytes",
        "1,023 bytes",
        "1.0 KiB",
        "3.0 MiB",
        "5.0 GiB",
    ]
