"""Get, List and ListBySession: every filter alone and together, pages, page tokens, views."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from runstream.model.ids import ulid_millis
from runstream.model.times import to_datetime, to_millis, to_timestamp
from runstream.services.executions.queries import matches, query_of
from runstream.v1.agent_execution_pb2 import (
    EXECUTION_CANCELLED,
    EXECUTION_COMPLETED,
    EXECUTION_IN_PROGRESS,
    EXECUTION_PENDING,
    EXECUTION_WAITING_FOR_INPUT,
    AgentExecution,
    ExecutionPhase,
)
from runstream.v1.agent_execution_service_pb2 import (
    GetAgentExecutionRequest,
    ListAgentExecutionsBySessionRequest,
    ListAgentExecutionsRequest,
)
from runstream.v1.resource_pb2 import RESOURCE_VIEW_BASIC, RESOURCE_VIEW_FULL, RESOURCE_VIEW_UNSPECIFIED, ResourceId
from tests.clock import START, FakeClock
from tests.making import NOWHERE, a_running_execution, an_agent, an_execution, delta, execution, stored
from tests.serving import INVALID, MISSING, Client, refusal, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

PHASES = (
    EXECUTION_PENDING,
    EXECUTION_IN_PROGRESS,
    EXECUTION_WAITING_FOR_INPUT,
    EXECUTION_COMPLETED,
    EXECUTION_CANCELLED,
)
TAGS = ("red", "green", "blue")
ORGS = ("", "acme")
FAR = 253_402_300_799  # the last second of the year 9999


def ids_of(executions: Sequence[AgentExecution]) -> list[str]:
    """The ids of executions, in their order."""
    return [found.metadata.id for found in executions]


async def pages(
    client: Client, request: ListAgentExecutionsRequest, sizes: Sequence[int]
) -> AsyncIterator[list[AgentExecution]]:
    """Ask for page after page, with the sizes in turn, to the end."""
    turn = 0
    while True:
        request.page_size = sizes[turn % len(sizes)]
        page = await client.queries.List(request)
        assert len(page.entries) <= (request.page_size or 50)
        yield list(page.entries)
        if not page.next_page_token:
            return
        assert len(page.entries) == (request.page_size or 50), "a page before the last one is full"
        request.page_token = page.next_page_token
        turn += 1


async def all_pages(client: Client, request: ListAgentExecutionsRequest, sizes: Sequence[int] = (1000,)) -> list[str]:
    """The ids on all pages."""
    return [found for page in [ids_of(page) async for page in pages(client, request, sizes)] for found in page]


def wanted(request: ListAgentExecutionsRequest, found: AgentExecution) -> bool:
    """Whether an execution is one that the request asks for, read from the contract and not from the code."""
    metadata, created = found.metadata, to_millis(found.status.audit.spec_audit.created_at)
    phases = set(request.phases) | ({request.phase} if request.phase else set())
    return (
        (not phases or found.status.phase in phases)
        and set(request.tags) <= set(metadata.tags)
        and dict(request.labels).items() <= dict(metadata.labels).items()
        and request.session_id in ("", found.spec.session_id)
        and request.agent_id in ("", found.spec.agent_id)
        and request.org in ("", metadata.org)
        and (not request.HasField("created_after") or created >= to_millis(request.created_after))
        and (not request.HasField("created_before") or created < to_millis(request.created_before))
    )


class Crowd:
    """Many executions that differ in everything a list can filter by."""

    def __init__(self, client: Client, clock: FakeClock, chance: random.Random) -> None:
        self._client = client
        self._clock = clock
        self._chance = chance
        self._agents: list[str] = []
        self._sessions: list[str] = []
        self._ids: list[str] = []

    async def grow(self, count: int) -> None:
        """Create executions, let time pass between them, and take them to random phases."""
        chance = self._chance
        while len(self._agents) < 3:
            self._agents.append(await an_agent(self._client, f"agent {len(self._agents)}"))
        for _ in range(count):
            self._clock.advance(chance.choice((0, 0.001, 1.0)))
            request = execution(
                tags=chance.sample(TAGS, chance.randint(0, 2)),
                labels={key: chance.choice("ab") for key in chance.sample(("team", "tier"), chance.randint(0, 2))},
                org=chance.choice(ORGS),
            )
            if self._sessions and chance.random() < 0.6:
                request.spec.session_id = chance.choice(self._sessions)
            else:
                request.spec.agent_id = chance.choice(self._agents)
            made = await self._client.executions.Create(request)
            self._ids.append(made.metadata.id)
            if len(self._sessions) < 4:
                self._sessions.append(made.spec.session_id)
            await self._move(made.metadata.id)

    async def _move(self, execution_id: str) -> None:
        phase = self._chance.choice(PHASES)
        if phase == EXECUTION_WAITING_FOR_INPUT:
            await self._client.executions.UpdateStatus(delta(execution_id, phase=EXECUTION_IN_PROGRESS))
        if phase != EXECUTION_PENDING:
            await self._client.executions.UpdateStatus(delta(execution_id, phase=phase))

    async def thin_out(self) -> None:
        """Delete a few, and change the tags of a few others."""
        for execution_id in self._chance.sample(self._ids, 6):
            await self._client.executions.Delete(ResourceId(value=execution_id))
            self._ids.remove(execution_id)
        for execution_id in self._chance.sample(self._ids, 6):
            request = await stored(self._client, execution_id)
            del request.metadata.tags[:]
            request.metadata.tags.append(self._chance.choice(TAGS))
            await self._client.executions.Update(request)

    async def everyone(self) -> list[AgentExecution]:
        """All there are, newest first."""
        return [await stored(self._client, execution_id) for execution_id in sorted(self._ids, reverse=True)]

    def request(self, everyone: list[AgentExecution]) -> ListAgentExecutionsRequest:
        """A random filter; each part is there or not."""
        chance = self._chance
        parts: dict[str, Any] = {
            "phase": chance.choice(PHASES),
            "phases": chance.sample(PHASES, chance.randint(1, 3)),
            "tags": chance.sample(TAGS, chance.randint(1, 2)),
            "labels": {chance.choice(("team", "tier")): chance.choice("ab")},
            "session_id": chance.choice(self._sessions),
            "agent_id": chance.choice(self._agents),
            "org": "acme",
        }
        edges = sorted(to_millis(chance.choice(everyone).status.audit.spec_audit.created_at) for _ in range(2))
        for name, edge in zip(("created_after", "created_before"), edges, strict=True):
            parts[name] = Timestamp()
            parts[name].FromMilliseconds(edge + (chance.random() < 0.3 and name == "created_before"))
        return ListAgentExecutionsRequest(**{name: part for name, part in parts.items() if chance.random() < 0.3})


@pytest.mark.parametrize("seed", range(3))
async def test_a_list_is_what_a_look_at_everything_would_find(tmp_path: Path, seed: int) -> None:
    """Whatever is asked for in whatever pages, a list is exactly those that match, newest first, each once.

    What is created between two pages does not disturb those that were there.
    """
    clock, chance = FakeClock(), random.Random(seed)
    async with serving(tmp_path / "data", clock) as running:
        crowd = Crowd(running.client, clock, chance)
        await crowd.grow(60)
        await crowd.thin_out()
        matched, everyone = 0, await crowd.everyone()
        for round_ in range(60):
            request = crowd.request(everyone)
            expected = [found.metadata.id for found in everyone if wanted(request, found)]
            matched += bool(expected)
            # What WatchList goes by, one execution at a time.
            assert [found.metadata.id for found in everyone if matches(query_of(request), found)] == expected, request
            seen: list[str] = []
            async for page in pages(running.client, request, chance.choices((1, 2, 3, 7, 100), k=3)):
                seen += ids_of(page)
                if round_ % 10 == 9:
                    clock.advance(0.001)
                    await crowd.grow(1)
            assert seen == expected, request
            if round_ % 10 == 9:
                everyone = await crowd.everyone()
    assert matched > 20


async def test_a_list_is_basic_unless_asked_otherwise(client: Client) -> None:
    """A list tells no messages unless the view is FULL, by session as well; Get is FULL unless asked otherwise."""
    execution_id = await a_running_execution(client)
    request = delta(execution_id)
    request.status.messages.add(id="m", content="hello")
    whole = await client.executions.UpdateStatus(request)
    session_id = whole.spec.session_id
    basic = AgentExecution()
    basic.CopyFrom(whole)
    basic.status.ClearField("messages")
    views = {RESOURCE_VIEW_UNSPECIFIED: basic, RESOURCE_VIEW_BASIC: basic, RESOURCE_VIEW_FULL: whole}
    for view, expected in views.items():
        listed = await client.queries.List(ListAgentExecutionsRequest(view=view))
        by_session = await client.queries.ListBySession(
            ListAgentExecutionsBySessionRequest(session_id=session_id, view=view)
        )
        assert list(listed.entries) == list(by_session.entries) == [expected]
    views[RESOURCE_VIEW_UNSPECIFIED] = whole
    for view, expected in views.items():
        assert await client.queries.Get(GetAgentExecutionRequest(value=execution_id, view=view)) == expected


async def test_pages_of_the_sizes_that_can_be_asked_for(client: Client) -> None:
    """A page has 50 entries when none is asked for, at most 1000, and more than that is refused."""
    agent_id = await an_agent(client)
    made = await asyncio.gather(
        *(client.executions.Create(execution(agent_id=agent_id, stateless=True)) for _ in range(1003))
    )
    newest_first = sorted(ids_of(made), reverse=True)
    default = await client.queries.List(ListAgentExecutionsRequest())
    assert ids_of(default.entries) == newest_first[:50]
    largest = await client.queries.List(ListAgentExecutionsRequest(page_size=1000))
    assert ids_of(largest.entries) == newest_first[:1000]
    assert await all_pages(client, ListAgentExecutionsRequest(), (1000, 2)) == newest_first
    for size in (-1, 1001):
        told = await refusal(client.queries.List(ListAgentExecutionsRequest(page_size=size)))
        assert (told.code, told.reason, set(told.fields)) == (INVALID, "INVALID_FIELDS", {"page_size"})


async def test_the_last_page_has_no_token_even_when_it_is_full(client: Client) -> None:
    """A list that ends with a full page says so at once; nobody asks for an empty page in vain."""
    agent_id = await an_agent(client)
    for _ in range(4):
        await client.executions.Create(execution(agent_id=agent_id))
    first = await client.queries.List(ListAgentExecutionsRequest(page_size=2))
    last = await client.queries.List(ListAgentExecutionsRequest(page_size=2, page_token=first.next_page_token))
    nothing = await client.queries.List(ListAgentExecutionsRequest(tags=["none"]))
    assert first.next_page_token
    assert (len(last.entries), last.next_page_token) == (2, "")
    assert (len(nothing.entries), nothing.next_page_token) == (0, "")


async def test_a_deletion_between_two_pages_skips_nobody_else(client: Client) -> None:
    """When the entry that a token points at is deleted, the next page begins behind it all the same."""
    agent_id = await an_agent(client)
    made = [await client.executions.Create(execution(agent_id=agent_id)) for _ in range(6)]
    newest_first = sorted(ids_of(made), reverse=True)
    page = await client.queries.List(ListAgentExecutionsRequest(page_size=3))
    for gone in (newest_first[2], newest_first[3]):
        await client.executions.Delete(ResourceId(value=gone))
    rest = await client.queries.List(ListAgentExecutionsRequest(page_size=3, page_token=page.next_page_token))
    assert ids_of(rest.entries) == newest_first[4:]


async def test_a_token_belongs_to_its_filter(client: Client) -> None:
    """With another filter, or in another method, a token is refused; another page size or view is no other filter."""
    made = await client.executions.Create(execution(agent_id=await an_agent(client), tags=["t"]))
    session_id = made.spec.session_id
    await client.executions.Create(execution(session_id=session_id, tags=["t"]))
    first = await client.queries.List(ListAgentExecutionsRequest(page_size=1, tags=["t"]))
    token = first.next_page_token
    again = ListAgentExecutionsRequest(page_size=7, tags=["t"], page_token=token, view=RESOURCE_VIEW_FULL)
    assert ids_of((await client.queries.List(again)).entries) == [made.metadata.id]
    for call in (
        client.queries.List(ListAgentExecutionsRequest(page_token=token)),
        client.queries.List(ListAgentExecutionsRequest(tags=["t", "u"], page_token=token)),
        client.queries.List(ListAgentExecutionsRequest(tags=["t"], org="acme", page_token=token)),
        client.queries.ListBySession(ListAgentExecutionsBySessionRequest(session_id=session_id, page_token=token)),
    ):
        told = await refusal(call)
        assert (told.code, told.reason) == (INVALID, "PAGE_TOKEN_FILTER_MISMATCH")
        assert set(told.fields) == {"page_token"}


async def test_a_token_that_is_none_is_refused(client: Client) -> None:
    """What no server has made, or what was changed on the way, is INVALID_PAGE_TOKEN."""
    agent_id = await an_agent(client)
    for _ in range(2):
        await client.executions.Create(execution(agent_id=agent_id))
    good = (await client.queries.List(ListAgentExecutionsRequest(page_size=1))).next_page_token
    flipped = good[:-1] + ("A" if good[-1] != "A" else "B")
    for bad in ("nonsense", "!", good[:-4], good + "A", flipped, good + "=", "é"):
        told = await refusal(client.queries.List(ListAgentExecutionsRequest(page_token=bad)))
        assert (told.code, told.reason, set(told.fields)) == (INVALID, "INVALID_PAGE_TOKEN", {"page_token"})


async def test_the_time_of_creation_is_the_one_that_lists_go_by(tmp_path: Path) -> None:
    """However time passes during a creation, `created_after` includes its millisecond, `created_before` does not."""
    clock = FakeClock(tick=timedelta(milliseconds=7))
    async with serving(tmp_path / "data", clock) as running:
        client = running.client
        for number in range(5):
            execution_id = await an_execution(client, agent=f"agent {number}")
            made = await stored(client, execution_id)
            created = made.status.audit.spec_audit.created_at
            after = to_timestamp(to_datetime(created) + timedelta(milliseconds=1))
            assert to_millis(created) == ulid_millis(execution_id)
            for request, found in (
                (ListAgentExecutionsRequest(created_after=created), True),
                (ListAgentExecutionsRequest(created_after=after), False),
                (ListAgentExecutionsRequest(created_before=created), False),
                (ListAgentExecutionsRequest(created_before=after), True),
            ):
                assert (execution_id in await all_pages(client, request)) == found


async def test_ids_and_times_of_creation_rise_though_the_clock_runs_back(tmp_path: Path) -> None:
    """A clock that jumps back, even over a restart, changes nothing of the order in which lists tell."""
    clock = FakeClock()
    made = []
    for back in (0, 1, 2):
        clock.set_now(START - timedelta(hours=back))
        async with serving(tmp_path / "data", clock) as running:
            for number in range(2):
                execution_id = await an_execution(running.client, agent=f"agent {back} {number}")
                made.append(await stored(running.client, execution_id))
            listed = await all_pages(running.client, ListAgentExecutionsRequest())
        assert listed == ids_of(made)[::-1]
    times = [to_millis(found.status.audit.spec_audit.created_at) for found in made]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("after", "before", "found"),
    [
        (Timestamp(), None, 1),
        (None, Timestamp(), 0),
        (Timestamp(seconds=-1), None, 1),
        (None, Timestamp(seconds=-1), 0),
        (Timestamp(seconds=-62_135_596_800), Timestamp(seconds=FAR, nanos=999_999_999), 1),
        (Timestamp(seconds=FAR), None, 0),
        (Timestamp(seconds=5), Timestamp(seconds=5), 0),
    ],
)
async def test_times_at_the_edges_are_taken(
    client: Client, after: Timestamp | None, before: Timestamp | None, found: int
) -> None:
    """Every time that a Timestamp can tell is a bound that holds, long ago and far ahead."""
    await an_execution(client)
    request = ListAgentExecutionsRequest(created_after=after, created_before=before)
    assert len(await all_pages(client, request)) == found


@pytest.mark.parametrize(
    ("after", "before", "field", "reason"),
    [
        (Timestamp(seconds=FAR + 1), None, "created_after", "INVALID_TIMESTAMP"),
        (None, Timestamp(seconds=-62_135_596_801), "created_before", "INVALID_TIMESTAMP"),
        (Timestamp(seconds=1 << 62), None, "created_after", "INVALID_TIMESTAMP"),
        (Timestamp(nanos=-1), None, "created_after", "INVALID_TIMESTAMP"),
        (None, Timestamp(nanos=1_000_000_000), "created_before", "INVALID_TIMESTAMP"),
        (Timestamp(seconds=6), Timestamp(seconds=5), "created_before", "INVALID_TIME_RANGE"),
    ],
)
async def test_times_out_of_range_or_order_are_refused(
    client: Client, after: Timestamp | None, before: Timestamp | None, field: str, reason: str
) -> None:
    """A Timestamp that is no time, and a range that ends before it begins, are refused by name."""
    request = ListAgentExecutionsRequest(created_after=after, created_before=before)
    told = await refusal(client.queries.List(request))
    assert (told.code, told.reason, set(told.fields)) == (INVALID, reason, {field})


async def test_every_bad_filter_is_reported_at_once(client: Client) -> None:
    """All violations of a list request are in one error."""
    request = ListAgentExecutionsRequest(page_size=-1, session_id="nonsense", agent_id="nonsense")
    request.phases.append(EXECUTION_PENDING)
    request.phases.append(ExecutionPhase.EXECUTION_PHASE_UNSPECIFIED)
    request.phase = 77  # type: ignore[assignment]  # there is no such phase
    told = await refusal(client.queries.List(request))
    assert (told.code, told.reason) == (INVALID, "INVALID_FIELDS")
    assert set(told.fields) == {"page_size", "phase", "phases[1]", "session_id", "agent_id"}


async def test_labels_are_told_apart_wherever_key_and_value_meet(client: Client) -> None:
    """A label is found by its own key and value, not by another pair that reads the same when joined."""
    agent_id = await an_agent(client)
    await client.executions.Create(execution(agent_id=agent_id, labels={"ab": "c", "1:x": ""}))
    for labels, found in (
        ({"ab": "c"}, 1),
        ({"a": "bc"}, 0),
        ({"abc": ""}, 0),
        ({"1:x": ""}, 1),
        ({"x": ""}, 0),
        ({"1": ":x"}, 0),
    ):
        listed = await client.queries.List(ListAgentExecutionsRequest(labels=labels))
        assert len(listed.entries) == found, labels


async def test_tags_and_labels_may_hold_any_text(client: Client) -> None:
    """Zero bytes, separators and other scripts in tags and labels are found, and found apart."""
    agent_id = await an_agent(client)
    odd = ["\x00", "\x00\x01", "a\x00b", "äöü", "😀", "a/b", " "]
    for tag in odd:
        await client.executions.Create(execution(agent_id=agent_id, tags=[tag], labels={tag: tag}))
    for tag in odd:
        listed = await client.queries.List(ListAgentExecutionsRequest(tags=[tag], labels={tag: tag}))
        assert [list(found.metadata.tags) for found in listed.entries] == [[tag]]


async def test_an_unknown_session_is_not_found_and_an_empty_one_is_empty(client: Client) -> None:
    """ListBySession knows whether there is such a session; List with a session filter does not look it up."""
    told = await refusal(client.queries.ListBySession(ListAgentExecutionsBySessionRequest(session_id=f"ses_{NOWHERE}")))
    assert (told.code, told.reason) == (MISSING, "SESSION_NOT_FOUND")
    listed = await client.queries.List(ListAgentExecutionsRequest(session_id=f"ses_{NOWHERE}"))
    assert not listed.entries
    made = await client.executions.Create(execution(agent_id=await an_agent(client)))
    await client.executions.Delete(ResourceId(value=made.metadata.id))
    empty = await client.queries.ListBySession(ListAgentExecutionsBySessionRequest(session_id=made.spec.session_id))
    assert not empty.entries


async def test_the_executions_of_a_session_come_in_pages(client: Client) -> None:
    """ListBySession pages through a session, newest first, and shows no other's."""
    other = await client.executions.Create(execution(agent_id=await an_agent(client)))
    first = await client.executions.Create(execution(agent_id=other.spec.agent_id))
    session_id = first.spec.session_id
    rest = [await client.executions.Create(execution(session_id=session_id)) for _ in range(4)]
    newest_first = sorted(ids_of([first, *rest]), reverse=True)
    seen: list[str] = []
    request = ListAgentExecutionsBySessionRequest(session_id=session_id, page_size=2)
    sizes = []
    while True:
        page = await client.queries.ListBySession(request)
        seen += ids_of(page.entries)
        sizes.append(len(page.entries))
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert seen == newest_first
    assert sizes == [2, 2, 1]


