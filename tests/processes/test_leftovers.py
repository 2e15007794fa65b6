"""Leftovers: who is chosen, and that nobody else is hit."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator

import attrs
import pytest

from clawdforge.processes.leftovers import (
    Cleared,
    ProcessView,
    _kill,
    _kill_groups,
    choose_earlier,
    choose_tree,
    clear,
    look_around,
    look_at,
    sweep_leftovers,
)
from clawdforge.processes.marks import MARK_NAME, Incarnation, Mark, parse_mark
from tests.processes.trees import (
    GONE_SECS,
    START_SECS,
    command,
    family_of,
    is_alive,
    new_incarnation,
    nothing_survives,
    until,
)

NOW = Incarnation("here", "now")
EARLIER = Mark(Incarnation("here", "then"), "t1")
OURS = Mark(NOW, "t1")
ELSEWHERE = Mark(Incarnation("there", "then"), "t1")


def view(pid: int, session_id: int, mark: Mark | None = None) -> ProcessView:
    """A process in a table."""
    return ProcessView(pid, 1, pid, session_id, 5, mark=mark)


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("here:now:t1", OURS),
        ("here:now", None),
        ("here:now:t1:x", None),
        ("here::t1", None),
        ("", None),
        ("here:now:t 1", None),
    ],
)
def test_marks_are_read_back(text: str, mark: Mark | None) -> None:
    """A mark survives being written; what we did not write is none."""
    assert parse_mark(text) == mark
    assert mark is None or str(mark) == text


@pytest.mark.parametrize("word", ["", "a:b", "a b", "x" * 65, "a\n"])
def test_marks_refuse_what_cannot_be_read_back(word: str) -> None:
    """Neither part of an incarnation may hold a separator."""
    with pytest.raises(ValueError, match="must be"):
        Incarnation(word, "now")
    with pytest.raises(ValueError, match="must be"):
        Incarnation("here", word)


def test_no_two_trees_have_one_mark() -> None:
    """Every start has a mark of its own."""
    assert NOW.mark_tree() != NOW.mark_tree()


def test_a_tree_is_its_mark_and_its_session() -> None:
    """Chosen are the marked ones and those in the dead warden's session, nobody else."""
    other_tree = Mark(NOW, "t2")
    views = [view(11, 10, OURS), view(12, 10), view(13, 13, OURS), view(20, 20, other_tree)]
    assert [v.pid for v in choose_tree(views, OURS, warden_pid=10)] == [11, 12, 13]


def test_a_reused_session_says_nothing() -> None:
    """If the warden's pid is somebody's again, only the mark counts."""
    views = [view(10, 10), view(12, 10), view(13, 13, OURS)]
    assert [v.pid for v in choose_tree(views, OURS, warden_pid=10)] == [13]


def test_only_earlier_incarnations_are_swept() -> None:
    """Not this incarnation, not another directory, not the unmarked, not the sweeper itself."""
    views = [
        view(1, 1),
        view(11, 10, EARLIER),
        view(12, 10),
        view(20, 20, OURS),
        view(30, 30, ELSEWHERE),
        view(31, 30),
    ]
    assert [v.pid for v in choose_earlier(views, NOW, own_pid=1)] == [11, 12]


def test_a_service_started_by_a_leftover_spares_itself() -> None:
    """A service that an earlier agent started kills neither itself nor its shell's session."""
    views = [view(11, 10, EARLIER), view(12, 10, EARLIER), view(13, 10)]
    assert [v.pid for v in choose_earlier(views, NOW, own_pid=12)] == [11]


@pytest.fixture
def incarnation() -> Iterator[Incarnation]:
    """One of its own, of which nothing is left after the test."""
    made = new_incarnation()
    with nothing_survives(made):
        yield made


def start_marked(incarnation: Incarnation, *habits: str) -> subprocess.Popen[bytes]:
    """A marked process that is deaf and ready, without a warden."""
    made = command(incarnation, "deaf", *habits, "ready", "hang")
    process = subprocess.Popen(
        made.argv,
        env={**made.env, MARK_NAME: str(incarnation.mark_tree())},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], START_SECS)[0]
    return process


