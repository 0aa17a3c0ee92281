from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runstream.storage import keys
from runstream.storage.parsed_keys import (
    ChangeKey,
    EntryKey,
    ExpiryKey,
    NameKey,
    ParsedKey,
    RecordKey,
    change_owner,
    parse,
)
from runstream.storage.records import RECORD_KINDS
from runstream.storage.store import Term, Unique

TEXTS = st.text(alphabet=st.sampled_from("\x00\x01\xffab\U0010ffff"), max_size=6) | st.text()
KINDS = st.sampled_from(RECORD_KINDS)
NUMBERS = st.integers(0, (1 << 64) - 1)
PARSED: st.SearchStrategy[ParsedKey] = st.one_of(
    st.builds(RecordKey, KINDS, TEXTS),
    st.builds(ChangeKey, TEXTS, NUMBERS),
    st.builds(EntryKey, KINDS, st.builds(Term, TEXTS, TEXTS), TEXTS),
    st.builds(NameKey, st.builds(Unique, TEXTS, TEXTS, TEXTS)),
    st.builds(ExpiryKey, NUMBERS, TEXTS),
)


@given(PARSED)
def test_every_key_is_read_back(key: ParsedKey) -> None:
    """Whatever the grammar makes is read as what it was made of."""
    assert parse(key.encoded()) == key


@given(
    st.binary(max_size=40) | PARSED.map(lambda key: key.encoded()).flatmap(lambda key: st.sampled_from([key, key[:-1]]))
)
def test_what_the_grammar_does_not_make_is_refused(key: bytes) -> None:
    """Bytes are read as a key only if they are that key."""
    try:
        parsed = parse(key)
    except ValueError:
        return
    assert parsed.encoded() == key


@pytest.mark.parametrize(
    "key", [b"", b"z", b"r", b"rz1", b"c", b"cab", b"ia", b"iaab\x00\x01", b"u", b"e", b"e1234567"]
)
def test_a_part_of_a_key_is_none(key: bytes) -> None:
    """What is too short, or of no kind, is refused."""
    with pytest.raises(ValueError, match=r".+"):
        parse(key)


@given(st.tuples(TEXTS, NUMBERS), st.tuples(TEXTS, NUMBERS))
def test_the_owners_of_changes_sort_as_the_keys_do(a: tuple[str, int], b: tuple[str, int]) -> None:
    """The ids in the keys of changes come in the order of ids, so that logs and records can be walked side by side."""
    (one, first), (other, second) = sorted([(keys.change(*a), a[0]), (keys.change(*b), b[0])])
    assert (change_owner(one), change_owner(other)) == (keys.encode_id(first), keys.encode_id(second))
    assert keys.encode_id(first) <= keys.encode_id(second)
    assert change_owner(keys.record(RECORD_KINDS[0], a[0])) is None
