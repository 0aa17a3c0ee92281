"""Methods: every method of the protos is served, and every request is checked before anything is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from runstream.pipeline.engine import Pipeline
from runstream.pipeline.steps import ValidateFieldConstraints
from runstream.transport.methods import bind_methods, service_descriptors
from runstream.v1.transfer_pb2 import ImportResourcesRequest
from tests.raw import call_raw, every_method, every_service, request_of
from tests.serving import INVALID, Client, refusal, serving

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.message import Message

METHODS = every_method()
#: What makes a request wrong, by the first field of it that is there.
WRONG: dict[str, Any] = {"kind": "Planet", "value": "nonsense", "id": "nonsense", "execution_id": "nonsense"}
WRONG |= {"page_size": -1, "slug": "Not A Slug", "agent_execution_id": "nonsense", "runner_id": "r" * 257}
WRONG |= {"chunk_bytes": -1}
#: The commands that the server itself gives, or that the call gate has checked.
INTERNAL = {"Assign", "Release", "EnforceCancel", "EnforceDeadline", "DecideByDefault", "Retire", "Import"}


def spoil(request: Message) -> str:
    """Put a wrong value into a request; return the path of the field."""
    names = set(request.DESCRIPTOR.fields_by_name)
    if isinstance(request, ImportResourcesRequest):
        request.agents.add(kind="Planet")
        return "agents[0].kind"
    tried = ("value", "id", "execution_id", "agent_execution_id", "runner_id", "page_size", "slug", "kind")
    name = next(name for name in (*tried, "chunk_bytes") if name in names)
    setattr(request, name, WRONG[name])
    return name


def test_the_server_knows_every_service_of_the_protos() -> None:
    """No file of services is forgotten when the table of methods is made."""
    assert {service.full_name for service in service_descriptors()} == {
        service.full_name for service in every_service()
    }
    assert len(METHODS) == 44


async def test_bytes_that_are_no_request_are_refused(client: Client) -> None:
    """Every method answers bytes that are not its request with MALFORMED_REQUEST, and names what it takes."""
    for method in METHODS:
        for payload in (b"\xff", b"\x0a\x7fab", b"\x00\x00\x00", b"\x0b" * 200):
            told = await refusal(call_raw(client.channel, method, payload))
            assert (told.code, told.reason) == (INVALID, "MALFORMED_REQUEST"), method.full_name
            assert method.input_type.full_name in told.message


async def test_a_request_against_the_rules_is_refused(client: Client) -> None:
    """Every method checks the rules of the proto before it does anything else."""
    for method in METHODS:
        request = request_of(method)
        field = spoil(request)
        told = await refusal(call_raw(client.channel, method, request.SerializeToString()))
        assert (told.code, told.reason) == (INVALID, "INVALID_FIELDS"), method.full_name
        assert field in told.fields


async def test_every_command_begins_with_the_rules_of_the_proto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step of every command that the server makes is ValidateFieldConstraints, and it stands there once."""
    made: list[Pipeline[Any, Any, Any]] = []
    make = Pipeline.__init__

    def noted(self: Pipeline[Any, Any, Any], *args: object, **kwargs: object) -> None:
        make(self, *args, **kwargs)  # type: ignore[arg-type]  # whatever it is made of
        made.append(self)

    monkeypatch.setattr(Pipeline, "__init__", noted)
    async with serving(tmp_path / "data"):
        pass
    commands = {
        f"{method.containing_service.name.removesuffix('CommandController')}.{method.name}"
        for method in METHODS
        if method.containing_service.name.endswith("CommandController")
    }
    internal = {f"AgentExecution.{name}" for name in INTERNAL} | {"Resources.Import"}
    assert {pipeline.name for pipeline in made} == commands | internal
    for pipeline in (each for each in made if each.name in commands):
        checks = [isinstance(step, ValidateFieldConstraints) for step in pipeline.steps]
        assert checks == [True] + [False] * (len(checks) - 1), pipeline.name


def test_a_method_that_nobody_serves_is_an_error_at_start() -> None:
    """A method without code fails where the table is made, with its name, and not at the first call."""
    servers: dict[str, tuple[object, ...]] = {service.name: () for service in every_service()}
    with pytest.raises(LookupError, match=r"runstream\.v1\.\w+\.\w+"):
        bind_methods(servers)
