"""A data folder with very many executions, made in a minute without a server.

A real server makes one execution of each sort in a small folder. The folder is then read key by key, and every key and
value that belongs to one of them is written again and again, with the id and the second of its creation replaced by
others of the same length. So the folder holds what a server would have written, whatever its format, and the doctor
accepts it.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio

from benchmarks.server_process import server
from runstream.model.ids import AGENT_EXECUTION, IdSource, ulid_millis
from runstream.storage.offline import OfflineFolder
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_COMPLETED,
    EXECUTION_FAILED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    AgentExecution,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import AgentExecutionUpdateStatusInput
from runstream.v1.agent_execution_service_pb2_grpc import AgentExecutionCommandControllerStub
from runstream.v1.agent_instance_pb2 import AgentInstance
from runstream.v1.agent_instance_service_pb2_grpc import AgentInstanceCommandControllerStub
from runstream.v1.agent_pb2 import Agent
from runstream.v1.agent_service_pb2_grpc import AgentCommandControllerStub
from runstream.v1.session_pb2 import Session
from runstream.v1.session_service_pb2_grpc import SessionCommandControllerStub

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: How long ago the oldest was created: they are spread evenly over the time since.
_SPAN_SECONDS: Final = 30 * 24 * 3600
#: How many keys go into one write.
_BATCH: Final = 20_000
_NOTE: Final = "population.json"
_VERSION: Final = 4


@dataclass(frozen=True, slots=True)
class Sort:
    """One sort of executions, which are spread evenly; where two sorts meet, the place is the earlier one's."""

    name: str
    phase: ExecutionPhase.ValueType
    agent: str
    #: Which part of all they are; with `fixed`, how many there are, however many others are stored.
    every: int = 1
    fixed: int = 0
    own_session: bool = True
    org: str = ""
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)


SORTS: Final = (
    Sort("waiting", EXECUTION_PENDING, "common", every=0, fixed=200),
    Sort("rare", EXECUTION_COMPLETED, "rare", every=99, own_session=False, org="small", tags=("rare",)),
    Sort("failed", EXECUTION_FAILED, "common", every=10, tags=("nightly",), labels={"team": "ads"}),
    Sort("usual", EXECUTION_COMPLETED, "common", tags=("nightly", "survey"), labels={"team": "search"}),
)


@dataclass(frozen=True, slots=True)
class Population:
    """A folder of `count` executions, and what a filter must name to find some of them."""

    folder: Path
    count: int
    seed: int
    agents: dict[str, str]
    session: str
    #: The id that a deep page begins behind, a third of all before it, and the times that frame the middle half.
    deep: str
    after: int
    before: int
    seconds: float

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"


@dataclass(frozen=True, slots=True)
class _Template:
    """What one execution has left in the folder: keys and values, and what of them is its own."""

    pairs: list[tuple[bytes, bytes]]
    ulids: list[bytes]
    seconds: list[int]

    def place(self, key: bytes) -> bytes:
        """Return what stands before its id in a key: copies of the key sort by that, then by their ids."""
        return key[: min(found for ulid in self.ulids if (found := key.find(ulid)) >= 0)]

    def copy(self, pair: tuple[bytes, bytes], ulid: bytes, second: int) -> tuple[bytes, bytes]:
        """Return a key and its value as they are of another execution."""
        key, value = pair
        for old in self.ulids:
            key = key.replace(old, ulid)
            value = value.replace(old, ulid)
        for offset, old_second in enumerate(self.seconds if value else ()):
            for before, after in zip(_forms(old_second), _forms(second + offset), strict=True):
                value = value.replace(before, after)
        return key, value


def populate(folder: Path, count: int, seed: int) -> Population:
    """Return a folder of `count` executions below `folder`: the one of an earlier run, or made now."""
    place = folder / f"{count}-{seed}"
    note = place / _NOTE
    if note.exists():
        told = json.loads(note.read_text())
        if told.pop("version") == _VERSION:
            return Population(folder=place, **told)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    made = _make(place, count, seed)
    told = asdict(made) | {"version": _VERSION}
    del told["folder"]
    note.write_text(json.dumps(told, indent=1))
    return made


