"""Warm starts: process trees that have shaken hands and wait for a session to be theirs.

The rule: *a warm tree is a session that has no row yet.* It is started under a session id of its
own, in that session's directories; a creation that takes it takes the id along, so that nothing has
to be moved. What waits counts against the cap, and gives way to any creation.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import structlog
import trio

from clawdforge.actors.bell import Bell
from clawdforge.actors.context import SessionContext
from clawdforge.domain.ids import SESSION_ID_BYTES, AgentName, SessionId
from clawdforge.domain.ports import (
    Agent,
    AgentExit,
    AgentSink,
    LaunchSpec,
    Message,
    PermissionRequest,
    SessionRow,
)
from clawdforge.domain.profiles import AgentProfile
from clawdforge.errors import AgentNotStarted, CapacityError, ClawdforgeError

log: Final = structlog.get_logger("clawdforge.warm")

KEPT_MESSAGES: Final = 64
"""What an agent may say before it has a session (its commands, its modes). One that says more is
not waiting but working, and is replaced."""

RETRY_SECS: Final = 5.0
"""How long after a tree that failed the next one is started; the circuit makes it longer."""


REFILL_SECS: Final = 1.0
"""How long after a tree was taken the next is started: a start over acpx costs 0.4 s of processor,
which would be missing in the first turn of the session that took it."""


class Relay:
    """The sink of a waiting agent: keeps what it says, then passes all of it to its session."""

    def __init__(self, on_unfit: Callable[[], None]) -> None:
        self._on_unfit = on_unfit
        self._kept: deque[tuple[Message, bytes]] = deque()
        self._sink: AgentSink | None = None

    def point(self, sink: AgentSink) -> None:
        """From now on everything goes there; what was kept goes first."""
        self._sink = sink
        while self._kept:
            sink.on_event(*self._kept.popleft())

    def on_event(self, message: Message, wire: bytes) -> None:
        """Pass it on, or keep it."""
        if self._sink is not None:
            self._sink.on_event(message, wire)
        elif len(self._kept) < KEPT_MESSAGES:
            self._kept.append((message, wire))
        else:
            self._on_unfit()

    def on_skipped(self, count: int) -> None:
        """Noise before there is a session is nobody's."""
        if self._sink is not None:
            self._sink.on_skipped(count)

    def on_permission(self, request: PermissionRequest) -> None:
        """An agent that asks before it was asked anything is not waiting."""
        if self._sink is not None:
            self._sink.on_permission(request)
        else:
            self._on_unfit()


class WarmTree:
    """One process tree, from its start to its death, whoever has it."""

    def __init__(self, profile: AgentProfile) -> None:
        self.session_id = SessionId(secrets.token_urlsafe(SESSION_ID_BYTES))
        self.profile = profile
        self.relay = Relay(self._give_up)
        self.ready_at = math.inf
        self.is_adopted = self.is_retired = self._is_unfit = False
        self._agent: Agent | None = None
        self._exit: AgentExit | None = None
        self._dead = trio.Event()
        self._starting = trio.CancelScope()

    def __repr__(self) -> str:
        age = trio.current_time() - self.ready_at
        return f"<WarmTree {self.profile.name} {'starting' if age < 0 else f'{age:.0f} s old'}>"

    @property
    def is_ready(self) -> bool:
        """It has shaken hands and waits."""
        return self.is_alive and not (self.is_adopted or self.is_retired or self._is_unfit)

    @property
    def is_alive(self) -> bool:
        """Its process is there, as far as anybody knows."""
        return self._agent is not None and not self._dead.is_set()

    def retire(self) -> None:
        """Have it die. Returns at once."""
        self.is_retired = True
        self._starting.cancel()
        if self._agent is not None:
            self._agent.kill()

    def _give_up(self) -> None:
        """It is no tree to wait: it dies as one that failed."""
        self._is_unfit = True
        if self._agent is not None:
            self._agent.kill()

    async def live(self, context: SessionContext, on_ready: Callable[[], None]) -> None:
        """Start, wait, serve, die. Raises why it did not start; nothing of it is left then."""
        failure: ClawdforgeError | None = None
        async with trio.open_nursery() as nursery:
            try:
                await self._start(context, nursery)
                on_ready()
            except ClawdforgeError as error:
                failure = error
        if failure is not None:
            raise failure

    async def _start(self, context: SessionContext, nursery: trio.Nursery) -> None:
        start_secs, name = context.config.start_secs, self.profile.name
        with self._starting:
            async with context.starts.one(name, within_secs=start_secs):
                with trio.move_on_after(start_secs):
                    self._agent = await nursery.start(self._host, context)
                    self.ready_at = trio.current_time()
                    return
                raise AgentNotStarted(name, f"no handshake within {start_secs:g} s")

    async def _host(  # noqa: ASYNC128 - run_agent calls started()
        self, context: SessionContext, *, task_status: trio.TaskStatus[Agent]
    ) -> None:
        profile = self.profile
        spec = LaunchSpec(
            self.session_id, profile, profile.model, profile.permissions, is_for_later=True
        )
        try:
            self._exit = await context.launcher.run_agent(spec, self.relay, task_status=task_status)
        finally:
            self._dead.set()

    def adopt(self, sink: AgentSink) -> Agent:
        """Be the agent of the session that ``sink`` is of, whose life ``stay`` is from now on."""
        assert self._agent is not None
        self.relay.point(sink)
        return self._agent

    async def stay(self) -> AgentExit:
        """Return when the tree is proved dead, as ``Launcher.run_agent`` does.

        Cancelling kills it, and is let through when that is proved (the launcher bounds it).
        """
        assert self._agent is not None
        try:
            await self._dead.wait()
        finally:
            self._agent.kill()
            with trio.CancelScope(shield=True):
                await self._dead.wait()
        return self._exit or AgentExit("it was killed", was_killed=True)


