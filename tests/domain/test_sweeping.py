"""The sweep's plan, case by case, and what no plan ever does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clawdforge.domain.ids import AgentName, AppName, SessionId
from clawdforge.domain.ports import SessionRow
from clawdforge.domain.sweeping import Lifetimes, LiveSession, plan_sweep

NOW = 10_000
LIFETIMES = Lifetimes(idle_secs=100, closed_secs=500)
APPS = ("kitchen", "garage")


@st.composite
def sessions(draw: st.DrawFn) -> list[SessionRow]:
    """Rows of any age and state."""
    ids = draw(st.lists(st.sampled_from("abcdef"), unique=True))
    times = st.integers(NOW - 1000, NOW)
    return [
        SessionRow(
            session_id=SessionId(each),
            app_name=AppName(draw(st.sampled_from(APPS))),
            agent=AgentName("demo"),
            model=None,
            created_at=draw(times),
            permissions="ask",
            last_turn_at=draw(st.none() | times),
            closed_at=draw(st.none() | times),
        )
        for each in ids
    ]


actors = st.dictionaries(
    st.sampled_from("abcdefgh").map(SessionId),
    st.builds(LiveSession, st.sampled_from(APPS).map(AppName), is_busy=st.booleans()),
)


@given(sessions(), actors, st.sets(st.sampled_from(APPS).map(AppName)))
def test_what_no_plan_ever_does(
    rows: list[SessionRow], live: dict[SessionId, LiveSession], apps: set[AppName]
) -> None:
    """It closes no busy or closed session, deletes no open one, and stops only who must go."""
    plan = plan_sweep(rows, live, apps, LIFETIMES, NOW)
    by_id = {row.session_id: row for row in rows}
    for session_id in plan.close:
        assert by_id[session_id].closed_at is None
        assert not (session_id in live and live[session_id].is_busy)
    for session_id in plan.delete:
        closed_at = by_id[session_id].closed_at
        assert closed_at is not None
        assert NOW - closed_at > 500
    stopped = {session_id for session_id, _ in plan.stop}
    for session_id, actor in live.items():
        row = by_id.get(session_id)
        must_go = row is None or row.closed_at is not None or actor.app not in apps
        assert (session_id in stopped) is must_go
    assert not stopped & set(plan.close)
