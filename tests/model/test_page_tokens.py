from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runstream.model.errors import InvalidArgument
from runstream.model.ids import first_id_at
from runstream.model.page_tokens import decode, encode

FAST = settings(max_examples=100, deadline=None)
FILTER = b"filter"
LAST_ID = first_id_at("aex", 1_700_000_000_000)
TOKEN = encode(FILTER, LAST_ID)
URL_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@FAST
@given(st.binary(), st.integers(0, (1 << 48) - 1), st.sampled_from(["agt", "ain", "ses", "aex"]))
def test_a_token_leads_back_to_its_id(bound_to: bytes, millis: int, prefix: str) -> None:
    """With the same filter, a token tells the id it was made of; it needs no quoting in a URL."""
    last_id = first_id_at(prefix, millis)
    token = encode(bound_to, last_id)
    assert decode(token, bound_to) == last_id
    assert set(token) <= set(URL_SAFE)


@FAST
@given(st.binary(), st.binary())
def test_a_token_of_another_filter_is_refused_as_such(mine: bytes, other: bytes) -> None:
    """The reason tells a client that it changed the filter between pages."""
    if mine == other:
        return
    with pytest.raises(InvalidArgument) as caught:
        decode(encode(mine, LAST_ID), other)
    assert caught.value.reason == "PAGE_TOKEN_FILTER_MISMATCH"
    assert [violation.field for violation in caught.value.fields] == ["page_token"]


@FAST
@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(URL_SAFE + "=. \u00e9"))
def test_a_token_with_one_character_changed_is_refused(at: int, character: str) -> None:
    """Damage is found wherever it is."""
    damaged = TOKEN[:at] + character + TOKEN[at + 1 :]
    if damaged != TOKEN:
        assert reason_of(damaged) == "INVALID_PAGE_TOKEN"


@FAST
@given(st.text() | st.text(URL_SAFE))
def test_any_text_is_refused_without_harm(text: str) -> None:
    """What was never a token is INVALID_ARGUMENT, whatever it holds."""
    assert reason_of(text) == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize("token", ["", "A", TOKEN[:-1], TOKEN + "A", TOKEN + "=", TOKEN * 2, f" {TOKEN}", TOKEN[:8]])
def test_a_token_cut_or_lengthened_is_refused(token: str) -> None:
    """Only the whole token is the token."""
    assert reason_of(token) == "INVALID_PAGE_TOKEN"


def test_a_token_of_another_version_is_refused() -> None:
    """A later format is not taken for this one."""
    data = base64.urlsafe_b64decode(TOKEN + "=" * (-len(TOKEN) % 4))
    later = base64.urlsafe_b64encode(b"\x02" + data[1:]).rstrip(b"=").decode()
    assert reason_of(later) == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize("last_id", ["", "no id", LAST_ID + "\x00", "\u00e9"])
def test_a_well_made_token_around_no_id_is_refused(last_id: str) -> None:
    """Nothing but an id comes out of a token, so nothing else reaches the store."""
    assert reason_of(encode(FILTER, last_id)) == "INVALID_PAGE_TOKEN"


def reason_of(token: str) -> str:
    """Tell why a token is refused."""
    with pytest.raises(InvalidArgument) as caught:
        decode(token, FILTER)
    return caught.value.reason