def _make(place: Path, count: int, seed: int) -> Population:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        data = Path(scratch) / "data"
        with server(data) as running:
            made = asyncio.run(_make_one_of_each(running.address))
        with OfflineFolder.open(data, purpose="benchmark") as small, small.view() as view:
            pairs = list(view.pairs())
    ids: dict[str, tuple[str, str]] = made["executions"]
    templates = [_template(pairs, ids[sort.name]) for sort in SORTS]
    own = {key for template in templates for key, _ in template.pairs}
    numbers = _Numbers(count, seed, int(time.time()) - _SPAN_SECONDS)
    with OfflineFolder.make(place / "data", purpose="benchmark") as folder:
        copies = _copies(templates, numbers)
        while batch := list(islice(copies, _BATCH)):
            folder.write(batch, sync=False)
        folder.write(pair for pair in pairs if pair[0] not in own)
    return Population(
        folder=place,
        count=count,
        seed=seed,
        agents=made["agents"],
        session=made["session"],
        deep=f"aex_{numbers.ulid(2 * count // 3)}",
        after=numbers.second(count // 4),
        before=numbers.second(3 * count // 4),
        seconds=time.perf_counter() - began,
    )


class _Numbers:
    """What the id and the time of the n-th execution are."""

    def __init__(self, count: int, seed: int, first: int) -> None:
        self.count = count
        self._first = first
        self._high = random.Random(seed).getrandbits(40)

    def second(self, number: int) -> int:
        """When it was created, in seconds since 1970."""
        return self._first + number * (_SPAN_SECONDS - 60) // self.count

    def ulid(self, number: int) -> str:
        """The part of its id behind the prefix: its time, something random, and its number, so that ids sort."""
        low = random.Random(self._high ^ number).getrandbits(39)
        source = IdSource(lambda: self.second(number) * 1000, ((number << 40) | low).to_bytes)
        return source.new(AGENT_EXECUTION).partition("_")[2]

    def sort(self, number: int) -> int:
        """Which sort it is of, by its place in `SORTS`; the last sort claims what no other does."""
        every = (sort.every or max(1, self.count // sort.fixed) for sort in SORTS)
        return next(place for place, each in enumerate(every) if number % each == each - 1)


def _copies(templates: Sequence[_Template], numbers: _Numbers) -> Iterator[tuple[bytes, bytes]]:
    """Yield all keys in their order, so that the database need not sort them: one kind of key after the other."""
    sorts = [numbers.sort(number) for number in range(numbers.count)]
    ulids = [numbers.ulid(number).encode() for number in range(numbers.count)]
    seconds = [numbers.second(number) for number in range(numbers.count)]
    kinds: dict[bytes, dict[int, list[tuple[bytes, bytes]]]] = {}
    for sort, template in enumerate(templates):
        for pair in template.pairs:
            kinds.setdefault(template.place(pair[0]), {}).setdefault(sort, []).append(pair)
    for _, pairs in sorted(kinds.items()):
        for number, sort in enumerate(sorts):
            for pair in pairs.get(sort, ()):
                yield templates[sort].copy(pair, ulids[number], seconds[number])


@lru_cache(maxsize=1 << 12)
def _forms(second: int) -> tuple[bytes, bytes]:
    """Return the forms in which a second is stored: as the first field of a Timestamp, and as the text of a time."""
    stamp = Timestamp(seconds=second)
    return stamp.SerializeToString(), stamp.ToJsonString().removesuffix("Z").encode()


def _template(pairs: Sequence[tuple[bytes, bytes]], ids: tuple[str, str]) -> _Template:
    execution_id, session_id = ids
    ulids = [each.partition("_")[2].encode() for each in (execution_id, session_id) if each]
    # A session of its own goes with it.
    own = [(key, value) for key, value in pairs if any(ulid in key for ulid in ulids)]
    blob = b"".join(value for _, value in own)
    created = ulid_millis(execution_id) // 1000
    seconds = [second for second in range(created, created + 30) if any(form in blob for form in _forms(second))]
    return _Template(own, ulids, seconds)


async def _make_one_of_each(address: str) -> dict[str, Any]:
    """Have a server make one execution of each sort; return the ids of what it made."""
    async with aio.insecure_channel(address) as channel:
        agents = {name: await _agent(channel, name) for name in dict.fromkeys(sort.agent for sort in SORTS)}
        instance = AgentInstance()
        instance.metadata.name, instance.spec.agent_id = "shared", agents["rare"]
        made = await AgentInstanceCommandControllerStub(channel).Create(instance)
        session = Session()
        session.metadata.name, session.spec.agent_instance_id = "shared", made.metadata.id
        shared = (await SessionCommandControllerStub(channel).Create(session)).metadata.id
        executions = {sort.name: await _execution(channel, sort, agents, shared) for sort in SORTS}
    return {"agents": agents, "session": shared, "executions": executions}


async def _agent(channel: aio.Channel, name: str) -> str:
    agent = Agent()
    agent.metadata.name = name
    return (await AgentCommandControllerStub(channel).Create(agent)).metadata.id


async def _execution(channel: aio.Channel, sort: Sort, agents: dict[str, str], shared: str) -> tuple[str, str]:
    """Make an execution of a sort; return its id, and that of its session when it has one of its own."""
    commands = AgentExecutionCommandControllerStub(channel)
    request = AgentExecution()
    request.metadata.org = sort.org
    request.metadata.tags.extend(sort.tags)
    request.metadata.labels.update(sort.labels)
    request.spec.message = "Look at the newest reports and say what is in them."
    if sort.own_session:
        request.spec.agent_id = agents[sort.agent]
    else:
        request.spec.session_id = shared
    made = await commands.Create(request)
    execution_id = made.metadata.id
    if sort.phase != EXECUTION_PENDING:
        begin = AgentExecutionUpdateStatusInput(execution_id=execution_id)
        begin.status.phase = EXECUTION_IN_PROGRESS
        await commands.UpdateStatus(begin)
        end = AgentExecutionUpdateStatusInput(execution_id=execution_id)
        end.status.phase = sort.phase
        end.status.messages.add(id="answer", content="There are three new reports, and nothing in them is urgent.")
        await commands.UpdateStatus(end)
    return execution_id, made.spec.session_id if sort.own_session else ""
