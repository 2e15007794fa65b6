"""The actor tree under random interleavings: everybody is answered, everything ends once.

A hypothesis state machine over the real actors with the fake launcher. Trio runs in a thread of its
own on a clock that stands still; each rule is one act in there, after which everything comes to
rest. So the same choices are the same run, and time passes only where a rule says so.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import trio
import trio.testing
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from clawdforge.domain.ids import SessionId
from clawdforge.domain.keys import IdempotencyKey
from clawdforge.domain.ports import TurnEnd
from clawdforge.domain.turns import TurnTarget
from clawdforge.errors import ClawdforgeError
from tests.actors.conftest import APP, Asked, Stage, stage_in

Result = TypeVar("Result")

EXAMPLES: Final = 80
STEPS: Final = 40
"""Together up to 3,200 steps, a few seconds."""

PROMPTS: Final = (
    "hello",
    "sleep: 5",
    "sleep: 500",
    "sleep: 500",
    "sleep: 500",
    "say: a\nsleep: 20\nsay: b",
    "ask: may I?",
    "deaf: 30",
    "tool: search\nsleep: 5",
    "fail: no tokens",
    "crash: 3",
)
KEY: Final = IdempotencyKey("k1", "fields")
PLACES: Final = st.integers(0, 5)
TARGETS: Final = (TurnTarget(), TurnTarget(1), TurnTarget(2), TurnTarget(key_name=KEY.name))
WISHES: Final = {
    "within": st.sampled_from([8, 600]),
    "on_disconnect": st.sampled_from(["cancel", "detach"]),
    "silence_secs": st.sampled_from([None, 10]),
    "key": st.sampled_from([None, KEY, IdempotencyKey("k1", "others")]),
}
KEYS: Final = (None, None, None, KEY, IdempotencyKey("k1", "others"))


class TrioThread:
    """Trio in a thread, a stage in it, and a clock that only ``jump`` moves."""

    def __init__(self) -> None:
        self._started: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._clock = trio.testing.MockClock()
        self._failure: BaseException | None = None
        self._folder = tempfile.TemporaryDirectory()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.token, self.stage, self._over = self._started.get(timeout=30)

    def _run(self) -> None:
        try:
            trio.run(self._main, clock=self._clock)
        except BaseException as error:  # noqa: BLE001, ASYNC103 - raised in the test's thread
            self._failure = error
            self._started.put((None, None, None))

    async def _main(self) -> None:
        over = trio.Event()
        opening = stage_in(Path(self._folder.name))
        async with opening(cancel_grace_secs=5, permission_secs=50, session_ttl_secs=900) as stage:
            self._started.put((trio.lowlevel.current_trio_token(), stage, over))
            await over.wait()

    def do(self, act: Callable[[], Awaitable[Result]]) -> Result:
        """Run ``act``, then let everything come to rest. Fails loudly when it does not."""
        if self._failure is not None:
            raise self._failure

        async def acted() -> Result:
            result = await act()
            await trio.testing.wait_all_tasks_blocked()
            return result

        return trio.from_thread.run(acted, trio_token=self.token)

    def jump(self, secs: float) -> None:
        """Time passes, in steps small enough for every deadline to be met by itself."""

        async def pass_time() -> None:
            for _ in range(int(secs)):
                self._clock.jump(1)
                self.stage.wall.seconds += 1
                await trio.testing.wait_all_tasks_blocked()

        self.do(pass_time)

    def end(self) -> None:
        """Close the stage and the thread. Raises what went wrong in there."""
        if self.token is not None:
            trio.from_thread.run_sync(self._over.set, trio_token=self.token)
        self._thread.join(30)
        self._folder.cleanup()
        assert not self._thread.is_alive(), "the tree did not shut down"
        if self._failure is not None:
            raise self._failure


class Machine(RuleBasedStateMachine):
    """Apps' requests, agents' whims and time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.trio = TrioThread()
        self.stage: Stage = self.trio.stage
        self.asked: list[Asked] = []
        self.sessions: list[SessionId] = []
        self.endings: dict[tuple[SessionId, int], TurnEnd] = {}

    def ask(self, act: Callable[[], Awaitable[Any]]) -> Asked:
        """A request in the background, as far as it comes at once."""

        async def begin() -> Asked:
            return self.stage.ask(act)

        asked = self.trio.do(begin)
        self.asked.append(asked)
        return asked

    def pick(self, number: int) -> SessionId:
        """One of the sessions, the latest rather than the first."""
        return self.sessions[-1 - number % len(self.sessions)]

    # --- what apps do -----------------------------------------------------------------------------

    @initialize(
        prompts=st.lists(st.sampled_from(PROMPTS), min_size=2, max_size=4), is_deaf=st.booleans()
    )
    def begin_with_work_to_do(self, prompts: list[str], is_deaf: bool) -> None:
        self.stage.launcher.is_deaf = is_deaf
        for _ in range(2):
            self.open_session(None, "ask")
        for number, prompt in enumerate(prompts):
            self.start_turn(number, prompt, 600)

    @rule(key=st.sampled_from(KEYS), mode=st.sampled_from(["ask", "deny-all"]))
    def open_session(self, key: IdempotencyKey | None, mode: str) -> None:
        asked = self.ask(lambda: self.stage.open(key=key, permissions=mode))
        if asked.answer is not None:
            self.sessions.append(asked.answer)

    @rule(number=PLACES, prompt=st.sampled_from(PROMPTS), within=st.sampled_from([8, 60, 600]))
    def start_turn(self, number: int, prompt: str, within: int) -> None:
        session = self.pick(number)
        self.ask(lambda: self.stage.turn(session, prompt, within=within))

    @rule(number=PLACES, prompt=st.sampled_from(PROMPTS), fields=st.fixed_dictionaries(WISHES))
    def start_special_turn(self, number: int, prompt: str, fields: dict[str, Any]) -> None:
        session = self.pick(number)
        self.ask(lambda: self.stage.turn(session, prompt, **fields))

    @precondition(lambda self: self.asked)
    @rule(number=PLACES)
    def hang_up(self, number: int) -> None:
        async def leave() -> None:
            self.asked[-1 - number % len(self.asked)].hang_up()

        self.trio.do(leave)

    @rule(number=PLACES, meant=st.sampled_from(TARGETS))
    def cancel(self, number: int, meant: TurnTarget) -> None:
        session = self.pick(number)
        self.ask(lambda: self.stage.service.cancel_turn(session, APP, meant))

    @precondition(lambda self: self.stage.launcher.agents)
    @rule(number=PLACES, option=st.sampled_from(["allow", "reject", "nonsense"]))
    def decide(self, number: int, option: str) -> None:
        session, service = self.pick(number), self.stage.service

        async def decide_first() -> None:
            for pending in (await service.list_permissions(session, APP))[:1]:
                await service.decide_permission(session, APP, pending.request_id, option)

        self.ask(decide_first)

    # --- what happens to them ---------------------------------------------------------------------

    @precondition(lambda self: len(self.asked) % 5 == 0)  # else there is never much to end
    @rule(number=PLACES, how=st.sampled_from(["close", "close", "sweep", "revoke"]))
    def end_sessions(self, number: int, how: str) -> None:
        session, service = self.pick(number), self.stage.service

        async def rotate() -> None:
            await service.revoke(APP)
            await service.mint(APP, ())

        ways: dict[str, Callable[[], Awaitable[Any]]] = {
            "close": lambda: service.close_session(session, APP),
            "sweep": service.sweep_once,
            "revoke": rotate,
        }
        self.ask(ways[how])

    @rule(number=PLACES, starting=st.sampled_from(["works", "works", "works", "fails", "hangs"]))
    def crash(self, number: int, starting: Any) -> None:
        """An agent dies, and the next ones may not come up."""
        living = [agent for agent in self.stage.launcher.agents if agent.exit is None]

        async def die() -> None:
            self.stage.launcher.starting = starting
            for agent in living[number % 2 :][:1]:
                agent.end("out of memory")

        self.trio.do(die)

    @rule(secs=st.sampled_from([1, 1, 4, 4, 6, 15, 70]), is_deaf=st.booleans())
    def pass_time(self, secs: int, is_deaf: bool) -> None:
        self.stage.launcher.is_deaf = is_deaf
        self.trio.jump(secs)

    # --- what must be true all the time -----------------------------------------------------------

    @invariant()
    def every_tree_has_its_slot(self) -> None:
        stage, pool = self.stage, self.stage.tree.pool
        living = [agent.spec.session_id for agent in stage.launcher.agents if agent.exit is None]
        assert max(Counter(living).values(), default=0) <= 1, "two agents in one session"
        assert set(living) <= set(pool._sessions), "an agent without a slot"
        assert stage.launcher.live <= pool.count <= pool.limit

    @invariant()
    def every_turn_has_at_most_one_ending(self) -> None:
        store = self.stage.store
        noted = Counter(
            (row.session_id, row.meta["turn_index"]) for row in store.audit if row.event == "turn"
        )
        assert max(noted.values(), default=0) <= 1
        for session, turns in store.turns.items():
            for index, row in turns.items():
                if row.end is not None:
                    first = self.endings.setdefault((session, index), row.end)
                    assert row.end == first, "an ending was written again"
                    assert noted[session, index] == 1

    @invariant()
    def an_agent_works_on_one_turn_at_a_time(self) -> None:
        for agent in self.stage.launcher.agents:
            indexes = [seen.turn_index for seen in agent.prompts]
            assert indexes == sorted(set(indexes)), "a turn was asked twice, or out of order"

    @invariant()
    def the_line_moves_and_nobody_works_for_nobody(self) -> None:
        """Seen from inside: what a caller would notice only at some deadline."""
        for actor in self.stage.tree.pool._sessions.values():
            line = actor._line
            for turn in line._turns:
                is_left = turn._callers == 0 and turn.request.on_disconnect == "cancel"
                assert turn._cause is not None or not is_left, "a turn that is nobody's"
            if line._turns:
                assert line._turns[0].is_head.is_set(), "the first in line was never told"
            index = line.working.index if line.working is not None else None
            assert {pending.turn_index for pending in line.desk.pending} <= {index}
            agent: Any = line.keeper.agent
            if agent is not None and agent._turn is not None and agent._turn.answer is None:
                assert agent._turn.turn_index == index, "an agent works on what is over"

    @invariant()
    def nobody_waits_for_what_is_over(self) -> None:
        """A session that is nobody's any more has no turn without an ending."""
        pool = self.stage.tree.pool
        for session, turns in self.stage.store.turns.items():
            if session not in pool._sessions:
                assert all(row.end is not None for row in turns.values())

    # --- and in the end ---------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            self.stage.launcher.starting = "works"
            self.stage.launcher.is_deaf = False
            self.trio.jump(70)
            for session in list(self.stage.store.sessions):
                self.ask(partial(self.stage.service.close_session, session, APP))
            self.trio.jump(30)
            self.everything_is_over()
        finally:
            self.trio.end()

    def everything_is_over(self) -> None:
        waiting = [asked for asked in self.asked if not asked.done.is_set()]
        assert waiting == [], "somebody was never answered"
        for asked in self.asked:
            assert asked.error is None or isinstance(asked.error, ClawdforgeError)
        context = self.stage.service._context
        assert (self.stage.service.open_sessions, self.stage.launcher.live) == (0, 0)
        assert (context.workload.count, len(context.feeds)) == (0, 0)
        for turns in self.stage.store.turns.values():
            assert all(row.end is not None for row in turns.values()), "a turn without an ending"


Machine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
test_whatever_happens_everybody_is_answered_and_everything_ends_once = Machine.TestCase
