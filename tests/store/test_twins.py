"""The twins side by side: whatever is asked of both, in any order, they answer alike."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import attrs
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from clawdforge.domain.events import EventBatch, NumberedEvent
from clawdforge.domain.keys import IdempotencyKey
from clawdforge.domain.ports import AuditRow, Store
from clawdforge.errors import ClawdforgeError
from clawdforge.store.memory import MemoryStore
from clawdforge.store.sqlite import open_sqlite_store

from .examples import LAB, SHOP, app, ended, file, run_end, run_start, session, session_id, turn


@attrs.frozen
class Call:
    """One call of a method of the port."""

    method: str
    args: tuple[Any, ...]
    fields: dict[str, Any]

    async def on(self, store: Store) -> Any:
        """What the method answers, or which error it raises."""
        try:
            return await getattr(store, self.method)(*self.args, **self.fields)
        except ClawdforgeError as error:
            return type(error), str(error)


def call(method: str, *args: Any, **fields: Any) -> st.SearchStrategy[Call]:
    """Calls of ``method`` with arguments drawn from the strategies given."""
    return st.builds(Call, st.just(method), st.tuples(*args), st.fixed_dictionaries(fields))


texts = st.text(st.characters(exclude_categories=()), max_size=6)
metas = st.dictionaries(texts, st.none() | st.integers(-9, 9) | texts, max_size=2)
numbers, indexes, times = st.integers(1, 3), st.integers(1, 4), st.integers(1, 50)
ids = st.builds(session_id, numbers)
owners = st.sampled_from([LAB, SHOP])
digests = st.sampled_from(["d1", "d2", "d3"])
causes = st.sampled_from(["asked", "idle"])
endings = st.sampled_from(["completed", "cancelled", "failed", "timed_out"])
sessions = st.builds(session, numbers, app_name=owners, created_at=times, meta=metas)
turns = st.builds(turn, numbers, indexes, prompt=texts, at=times)
batches = st.builds(
    lambda number, first, count, keep: EventBatch(
        session_id(number),
        [NumberedEvent(first + n, f'{{"n": {n}}}') for n in range(count)],
        keep,
    ),
    numbers,
    st.integers(1, 9),
    st.integers(0, 4),
    st.sampled_from([0, 20, 1000]),
)
keys = st.builds(IdempotencyKey, st.sampled_from(["k1", "k2"]), digests)
keyed_turns = st.builds(lambda turn, key: attrs.evolve(turn, key=key), turns, keys)
kept = st.sampled_from(["[]", '[{"a": 1}]'])
ends = st.builds(ended, numbers, indexes, ending=endings, text=texts, at=times)
keeping_ends = st.builds(
    lambda end, events: attrs.evolve(end, kept_events=events, facts={"n": 1}), ends, kept
)
decisions = st.builds(lambda of, at: AuditRow(of, "permission", at, {"by": "clock"}), ids, times)
files = st.builds(file, st.sampled_from("ab"), app_name=owners, expires_at=times)

run_ids = st.sampled_from(["r1", "r2", "r3"])
run_starts = st.builds(
    run_start, run_ids, app_name=owners, started_at=times, prompt=st.none() | texts
)
run_ends = st.builds(run_end, run_ids, ended_at=times, result=st.none() | texts)

READS = st.one_of(
    call("list_runs", owners, limit=st.integers(0, 3)),
    call("list_apps"),
    call("find_app", digests),
    call("find_session", ids, owners),
    call("list_sessions", owners, include_closed=st.booleans()),
    call("list_all_sessions"),
    call("list_turns", ids, before=st.none() | indexes, limit=st.integers(0, 4)),
    call("list_turns", ids, before=st.none(), limit=st.just(9), max_chars=st.integers(0, 4)),
    call("list_audit", ids),
    call("find_turn", ids, indexes),
    call("find_creation", owners, st.sampled_from(["k1", "k2"]), since=times),
    call("find_keyed_turn", ids, st.sampled_from(["k1", "k2"])),
    call("find_kept_events", ids, indexes),
    call("read_events", ids, after=st.integers(0, 9), max_bytes=st.sampled_from([1, 20, 1000])),
)
WRITES = st.one_of(
    call("begin_run", run_starts),
    call("end_run", run_ends),
    call("interrupt_runs", at=times),
    call("sweep_audit", before=times),
    call("add_app", st.builds(app, owners, at=times), digests),
    call("revoke_app", owners),
    call("add_file", files, digests),
    call("claim_files", owners, st.lists(digests, max_size=3), now=times, until=times),
    call("expire_files", now=times),
    call("add_session", sessions),
    call("add_session", sessions),
    call("close_session", ids, event=st.just("sweep_close"), cause=causes, at=times),
    call("undo_session", sessions, cause=causes, at=times),
    call("delete_session", ids, at=times),
    call("set_can_resume", ids, can_resume=st.booleans()),
    call("begin_turn", turns),
    call("begin_turn", turns),
    call("add_session", sessions, keys),
    call("begin_turn", keyed_turns),
    call("end_turn", keeping_ends),
    call("note_permission", decisions, digests),
    call("end_turn", ends),
    call("end_turn", ends, st.none() | batches),
    call("append_events", batches),
    call("append_events", batches),
    call("take_up_events", ids),
    call("interrupt_turns", at=times),
    call("check"),
)


async def everything(store: Store) -> list[Any]:
    """All that can be read out of a ledger."""
    seen: list[Any] = [await store.list_apps(), await store.list_all_sessions()]
    seen += [await store.list_runs(owner, limit=99) for owner in (LAB, SHOP)]
    for number in (1, 2, 3):
        seen.append(await store.list_turns(session_id(number), before=None, limit=99))
        seen.append(await store.list_audit(session_id(number)))
        seen.append(await store.read_events(session_id(number), after=0, max_bytes=10_000))
    return seen


@settings(max_examples=60, deadline=None)
@given(st.lists(READS | WRITES | WRITES, min_size=5, max_size=40))
def test_the_twins_answer_alike(calls: list[Call]) -> None:
    """Same calls, same answers, same errors, and in the end the same ledger."""

    async def both() -> None:
        with tempfile.TemporaryDirectory() as folder, trio.fail_after(60):
            memory = MemoryStore()
            async with open_sqlite_store(Path(folder, "clawdforge.db")) as sqlite:
                for one in calls:
                    assert await one.on(memory) == await one.on(sqlite), one
                assert await everything(memory) == await everything(sqlite)

    trio.run(both)
