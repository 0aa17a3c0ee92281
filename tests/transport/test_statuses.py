"""Statuses: the table from our errors to codes, and details that every client can take."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import quote

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo

from runstream.model import errors
from runstream.storage.store import Conflict
from runstream.transport.statuses import CODES, code_of, message_of, status_of
from runstream.v1.agent_execution_pb2 import AgentExecution
from tests.making import an_agent, execution
from tests.serving import INVALID, refusal

if TYPE_CHECKING:
    from tests.serving import Client

#: What clients take of trailers without being told otherwise.
TRAILERS = 8192
#: The trailers' names and the code, and what else stands there.
OVERHEAD = 200


def every_error() -> list[type[errors.RunstreamError]]:
    """The classes right below the root of the tree."""
    return errors.RunstreamError.__subclasses__()


def on_the_wire(error: errors.RunstreamError) -> int:
    """How many bytes an error takes in the trailers, at most: base64 for the details, %XX for the message."""
    details = base64.b64encode(status_of(error, "r" * 128).SerializeToString())
    return len(details) + len(quote(message_of(error))) + OVERHEAD


def test_every_error_has_a_code_of_its_own() -> None:
    """The table names every class of the tree, and no two share a code."""
    assert set(CODES) == set(every_error())
    assert len(set(CODES.values())) == len(CODES)


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_the_code_has_the_name_of_the_class(kind: type[errors.RunstreamError]) -> None:
    """An error is named for its code, and the rich status tells the same code as the trailer."""
    error = kind("REASON", "what is wrong")
    code = code_of(error)
    assert code.name.replace("_", "").lower() == kind.__name__.lower()
    assert status_of(error, "req").code == code.value[0]


def test_an_error_further_down_the_tree_has_the_code_above_it() -> None:
    """A storage conflict that reaches the caller is ABORTED, as the error it is made from."""
    assert code_of(Conflict("x")) == grpc.StatusCode.ABORTED


@pytest.mark.parametrize("text", ["x", "ä", "😀", "%"])
def test_an_error_with_very_long_texts_fits_into_the_trailers(text: str) -> None:
    """However long message, metadata and violations are, and in whatever script, the status stays small."""
    long = text * 100_000
    error = errors.InvalidArgument(
        "REASON",
        long,
        fields=[errors.FieldViolation(long, long, "rule") for _ in range(500)],
        metadata={"id": long, "slug": long, "org": long},
    )
    assert on_the_wire(error) < TRAILERS


def test_many_short_violations_are_told_as_far_as_there_is_room() -> None:
    """Of hundreds of violations the first ones are told in full; the others make way."""
    fields = [errors.FieldViolation(f"metadata.tags[{number}]", "must not be empty", "r") for number in range(500)]
    error = errors.InvalidArgument("INVALID_FIELDS", "many", fields=fields)
    status = status_of(error, "req")
    told = status.details[2].value.count(b"must not be empty")
    assert 20 < told < 500
    assert on_the_wire(error) < TRAILERS


def test_a_short_message_is_told_whole() -> None:
    """What fits is not cut, and what is cut says so and cuts no character in two."""
    assert message_of(errors.NotFound("R", "There is no agent 'ä'.")) == "There is no agent 'ä'."
    cut = message_of(errors.NotFound("R", "ä" * 1000))
    assert cut.endswith("…")
    assert set(cut[:-1]) == {"ä"}


@pytest.mark.parametrize("seconds", [0.001, 0.25, 1, 3_600])
def test_an_error_says_when_to_try_again(seconds: float) -> None:
    """With `RetryInfo`, to the nanosecond; an error that does not know says nothing."""
    found = RetryInfo()
    status = status_of(errors.ResourceExhausted("R", "too many", retry_after=seconds), "req")
    assert [detail.Unpack(found) for detail in status.details] == [False, False, True]
    assert found.retry_delay.ToNanoseconds() == seconds * 1e9
    assert len(status_of(errors.ResourceExhausted("R", "too many"), "req").details) == 2


async def test_a_client_hears_of_a_thousand_violations(client: Client) -> None:
    """A request with everything wrong is refused as any other, and not with a status that nobody can read."""
    request = execution(agent_id=await an_agent(client))
    request.metadata.tags.extend([""] * 1000)
    request.spec.context.allowed_tools.extend([""] * 2000)
    for number in range(300):
        request.metadata.labels["😀" * 300 + str(number)] = "😀" * 300
        request.spec.runtime_env["😀" * 300 + str(number)].value = "x"
    told = await refusal(client.executions.Create(request))
    assert (told.code, told.reason) == (INVALID, "INVALID_FIELDS")
    assert told.fields
    assert "more" in told.message or told.message.endswith("…")


async def test_a_client_hears_of_one_endless_value(client: Client) -> None:
    """A name of a million characters is refused in a few words."""
    request = AgentExecution()
    request.metadata.name = "n" * 1_000_000
    told = await refusal(client.executions.Create(request))
    assert (told.code, told.reason, set(told.fields)) == (INVALID, "INVALID_FIELDS", {"metadata.name"})
    assert len(told.message) < 200