async def test_a_list_by_phase_shows_none_that_has_left_it(client: Client) -> None:
    """While executions leave a phase, a list of that phase shows none in another."""
    agent_id = await an_agent(client)
    made = await asyncio.gather(
        *(client.executions.Create(execution(agent_id=agent_id, stateless=True)) for _ in range(200))
    )
    moves = [asyncio.ensure_future(_move(client, execution_id, EXECUTION_IN_PROGRESS)) for execution_id in ids_of(made)]
    request = ListAgentExecutionsRequest(phase=EXECUTION_PENDING, page_size=1000, view=RESOURCE_VIEW_FULL)
    while not all(move.done() for move in moves):
        listed = await client.queries.List(request)
        assert {found.status.phase for found in listed.entries} <= {EXECUTION_PENDING}
    await asyncio.gather(*moves)
    assert not (await client.queries.List(request)).entries


async def _move(client: Client, execution_id: str, phase: ExecutionPhase.ValueType) -> None:
    await client.executions.UpdateStatus(delta(execution_id, phase=phase))


async def test_get_refuses_what_is_no_execution(client: Client) -> None:
    """An unknown id is NOT_FOUND; no id, a malformed one and another kind's are told apart from it."""
    for value, code in (
        (f"aex_{NOWHERE}", MISSING),
        ("", INVALID),
        ("aex_1", INVALID),
        (f"agt_{NOWHERE}", INVALID),
        (f"aex_{NOWHERE}".upper(), INVALID),
    ):
        told = await refusal(client.queries.Get(GetAgentExecutionRequest(value=value)))
        assert told.code == code, value
