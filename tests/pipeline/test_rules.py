"""The quick look at rules: never a yes where the validator says no, and a yes to what most requests are."""

from __future__ import annotations

from math import inf, nan
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message_factory import GetMessageClass

from runstream.pipeline.rules import keeps_rules
from runstream.pipeline.validation import violations_of
from runstream.transport.methods import service_descriptors
from runstream.v1.agent_execution_pb2 import MESSAGE_AI, AgentExecution
from runstream.v1.agent_execution_service_pb2 import AgentExecutionUpdateStatusInput
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, ResourceId
from runstream.v1.transfer_pb2 import ImportExecutionRequest
from tests.making import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

#: A field's descriptor, for which there are two types.
Field: TypeAlias = Any

REQUESTS = tuple(GetMessageClass(method.input_type) for service in service_descriptors() for method in service.methods)
IDS = tuple(f"{prefix}_{NOWHERE}" for prefix in ("aex", "agt", "ain", "ses"))
#: Every bound of a length in the protos, and what is next to it.
LENGTHS = sorted(
    {near for n in (1, 64, 100, 200, 256, 1_000, 2_048, 4_096, 10_000, 1 << 16) for near in (n - 1, n, n + 1)}
)
TEXTS = (*("x" * n for n in LENGTHS), *("ä" * n for n in LENGTHS), "é" * (1 << 19), "é" * (1 << 19) + "x")
ODD_TEXTS = ("a\n", "a-b", "-a", "A b", "\x00", "\x1f", "\x7f", "\x9f", "\xa0", "a/v1", "Agent", "Session", "é\n", "1")
EDGES: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.TYPE_STRING: (*IDS, *(f"{each}\n" for each in IDS), *TEXTS, *ODD_TEXTS),
    FieldDescriptor.TYPE_BYTES: tuple(b"x" * n for n in LENGTHS),
    FieldDescriptor.TYPE_BOOL: (False, True),
    FieldDescriptor.TYPE_DOUBLE: (0.0, 1.5, nan, inf),
}
NUMBERS = (-1, 0, 1, 2, 3, 4, 5, 9, 10, 99, 100, 101, 1_000, 1_001, 4_194_304, 4_194_305)
SIZES = (1, 2, 64, 65, 256, 257, 1_000, 1_001)


def kinds_of_messages() -> list[type[Message]]:
    """Every type of message that a request can hold, once."""
    found: dict[str, Any] = {}
    waiting = [kind.DESCRIPTOR for kind in REQUESTS]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name not in found and not descriptor.GetOptions().map_entry:
            found[descriptor.full_name] = descriptor
        elif descriptor.full_name in found:
            continue
        waiting += [field.message_type for field in descriptor.fields if field.message_type is not None]
    return [GetMessageClass(found[name]) for name in sorted(found) if name.startswith("runstream.")]


def edges(field: Field) -> tuple[Any, ...]:
    """The values of a field without a message type that are on either side of some bound."""
    return EDGES.get(field.type, NUMBERS)


def set_in_turn(message: Message, field: Field) -> Iterator[None]:
    """Set one field to each of its edges, one after the other; at last to nothing."""
    name = field.name
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        yield from fill_in_turn(getattr(message, name), field)
    elif field.is_repeated:
        for entries in lists_of(field):
            message.ClearField(name)
            getattr(message, name).extend(entries)
            yield
    elif field.message_type is not None:
        getattr(message, name).SetInParent()
        yield
        yield from duration_in_turn(getattr(message, name))
    else:
        for value in edges(field):
            setattr(message, name, value)
            yield
    message.ClearField(name)
    yield


def lists_of(field: Field) -> Iterator[list[Any]]:
    """Lists in sizes, of equal and of different entries, and with a single entry at each of its edges."""
    if field.message_type is not None:
        entry = GetMessageClass(field.message_type)()
        yield from ([entry] * size for size in SIZES)
        return
    yield from ([value] for value in edges(field))
    some = edges(field)[0]
    yield from ([some] * size for size in SIZES)
    if isinstance(some, str):
        yield from ([f"{number}" for number in range(size)] for size in SIZES)


def fill_in_turn(held: Any, field: Field) -> Iterator[None]:  # noqa: ANN401  # a map
    """Fill a map with each edge of its keys, of its values, and in sizes."""
    key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
    for each in edges(key):
        held.clear()
        held[each]  # made by looking
        yield
    for each in () if value.message_type else edges(value):
        held["k"] = each
        yield
    held.clear()
    for number in range(max(SIZES) + 1):
        held[str(number)]
        if number + 1 in SIZES:
            yield


def duration_in_turn(message: Message) -> Iterator[None]:
    """Set a duration to what may be too much."""
    if isinstance(message, Duration):
        for message.seconds in (*NUMBERS, 315_360_000, 315_360_001, 1 << 40):
            yield


def make_good(message: Message) -> None:
    """Set what breaks a rule by being absent."""
    for violation in violations_of(message):
        (field,) = (each for each in message.DESCRIPTOR.fields if each.name == violation.field)
        for _ in set_in_turn(message, field):
            if violation.field not in {left.field for left in violations_of(message)}:
                break


@pytest.mark.parametrize("kind", kinds_of_messages(), ids=lambda kind: kind.DESCRIPTOR.name)
def test_nothing_is_let_through_that_the_validator_refuses(kind: type[Message]) -> None:
    """At whatever edge a field is, a quick yes is one of the validator's, too."""
    message = kind()
    make_good(message)
    assert violations_of(message) == []
    for field in kind.DESCRIPTOR.fields:
        kept = kind.FromString(message.SerializeToString())
        for _ in set_in_turn(kept, field):
            if keeps_rules(kept):
                assert violations_of(kept) == []


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.DESCRIPTOR.name)
def test_an_empty_request_is_told_from_one_that_lacks_something(kind: type[Message]) -> None:
    """A rule can be broken by what is not there."""
    assert keeps_rules(kind()) == (violations_of(kind()) == [])


@pytest.mark.parametrize("text", [*IDS, *(f"{each}\n" for each in IDS), IDS[0].upper(), f" {IDS[0]}", f"{IDS[0]}0"])
def test_an_id_is_an_id_to_both(text: str) -> None:
    """A pattern means to Python what it means to the validator, at a line's end too."""
    request = ResourceId(value=text)
    assert keeps_rules(request) == (violations_of(request) == [])


def test_what_most_requests_are_needs_no_validator() -> None:
    """Deltas with entries in every list, new executions, pieces of logs: all are within the quick look."""
    request = AgentExecutionUpdateStatusInput(execution_id=IDS[0], view=RESOURCE_VIEW_BASIC, attempt=1, sequence=7)
    request.status.messages.add(id="m", type=MESSAGE_AI, content_append="hello")
    request.status.tool_calls.add(id="t", name="read").args.update({"path": ["a", {"b": 1}]})
    request.status.todos["d"].content = "look"
    request.status.usage.add(id="u", input_tokens=7)
    execution = AgentExecution()
    execution.spec.agent_id, execution.spec.message = IDS[1], "hello"
    execution.metadata.labels["team"] = "blue"
    assert keeps_rules(request)
    assert keeps_rules(execution)
    assert keeps_rules(ImportExecutionRequest(execution_id=IDS[0], changes=[b"x"]))