class WarmShelf:
    """The trees that wait, of every profile that wants some.

    ``room`` says how many the cap has places for now. ``on_ready`` is told of each tree that waits,
    ``on_lost`` of each that is dead and was nobody's. ``run`` keeps them there, in the pool's own
    life; the other methods are plain functions that return at once.
    """

    def __init__(
        self,
        context: SessionContext,
        room: Callable[[], int],
        on_ready: Callable[[WarmTree], None],
        on_lost: Callable[[WarmTree], None],
    ) -> None:
        self._context = context
        self._room = room
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._profiles = [p for p in context.config.agents.values() if p.warm > 0]
        self._trees: list[WarmTree] = []
        self._pausing: Counter[AgentName] = Counter()
        self._refill_at = -math.inf
        self._changed = Bell()
        self._nap = trio.CancelScope()

    def __len__(self) -> int:
        """Trees that wait, or are on their way."""
        return len(self._trees)

    def __repr__(self) -> str:
        return f"<WarmShelf {self._trees}>"

    # --- from the pool ----------------------------------------------------------------------------

    def find(self, row: SessionRow) -> WarmTree | None:
        """The tree that this session may take: of its agent, with the profile's own choices."""
        profile = self._context.config.agents[row.agent]
        if (row.model, row.permissions) != (profile.model, profile.permissions):
            return None
        mine = (tree for tree in self._trees if tree.profile is profile and tree.is_ready)
        return next(mine, None)

    def take(self, tree: WarmTree) -> None:
        """It is a session's now."""
        tree.is_adopted = True
        self._trees.remove(tree)
        if self._refill_at < trio.current_time():
            self._refill_at = trio.current_time() + REFILL_SECS
        # Not rung for: whoever keeps the shelf would be in the way of the session that took it.
        self._nap.deadline = min(self._nap.deadline, self._refill_at)

    def give_way(self) -> None:
        """Retire what there is no room for, the oldest first."""
        for tree in tuple(self._trees)[: max(0, len(self) - max(0, self._room()))]:
            self._retire(tree)

    def look(self) -> None:
        """There may be room now."""
        self._changed.ring()

    # --- keeping them there -----------------------------------------------------------------------

    async def run(self) -> None:
        """Start what is missing, replace what is old, until cancelled."""
        if not self._profiles:
            return
        self._trees.clear()  # what there was before a crash of the pool died with it
        self._pausing.clear()
        async with trio.open_nursery() as nursery:
            while True:
                self._retire_old()
                self.give_way()
                for profile in tuple(self._missing()):
                    tree = WarmTree(profile)
                    self._trees.append(tree)
                    nursery.start_soon(self._keep, tree)
                with trio.move_on_after(self._secs_to_next_date()) as self._nap:
                    await self._changed.wait()

    def _missing(self) -> Iterator[AgentProfile]:
        """What is to be started now: what is wanted, within the room there is."""
        if trio.current_time() < self._refill_at:
            return
        room = self._room() - len(self)
        here = Counter(tree.profile.name for tree in self._trees) + self._pausing
        for profile in self._profiles:
            wanted = min(profile.warm - here[profile.name], room)
            for _ in range(wanted):
                room -= 1
                yield profile

    async def _keep(self, tree: WarmTree) -> None:
        """One tree's life. One that fails, or dies while it waits, is not replaced at once."""
        pause_secs = RETRY_SECS
        try:
            await tree.live(self._context, on_ready=partial(self._welcome, tree))
        except CapacityError as error:
            pause_secs = max(RETRY_SECS, error.retry_after_secs)
        except ClawdforgeError as error:
            log.warning("warm start failed", agent=tree.profile.name, reason=str(error))
        if tree.is_adopted:
            return  # its session has cleaned up
        self._on_lost(tree)
        await self._context.launcher.discard(tree.session_id)
        if not tree.is_retired:
            self._trees.remove(tree)
            self._pausing[tree.profile.name] += 1
            await trio.sleep(pause_secs)
            self._pausing[tree.profile.name] -= 1
        self.look()

    def _welcome(self, tree: WarmTree) -> None:
        self._on_ready(tree)
        self.look()

    def _retire(self, tree: WarmTree) -> None:
        self._trees.remove(tree)
        tree.retire()

    def _retire_old(self) -> None:
        for tree in tuple(self._trees):
            if self._secs_to_birthday(tree) <= 0:
                self._retire(tree)

    def _secs_to_birthday(self, tree: WarmTree) -> float:
        """Until it has waited as long as an idle session may live."""
        return tree.ready_at + self._context.config.session_ttl_secs - trio.current_time()

    def _secs_to_next_date(self) -> float:
        """Until there is something to do, if nobody rings."""
        to_refill = self._refill_at - trio.current_time()
        dates = [*map(self._secs_to_birthday, self._trees)]
        if to_refill > 0:
            dates.append(to_refill)
        return max(0.0, min(dates, default=math.inf))