def test_a_sweep(incarnation: Incarnation) -> None:
    """The earlier incarnation's process is killed; this one's and another directory's live."""
    following = Incarnation(incarnation.data_dir_id, "second")
    elsewhere = new_incarnation()
    with nothing_survives(following), nothing_survives(elsewhere):
        old, current, foreign = (start_marked(one) for one in (incarnation, following, elsewhere))
        with old, current, foreign:
            assert sweep_leftovers(following) == Cleared(1, 0)
            assert sweep_leftovers(following) == Cleared(0, 0)
            assert family_of(incarnation) == []
            assert [len(family_of(one)) for one in (following, elsewhere)] == [1, 1]
            current.kill()
            foreign.kill()


def test_what_cannot_be_killed_is_counted(
    incarnation: Incarnation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clearing gives up in time, and says how many are left."""
    monkeypatch.setattr("clawdforge.processes.leftovers._kill", lambda _: False)
    monkeypatch.setattr("clawdforge.processes.leftovers._kill_groups", lambda _: None)
    with start_marked(incarnation) as process:
        chosen = [process.pid]
        cleared = clear(lambda views: [v for v in views if v.pid in chosen], within_secs=0.05)
        process.kill()
    assert cleared == Cleared(0, 1)


def test_a_pid_used_again_is_not_hit(incarnation: Incarnation) -> None:
    """A process that started at another time than the one we saw is somebody else."""
    with start_marked(incarnation) as process:
        seen = look_at(process.pid)
        assert seen is not None
        stale = attrs.evolve(seen, started_ticks=seen.started_ticks - 1)
        assert not _kill(stale)
        assert process.poll() is None
        assert _kill(seen)
    assert not _kill(seen)


async def test_a_runaway_is_killed_with_its_group(incarnation: Incarnation) -> None:
    """What has a new pid by now is still in the group in which it was seen."""
    with start_marked(incarnation, "plain") as process:
        (runaway,) = (seen for seen in family_of(incarnation) if seen.pid != process.pid)
        process.kill()
        process.wait()
        seen_before = attrs.evolve(runaway, pid=process.pid, started_ticks=0)
        _kill_groups([seen_before])
        await until(lambda: not is_alive(runaway), GONE_SECS)


def test_a_group_led_by_somebody_else_is_spared(incarnation: Incarnation) -> None:
    """A group whose leader was not chosen has a number that was used again."""
    with start_marked(incarnation) as process:
        seen = look_at(process.pid)
        assert seen is not None
        _kill_groups([attrs.evolve(seen, started_ticks=seen.started_ticks - 1)])
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        process.kill()


def test_looking_around_finds_ourselves() -> None:
    """The snapshot holds this very process, as the kernel names it."""
    mine = next(seen for seen in look_around() if seen.pid == os.getpid())
    assert (mine.parent_pid, mine.session_id) == (os.getppid(), os.getsid(0))
    assert not mine.is_zombie


def test_a_name_with_brackets(incarnation: Incarnation) -> None:
    """A process may call itself anything; its line in /proc is still understood."""
    code = "open('/proc/self/comm', 'w').write(') Z 1 (x'); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = look_at(process.pid)
        process.kill()
    assert seen is not None
    assert (seen.parent_pid, seen.is_zombie) == (os.getpid(), False)


def test_what_the_service_asks_for_itself() -> None:
    """Subreaper, not dumpable and all the files it may have: set in a process of its own."""
    code = """
import ctypes, resource
from clawdforge.processes import kernel
kernel.become_subreaper(); kernel.set_not_dumpable()
answer = ctypes.c_int()
libc = ctypes.CDLL(None)
libc.prctl(37, ctypes.byref(answer), 0, 0, 0)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
raised = kernel.raise_open_files()
print(answer.value, libc.prctl(3, 0, 0, 0, 0), raised == hard, kernel.SOFT_OPEN_FILES == soft)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=30)
    assert done.stdout.split() == [b"1", b"0", b"True", b"True"]
