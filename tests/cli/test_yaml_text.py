from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.cli import yaml_text

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(_VALUES)
def test_what_is_written_reads_back_the_same(value: object) -> None:
    assert yaml_text.load_all(yaml_text.dump(value)) == [value]


@given(_VALUES)
def test_json_is_read_as_json(value: object) -> None:
    assert yaml_text.load_all(json.dumps({"value": value})) == [{"value": value}]


@pytest.mark.parametrize("word", ["no", "on", "yes", "2026-01-31", "0x10", "010", "1_000", ".5", "~x", "1:30", "True"])
def test_words_that_json_does_not_know_are_text(word: str) -> None:
    assert yaml_text.load_all(f"key: {word}") == [{"key": word}]


def test_json_values_are_values() -> None:
    text = "a: true\nb: null\nc: 12\nd: -1.5e3\ne:\n'1': x\n2: y\n"
    assert yaml_text.load_all(text) == [{"a": True, "b": None, "c": 12, "d": -1500.0, "e": None, "1": "x", "2": "y"}]


def test_anchors_and_merges_work() -> None:
    text = "base: &b {x: 1, y: 2}\nover: {<<: *b, y: 3}\n"
    assert yaml_text.load_all(text) == [{"base": {"x": 1, "y": 2}, "over": {"x": 1, "y": 3}}]


def test_several_documents_are_read() -> None:
    assert yaml_text.load_all("a: 1\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]
    assert yaml_text.load_all('{"a": 1}\n---\n{"b": 2}\n') == [{"a": 1}, {"b": 2}]
    assert yaml_text.load_all('{"a": 1}\n{"b": 2}\n') == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    "text",
    ["a: b: c", "[1", "a: 1\na: 2", "{a: 1, a: 2}", "!!python/name:os.system ''", "? {x: 1}\n: 2", "[" * 5000, "\x00"],
)
def test_what_is_no_yaml_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        yaml_text.load_all(text)


def test_a_refusal_does_not_quote_the_line() -> None:
    with pytest.raises(ValueError, match=r"line 1, column \d+: ") as caught:
        yaml_text.load_all("password: hush: hush")
    assert "hush" not in str(caught.value)


def test_lines_are_written_as_a_block() -> None:
    assert yaml_text.dump({"text": "one\ntwo\n"}) == "text: |\n  one\n  two\n"
