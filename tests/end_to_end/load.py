"""A mixed load of commands, and a ledger of what the server has acknowledged of them.

Each worker is one client with executions of its own, on which it sends one command after the other; so it knows the
revision of each exactly. A command that was cut off is in doubt: it may be stored or not. When the server is back the
worker sends it again as a client should, and from then on it must have had its effect once. Beside that, all workers
write to the same few executions, without sequences, each into a message of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import grpc
from grpc import aio

from runstream.model.phases import is_terminal
from runstream.v1.agent_execution_pb2 import (
    CONTROL_CANCEL,
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    EXECUTION_TERMINATED,
    EXECUTION_WAITING_FOR_INPUT,
    TODO_IN_PROGRESS,
    TOOL_CALL_COMPLETED,
    TOOL_CALL_RUNNING,
    AgentExecution,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import (
    AgentExecutionUpdateStatusInput,
    CancelAgentExecutionInput,
    GetAgentExecutionRequest,
    TerminateAgentExecutionInput,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, ResourceId
from tests.end_to_end.folder_check import bits
from tests.making import delta, execution
from tests.serving import refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.end_to_end.folder_check import Contents
    from tests.serving import Client

#: The label that tells by which call an execution was created.
KEY_LABEL = "key"
_MOST_LIVE = 5


@dataclass(frozen=True, slots=True)
class Known:
    """What an execution must be, after all that was acknowledged."""

    id: str
    session_id: str
    labels: dict[str, str]
    revision: int = 1
    sequence: int = 0
    phase: ExecutionPhase.ValueType = EXECUTION_PENDING
    cancelling: bool = False
    text: str = ""
    deleted: bool = False

    @property
    def ended(self) -> bool:
        """Whether it takes no more status."""
        return is_terminal(self.phase)

    def agrees(self, state: AgentExecution | None) -> bool:
        """Tell whether a state is the one that is known."""
        if state is None or self.deleted:
            return state is None and self.deleted
        return (
            state.metadata.revision == self.revision
            and dict(state.metadata.labels) == self.labels
            and state.status.phase == self.phase
            and (state.status.control.action == CONTROL_CANCEL) == self.cancelling
            and text_of(state, "m") == self.text
        )


def text_of(state: AgentExecution, message_id: str) -> str:
    """Return the content of a message, which must be there once at most."""
    (content,) = [message.content for message in state.status.messages if message.id == message_id] or [""]
    return content


def embellish(request: AgentExecutionUpdateStatusInput, number: int, random: Random) -> None:
    """Touch one of the other lists in a delta, or none."""
    place = str(number % 7)
    kind = random.randrange(8)
    if kind == 0:
        request.status.tool_calls.add(id=place, name="search", status=TOOL_CALL_RUNNING)
    elif kind == 1:
        request.status.tool_calls.add(id=place, result="r" * number, status=TOOL_CALL_COMPLETED)
    elif kind == 2:
        request.status.todos[place].content = f"think {number}"
        request.status.todos[place].status = TODO_IN_PROGRESS
    elif kind == 3:
        request.status.sub_agent_executions.add(id=place, name="scout")
    elif kind == 4:
        request.status.usage.add(id=place, input_tokens=number)
    elif kind == 5:
        request.replace_mask.paths.append("todos")


class Command(Protocol):
    """A command on one execution: how it is sent, and what it makes of the execution."""

    async def send(self, client: Client, *, again: bool) -> int | None:
        """Send it, for the first time or `again`, and return the revision it came to; None when that is not told."""
        ...

    def applied(self, known: Known) -> Known:
        """What the execution is after it."""
        ...


@dataclass(frozen=True, slots=True)
class Report:
    """A status delta with a sequence."""

    request: AgentExecutionUpdateStatusInput

    async def send(self, client: Client, *, again: bool) -> int:
        """A repeat of the sequence changes nothing."""
        _ = again
        answer = await client.executions.UpdateStatus(self.request)
        return answer.metadata.revision

    def applied(self, known: Known) -> Known:
        """More text, and perhaps another phase."""
        phase = self.request.status.phase or known.phase
        return replace(
            known,
            revision=known.revision + 1,
            sequence=self.request.sequence,
            phase=phase,
            cancelling=known.cancelling and not is_terminal(phase),
            text=known.text + "".join(message.content_append for message in self.request.status.messages),
        )


@dataclass(frozen=True, slots=True)
class Relabel:
    """New labels, for the revision that is known."""

    request: AgentExecution

    async def send(self, client: Client, *, again: bool) -> int:
        """A repeat is refused if it had arrived, since the revision has moved on then."""
        try:
            answer = await client.executions.Update(self.request)
        except aio.AioRpcError as error:
            if not again or error.code() is not grpc.StatusCode.ABORTED:
                raise
            request = GetAgentExecutionRequest(value=self.request.metadata.id, view=RESOURCE_VIEW_BASIC)
            answer = await client.queries.Get(request)
        return answer.metadata.revision

    def applied(self, known: Known) -> Known:
        """The labels of the request."""
        return replace(known, revision=known.revision + 1, labels=dict(self.request.metadata.labels))


@dataclass(frozen=True, slots=True)
class End:
    """A Cancel or a Terminate."""

    request: CancelAgentExecutionInput | TerminateAgentExecutionInput

    async def send(self, client: Client, *, again: bool) -> int:
        """A repeat changes nothing."""
        _ = again
        if isinstance(self.request, CancelAgentExecutionInput):
            answer = await client.executions.Cancel(self.request)
        else:
            answer = await client.executions.Terminate(self.request)
        return answer.metadata.revision

    def applied(self, known: Known) -> Known:
        """Ended at once, or asked to end."""
        after = replace(known, revision=known.revision + 1)
        if isinstance(self.request, TerminateAgentExecutionInput):
            return replace(after, phase=EXECUTION_TERMINATED, cancelling=False)
        if known.phase == EXECUTION_PENDING:
            return replace(after, phase=EXECUTION_CANCELLED)
        return replace(after, cancelling=True)


@dataclass(frozen=True, slots=True)
class Remove:
    """A Delete."""

    execution_id: str

    async def send(self, client: Client, *, again: bool) -> None:
        """A repeat finds nothing if it had arrived."""
        try:
            await client.executions.Delete(ResourceId(value=self.execution_id))
        except aio.AioRpcError as error:
            if not again or error.code() is not grpc.StatusCode.NOT_FOUND:
                raise

    def applied(self, known: Known) -> Known:
        """Gone."""
        return replace(known, deleted=True)


@dataclass(slots=True)
class Creation:
    """A Create with an idempotency key, and its answer once it is there."""

    key: str
    request: AgentExecution
    answer: AgentExecution | None = None

    async def send(self, client: Client) -> AgentExecution:
        """Send it; every time it is answered as the first time."""
        return await client.executions.Create(self.request, metadata=(("idempotency-key", self.key),))


@dataclass(slots=True)
class Worker:
    """One client: what it knows, and the one command that it has in doubt."""

    name: str
    random: Random
    #: The agents that it creates executions for, and the executions that all workers write to.
    agents: list[str]
    shared: list[str]
    #: Called for every acknowledgement.
    acknowledged: Callable[[], None]
    known: dict[str, Known] = field(default_factory=dict)
    created: list[Creation] = field(default_factory=list)
    #: What it has written to each shared execution.
    texts: dict[str, str] = field(default_factory=dict)
    #: The highest revision of each shared execution that it was told.
    heard: dict[str, int] = field(default_factory=dict)
    doubt: tuple[str, Command] | None = None
    doubted_creation: Creation | None = None
    doubted_text: tuple[str, str] | None = None
    _numbers: int = 0

    async def run(self, client: Client) -> None:
        """Send again what is in doubt, then one command after the other until the server is gone."""
        await self.settle(client)
        while True:
            live = [known for known in self.known.values() if not known.ended and not known.deleted]
            if not live or (len(live) < _MOST_LIVE and self.random.random() < 0.2):
                await self._create(client)
            elif self.random.random() < 0.15:
                await self._write_shared(client, self.random.choice(self.shared))
            else:
                known = self.random.choice(live)
                await self._command(client, known.id, self._choose(known))

    async def settle(self, client: Client) -> None:
        """Send again what is in doubt, and one Create that was answered."""
        if self.doubted_creation is not None:
            await self._create(client, self.doubted_creation)
        if self.doubt is not None:
            await self._command(client, *self.doubt, again=True)
        if self.created:
            await self._repeat(client, self.random.choice(self.created))

    async def _repeat(self, client: Client, creation: Creation) -> None:
        """A Create that was answered long ago is answered the same."""
        assert creation.answer is not None
        if self.known[creation.answer.metadata.id].deleted:
            told = await refusal(creation.send(client))
            if told.code is grpc.StatusCode.UNAVAILABLE:
                return  # struck down
            assert (told.code, told.reason) == (grpc.StatusCode.NOT_FOUND, "IDEMPOTENT_RESULT_DELETED")
        else:
            assert bits(await creation.send(client)) == bits(creation.answer)

    async def _create(self, client: Client, creation: Creation | None = None) -> None:
        self.doubted_creation = creation = creation or self._new_creation()
        creation.answer = await creation.send(client)
        made = creation.answer
        assert (made.metadata.revision, made.metadata.labels[KEY_LABEL]) == (1, creation.key)
        self.known[made.metadata.id] = Known(
            made.metadata.id, session_id=made.spec.session_id, labels=dict(made.metadata.labels)
        )
        self.created.append(creation)
        self.doubted_creation = None
        self.acknowledged()

    async def _command(self, client: Client, execution_id: str, command: Command, *, again: bool = False) -> None:
        self.doubt = execution_id, command
        revision = await command.send(client, again=again)
        after = command.applied(self.known[execution_id])
        assert revision in (None, after.revision), f"{command} came to revision {revision}, not {after.revision}"
        self.known[execution_id] = after
        self.doubt = None
        self.acknowledged()
        if isinstance(command, Report) and self.random.random() < 0.1:
            # As a client does that has not heard the answer.
            assert await command.send(client, again=True) == after.revision

    async def _write_shared(self, client: Client, execution_id: str) -> None:
        text = f"{self._number()} "
        self.doubted_text = execution_id, text
        request = delta(execution_id)
        request.status.messages.add(id=self.name, content_append=text)
        request.view = RESOURCE_VIEW_BASIC
        answer = await client.executions.UpdateStatus(request)
        self.heard[execution_id] = max(self.heard.get(execution_id, 0), answer.metadata.revision)
        self.texts[execution_id] = self.texts.get(execution_id, "") + text
        self.doubted_text = None
        self.acknowledged()

    def _new_creation(self) -> Creation:
        key = f"{self.name}-{self._number()}"
        request = execution(labels={KEY_LABEL: key, "worker": self.name}, tags=[self.random.choice("abc")])
        sessions = [known.session_id for known in self.known.values() if known.session_id]
        kind = self.random.random()
        if kind < 0.2 and sessions:
            request.spec.session_id = self.random.choice(sessions)
        else:
            request.spec.agent_id = self.random.choice(self.agents)
            request.spec.context.stateless = kind > 0.85
        if self.random.random() < 0.3:
            request.spec.runtime_env["TOKEN"].value = "hush"
            request.spec.runtime_env["TOKEN"].is_secret = True
        return Creation(key, request)

    def _choose(self, known: Known) -> Command:
        choice = self.random.random()
        if choice < 0.80:
            return self._report(known)
        if choice < 0.90:
            return self._relabel(known)
        if choice < 0.94 and not known.cancelling:
            return End(CancelAgentExecutionInput(id=known.id, reason="enough"))
        if choice < 0.96:
            return End(TerminateAgentExecutionInput(id=known.id, reason="enough"))
        return Remove(known.id)

    def _report(self, known: Known) -> Report:
        number = self._number()
        request = delta(
            known.id, phase=self._next_phase(known), sequence=known.sequence + self.random.choice((1, 1, 3))
        )
        long = self.random.random() < 0.1
        request.status.messages.add(id="m", content_append=f"{number}{'.' * (20_000 if long else 0)} ")
        embellish(request, number, self.random)
        request.view = RESOURCE_VIEW_BASIC
        return Report(request)

    def _next_phase(self, known: Known) -> ExecutionPhase.ValueType | None:
        steps: dict[ExecutionPhase.ValueType, list[ExecutionPhase.ValueType]] = {
            EXECUTION_PENDING: [EXECUTION_IN_PROGRESS],
            EXECUTION_IN_PROGRESS: [EXECUTION_WAITING_FOR_INPUT, EXECUTION_COMPLETED, EXECUTION_FAILED],
            EXECUTION_WAITING_FOR_INPUT: [EXECUTION_IN_PROGRESS],
        }
        if known.cancelling and self.random.random() < 0.5:
            return EXECUTION_CANCELLED
        often = 0.12 if known.phase == EXECUTION_IN_PROGRESS else 0.5
        return self.random.choice(steps[known.phase]) if self.random.random() < often else None

    def _relabel(self, known: Known) -> Relabel:
        """Send back what was created, with one label more or another value of it."""
        (creation,) = [made for made in self.created if made.answer and made.answer.metadata.id == known.id]
        assert creation.answer is not None
        request = AgentExecution()
        request.CopyFrom(creation.answer)
        request.ClearField("status")
        request.metadata.revision = known.revision
        request.metadata.labels["mood"] = str(self._number() % 5)
        return Relabel(request)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def check(self, contents: Contents) -> None:
        """Everything acknowledged is stored; what is in doubt is stored whole or not at all."""
        for execution_id, known in self.known.items():
            state = contents.executions.get(execution_id)
            doubted = self.doubt is not None and self.doubt[0] == execution_id
            possible = [known, self.doubt[1].applied(known)] if self.doubt and doubted else [known]
            assert any(one.agrees(state) for one in possible), f"{possible} but stored is {state}"
        for creation in self.created:
            assert creation.answer is not None
            log = contents.logs.get(creation.answer.metadata.id)
            assert log is None or bits(log[0].created) == bits(creation.answer)
        for execution_id in self.shared:
            self._check_shared(contents, execution_id)

    def _check_shared(self, contents: Contents, execution_id: str) -> None:
        """The shared executions have every text once, in the order in which it was sent."""
        state, known = contents.executions[execution_id], self.texts.get(execution_id, "")
        assert state.metadata.revision >= self.heard.get(execution_id, 1)
        stored = text_of(state, self.name)
        if self.doubted_text and self.doubted_text[0] == execution_id:
            assert stored in (known, known + self.doubted_text[1])
            self.texts[execution_id] = stored  # without a sequence, looking is how to find out
            self.doubted_text = None
        assert stored == self.texts.get(execution_id, "")
