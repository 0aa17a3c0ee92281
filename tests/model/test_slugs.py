from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream.model.slugs import first_words, slugify_name

FAST = settings(max_examples=150, deadline=None)


@FAST
@given(st.text(max_size=300))
def test_a_slug_is_empty_or_what_the_proto_demands(name: str) -> None:
    """Whatever the name, the slug passes the rule of `metadata.slug`."""
    slug = slugify_name(name)
    assert len(slug) <= 200
    assert re.fullmatch(r"([a-z0-9]+(-[a-z0-9]+)*)?", slug)


@FAST
@given(st.text(max_size=300))
def test_a_slug_is_its_own_slug(name: str) -> None:
    """Making a slug twice is making it once."""
    slug = slugify_name(name)
    assert slugify_name(slug) == slug


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My Agent", "my-agent"),
        ("  R\u00e9sum\u00e9 -- Writer!  ", "resume-writer"),
        ("\u041f\u0440\u0438\u0432\u0435\u0442", "privet"),
        ("a_b.c/d", "a-b-c-d"),
        ("&#65; &amp;", "65-amp"),
        ("\U0001f600 !?", ""),
        ("", ""),
        ("x" * 250, "x" * 200),
        (("x" * 199) + " yz", "x" * 199),
    ],
)
def test_a_slug_is_readable(name: str, slug: str) -> None:
    """Words are joined by one hyphen each, other scripts are written in Latin letters."""
    assert slugify_name(name) == slug


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("Summarise the report", "Summarise the report"),
        ("  many \n\t blanks\u2028here ", "many blanks here"),
        ("one\x00two\x1b[31m\u202ered", "one two [31m red"),
        ("word " * 30, ("word " * 12).strip()),
        ("x" * 100, "x" * 60),
        ("short " + "x" * 100, "short"),
        (
            "\u00e9t\u00e9 \U0001f468\u200d\U0001f469\u200d\U0001f467 na\u00efve",
            "\u00e9t\u00e9 \U0001f468\u200d\U0001f469\u200d\U0001f467 na\u00efve",
        ),
        ("", ""),
        (" \n ", ""),
        ("\x00\x01", ""),
        ("\n" * 1_000_000 + "deep", "deep"),
    ],
)
def test_a_name_is_the_first_words(message: str, name: str) -> None:
    """Blanks are collapsed, controls are blanks, and the cut is between words where it can be."""
    assert first_words(message) == name


@FAST
@given(st.text(max_size=300), st.integers(1, 500))
def test_a_name_is_one_clean_line_within_the_limit(message: str, limit: int) -> None:
    """Whatever the message, the name fits `metadata.name` and shows on one line."""
    name = first_words(message, limit)
    assert len(name) <= min(limit, 200)
    assert name == " ".join(name.split())
    categories = {unicodedata.category(character) for character in name if character not in "\u200c\u200d"}
    assert not {category for category in categories if category.startswith("C")}
