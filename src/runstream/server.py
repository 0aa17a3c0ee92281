"""The composition root: makes everything, joins it, runs it, and takes it down in order."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc
import structlog
import uvloop

from runstream.dispatch.dispatcher import Dispatcher
from runstream.dispatch.housekeeping import IdempotencyExpiry, Purger
from runstream.dispatch.system_clock import SystemClock
from runstream.feed.announcer import Announcer
from runstream.feed.follow import Follower
from runstream.feed.hub import Hub, shutting_down
from runstream.feed.recency import Recency
from runstream.logs import configure_logging
from runstream.memory import give_large_blocks_back, spare_the_collector
from runstream.model.ids import IdSource, ulid_millis
from runstream.model.retention import parse_retention
from runstream.model.times import to_millis
from runstream.pipeline.timing import StepTimes
from runstream.services.agent_instances import AgentInstanceCommands, AgentInstanceQueries
from runstream.services.agents import AgentCommands, AgentQueries
from runstream.services.backups import BackupService
from runstream.services.executions.approval_timers import ApprovalTimers
from runstream.services.executions.cancel import CancelGrace
from runstream.services.executions.chronicle import Chronicle
from runstream.services.executions.commands import AgentExecutionCommands
from runstream.services.executions.controls import AgentExecutionControls
from runstream.services.executions.leasing import ExecutionLeasing
from runstream.services.executions.limits import ExecutionLimits
from runstream.services.executions.queries import AgentExecutionQueries
from runstream.services.executions.retention import Retention
from runstream.services.executions.retire import RetireCommand
from runstream.services.executions.streams import AgentExecutionStreams
from runstream.services.executions.time_limit import DeadlineCommands, TimeLimits
from runstream.services.executions.tree import Tree
from runstream.services.runners.assignments import Assignments
from runstream.services.runners.service import RunnerService
from runstream.services.sessions import SessionCommands, SessionQueries
from runstream.services.transfer.service import TransferService
from runstream.services.wiring import Wiring
from runstream.settings import unread_variables
from runstream.storage.executions import Executions
from runstream.storage.folds import Folds
from runstream.storage.leveldb import LevelDBStore
from runstream.storage.records import AGENT, AGENT_EXECUTION, AGENT_INSTANCE, SESSION, TOMBSTONE
from runstream.storage.store import Query
from runstream.transport.admission import Admission, CallLimits
from runstream.transport.engine import Wire, choose_engine
from runstream.transport.gate import Gate
from runstream.transport.methods import bind_methods

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runstream.metrics.publishing import Publishing
    from runstream.model.clock import Clock
    from runstream.settings import Settings
    from runstream.storage.store import Store, Transaction
    from runstream.transport.engine import Choice

_LOG = structlog.get_logger(__name__)

#: For how long after the first signal another one is taken for its echo.
_ECHO_SECONDS = 0.5
#: Ids go on from the newest one on disk. When that is further ahead of the clock, one of the two is wrong.
_CLOCK_TOLERANCE_MS = 5 * 60 * 1000


class Server:
    """A whole server on one data folder. Made by `start`, taken down by `stop`."""

    def __init__(self, settings: Settings, store: Store, clock: Clock, wire: Wire, engine: Choice) -> None:
        self._settings = settings
        #: The engine that was chosen, and why.
        self.engine = engine
        self._store = store
        self._clock = clock
        self._hub = Hub()
        self._folds = Folds(store, max_bytes=settings.fold_cache_bytes)
        self._purger = Purger(store, clock)
        self._ids = IdSource(lambda: to_millis(clock.now()), os.urandom)
        self.step_times = StepTimes(verbose=settings.verbose)
        self._wiring = self._wire()
        self._commands = AgentExecutionCommands(self._wiring)
        self._controls = AgentExecutionControls(self._wiring)
        self._grace = CancelGrace(store, clock, self._controls.enforce_cancel)
        self._approvals = ApprovalTimers(store, clock, self._controls.decide_by_default)
        self._time_limits = TimeLimits(store, clock, DeadlineCommands(self._wiring).enforce_deadline)
        self._tree = Tree(store, self._folds, clock, self._controls)
        self._expiry = IdempotencyExpiry(store, clock)
        kept = parse_retention(settings.retain)
        self._retention = Retention(store, clock, kept, RetireCommand(self._wiring).retire)
        self._dispatcher = Dispatcher(
            store,
            clock,
            ExecutionLeasing(self._wiring).change_lease,
            lease_seconds=settings.lease_duration,
            backoff=settings.retry_backoff,
            random=secrets.SystemRandom().random,
        )
        self._runners = RunnerService(
            self._wiring,
            self._dispatcher,
            Assignments(self._wiring, self._time_limits.remaining),
            settings.lease_duration,
        )
        self._backups = BackupService(store, clock, allowed=settings.backups)
        self._gate = Gate(_request_ids(), Admission(_call_limits(settings), clock.monotonic), verbose=settings.verbose)
        self._methods = bind_methods(self._servers())
        self._engine = engine.make(self._gate, self._methods, wire)
        self._publishing: Publishing | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.port = 0
        #: Where the page of the metrics is, as host:port; empty when there is none.
        self.metrics_address = ""

    @classmethod
    async def start(cls, settings: Settings, clock: Clock | None = None) -> Server:
        """Open the data folder, take up what an earlier process left, bind the address and serve.

        Raises `DataFolderError` when the folder cannot be used, OSError when an address or a TLS file cannot,
        `EngineUnfit` when the engine that was asked for cannot do what is configured, `ExtraMissing` when metrics are
        to be pushed and what does it is not installed.
        """
        wire = Wire(settings.loopback, settings.max_message_bytes, _credentials(settings))
        engine = choose_engine(settings.engine, wire)
        if settings.otlp is not None:
            from runstream.metrics.publishing import check_otlp  # noqa: PLC0415  # loaded where it is asked for

            check_otlp(settings.otlp)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        owner = {"address": settings.listen, "since": since}
        store = LevelDBStore.open(settings.data, owner=owner)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(store.close)
            server = cls(settings, store, clock or SystemClock(), wire, engine)
            server.port = server._engine.listen(settings.listen)
            if server.address != settings.listen:
                store.announce(owner | {"address": server.address})
            if settings.measured:
                await server._publish(undo)
            await server._resume()
            await server._engine.start()
            undo.pop_all()
        server._let_time_pass()
        return server

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        return f"{self._settings.listen.rpartition(':')[0]}:{self.port}"

    async def stop(self) -> None:
        """Drain: refuse new calls, end streams with UNAVAILABLE, let running calls finish, flush, close."""
        self._gate.drain()
        await self._engine.drain()
        self._runners.drain(shutting_down())
        self._backups.drain()
        self._hub.close()
        await self._engine.stop(self._settings.drain_timeout)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._publishing is not None:
            await self._publishing.stop()
        await self._folds.close()
        await self._store.close()

    async def _publish(self, undo: AsyncExitStack) -> None:
        """Begin to publish what is measured; before `_resume`, so that no commit goes uncounted."""
        # Loaded here, since a server that nobody watches does not need it.
        from runstream.metrics.families import Sources  # noqa: PLC0415
        from runstream.metrics.phase_counts import PhaseCounts  # noqa: PLC0415
        from runstream.metrics.publishing import Publishing  # noqa: PLC0415

        phases = PhaseCounts(self._store)
        rooms = (self._store, self._folds, self._hub, self._dispatcher)
        sources = Sources(self._methods, self.step_times, *rooms, phases, self._purger, self._settings.data)
        self._publishing = Publishing(sources, self._clock)
        undo.push_async_callback(self._publishing.stop)
        if self._settings.metrics is not None:
            self.metrics_address = await self._publishing.serve(self._settings.metrics)
        if self._settings.otlp is not None:
            self._publishing.push(self._settings.otlp, self.address)
        self._store.on_commit(phases.on_commit, in_place=False)
        self._keep(phases.begin())
        await asyncio.sleep(0)  # the counts are of now

    async def _resume(self) -> None:
        """Take up what an earlier process left."""
        for kind in (AGENT, AGENT_INSTANCE, SESSION, AGENT_EXECUTION):
            for newest in await self._store.scan(Query(kind), limit=1):
                self._ids.observe(newest)
                ahead = ulid_millis(newest) - to_millis(self._clock.now())
                if ahead > _CLOCK_TOLERANCE_MS:
                    _LOG.warning("clock_behind_data", newest=newest, seconds=ahead // 1000)
        self._store.on_commit(Announcer(self._hub, self._wiring.recency, self._folds, self._wiring.follower))
        # What begins and ends cancels and deadlines, ends trees or begins them anew, moves index entries.
        self._store.on_commit(self._grace.on_commit, in_place=False)
        self._store.on_commit(self._approvals.on_commit)
        self._store.on_commit(self._time_limits.on_commit, in_place=False)
        self._store.on_commit(self._tree.on_commit, in_place=False)
        self._store.on_commit(self._dispatcher.on_commit)
        self._store.on_commit(self._purge_deleted)
        self._store.on_commit(Chronicle(verbose=self._settings.verbose).on_commit)
        if self._settings.retain:
            self._store.on_commit(self._retention.on_commit, in_place=False)
            await self._retention.resume()
        await self._grace.resume()
        await self._approvals.resume()
        await self._time_limits.resume()
        await self._tree.resume()
        await self._dispatcher.resume()
        await self._purger.resume()

    def _let_time_pass(self) -> None:
        chores = (
            self._grace,
            self._approvals,
            self._time_limits,
            self._tree,
            self._dispatcher,
            self._purger,
            self._expiry,
            self._retention,
        )
        self._keep([asyncio.create_task(chore.run(), name=type(chore).__name__) for chore in chores])

    def _keep(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.add_done_callback(_tell_if_broken)
        self._tasks += tasks

    def _purge_deleted(self, transaction: Transaction) -> None:
        for (kind, execution_id), message in transaction.puts.items():
            if kind is TOMBSTONE and not message.importing:
                self._purger.add(execution_id)

    def _wire(self) -> Wiring:
        executions, recency = Executions(self._store, self._folds), Recency()
        return Wiring(
            store=self._store,
            folds=self._folds,
            executions=executions,
            recency=recency,
            follower=Follower(self._store, executions, self._hub, recency),
            ids=self._ids,
            clock=self._clock,
            observe=self.step_times if self._settings.measured or self._settings.verbose else None,
            cancel_grace=self._settings.cancel_grace,
            max_depth=self._settings.max_depth,
            limits=ExecutionLimits.of(self._settings.max_execution_changes, self._settings.max_execution_bytes),
        )

    def _servers(self) -> Mapping[str, tuple[object, ...]]:
        wiring, executions = self._wiring, self._commands
        sessions = SessionCommands(wiring, executions=executions)
        instances = AgentInstanceCommands(wiring, sessions=sessions)
        agents = AgentCommands(wiring, instances=instances, sessions=sessions, executions=executions)
        return {
            "RunnerController": (self._runners,),
            "BackupController": (self._backups,),
            "TransferController": (TransferService(wiring),),
            "AgentCommandController": (agents,),
            "AgentQueryController": (AgentQueries(wiring),),
            "AgentInstanceCommandController": (instances,),
            "AgentInstanceQueryController": (AgentInstanceQueries(wiring),),
            "SessionCommandController": (sessions,),
            "SessionQueryController": (SessionQueries(wiring),),
            "AgentExecutionCommandController": (executions, self._controls),
            "AgentExecutionQueryController": (
                AgentExecutionQueries(wiring),
                AgentExecutionStreams(wiring),
            ),
        }


def _call_limits(settings: Settings) -> CallLimits:
    return CallLimits(
        max_calls=settings.max_calls,
        max_streams=settings.max_streams,
        max_calls_per_client=settings.max_calls_per_client,
        max_streams_per_client=settings.max_streams_per_client,
        client_rate=settings.client_rate,
        client_burst=settings.client_burst,
    )


def _tell_if_broken(chore: asyncio.Task[None]) -> None:
    """Log the end of what must never end by itself: from then on the server does not do all that it promises."""
    if not chore.cancelled() and (error := chore.exception()) is not None:
        _LOG.critical("chore_broken", chore=chore.get_name(), exc_info=error)


def _request_ids() -> Callable[[], str]:
    """Make request ids: a name of this process, drawn at random, and a number."""
    process, numbers = secrets.token_hex(4), itertools.count(1)
    return lambda: f"req-{process}-{next(numbers)}"


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once.

    Raises as `Server.start` does, before anything is served.
    """
    configure_logging(settings)
    for variable, told in unread_variables().items():
        _LOG.warning("variable_not_read", variable=variable, told=told)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    quit_from: list[float] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_or_quit, stopping, quit_from, number)
    give_large_blocks_back()
    server = await Server.start(settings)
    spare_the_collector()
    engine = server.engine
    _LOG.info(
        "serving",
        address=server.address,
        data=str(settings.data),
        pid=os.getpid(),
        engine=engine.name,
        because=engine.reason,
    )
    listening = f"engine {engine.name} ({engine.reason}): runstream is listening on {server.address}"
    print(listening, file=sys.stderr, flush=True)  # noqa: T201
    if not settings.loopback and settings.tls_cert is None:
        _LOG.warning("plaintext", told="anyone on the network can read and change everything")
    if server.metrics_address:
        _LOG.info("metrics", url=f"http://{server.metrics_address}/metrics", told="how much is done here, not what")
    if settings.otlp is not None:
        _LOG.info("metrics_pushed", to=settings.otlp)
    await stopping.wait()
    _LOG.info("draining", seconds=settings.drain_timeout)
    await server.stop()
    _LOG.info("stopped")


def _stop_or_quit(stopping: asyncio.Event, quit_from: list[float], number: int) -> None:
    """Begin to stop; at a later signal, end at once: the store survives a kill, and the operator asked twice.

    One that comes right after the first is its echo: terminals and process managers signal a group and its members.
    """
    now = asyncio.get_running_loop().time()
    if not stopping.is_set():
        stopping.set()
        quit_from.append(now + _ECHO_SECONDS)
    elif now >= quit_from[0]:
        os._exit(128 + number)


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
    ca: Path | None = settings.tls_client_ca
    return grpc.ssl_server_credentials(
        [pair],
        root_certificates=ca.read_bytes() if ca is not None else None,
        require_client_auth=ca is not None,
    )
