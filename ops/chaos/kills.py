"""Faults that end processes: of a session's tree, of the service itself, by force or by a drain."""

from __future__ import annotations

import os
import signal
import threading
from typing import Final

from ops.chaos.victim import ChaosFailed, until
from ops.chaos.world import Known, World

GONE_SECS: Final = 2.0
"""The promise: so long after the end of the service, nothing of it is left."""

PROGRAMS: Final = {"agent": "demo_agent", "host": "host.mjs", "warden": "warden.py"}


def busy_turn(world: World, known: Known, more: str = "sleep: 60") -> str:
    """A prompt that keeps the agent busy, and the word by which it is known to have begun."""
    return f"{world.remember(known)}\n{more}"


def kill_one(world: World, known: Known, victim: str, number: int = signal.SIGKILL) -> None:
    """Signal one process of the session's tree."""
    pid = world.victim.find(known.session_id, PROGRAMS[victim])
    if pid is None:
        raise ChaosFailed(f"there is no {victim} to kill")
    os.kill(pid, number)


def kill_in_turn(world: World, victim: str) -> None:
    """One process of the tree dies in mid-turn: 502 at once, and the next turn remembers."""
    known = world.pick()
    world.talk(known)
    prompt = busy_turn(world, known)
    pending = world.turn(known, prompt)
    world.has_heard(known, prompt.split()[0])
    kill_one(world, known, victim)
    world.expect(pending.result(), 502)
    world.check_memory(known)


def kill_at_rest(world: World, victim: str) -> None:
    """One process of the tree dies between turns: all of it is gone, and no caller notices."""
    known = world.pick()
    world.talk(known)
    kill_one(world, known, victim)
    until(lambda: known.session_id not in world.victim.trees(), "its tree is dead", GONE_SECS)
    world.check_memory(known)


def crash_in_turn(world: World) -> None:
    """The agent ends itself."""
    known = world.pick()
    world.expect(world.turn(known, "crash: 9").result(), 502)
    world.talk(known)


def lose_a_forgetful_agent(world: World) -> None:
    """An agent that cannot resume dies: 410 with the reason, never a new conversation."""
    known = world.open("forgetful")
    world.talk(known)
    kill_one(world, known, "agent")
    until(lambda: _is_closed(world, known), "the session is closed", 30)
    gone = world.turn(known, "recall:").result()
    world.expect(gone, 410)
    if "not_resumable" not in gone.text:
        raise ChaosFailed(f"no reason given: {gone.text}")
    world.forget(known)


def _is_closed(world: World, known: Known) -> bool:
    """A turn finds it so; until then one fails with the agent, or is cancelled with the close."""
    answer = world.turn(known, "recall:").result()
    body = world.expect(answer, 200, 410, 502)
    if answer.status_code == 200 and body["stop_reason"] != "cancelled":
        raise ChaosFailed("a conversation that was lost goes on")
    return answer.status_code == 410


def kill_service(world: World) -> None:
    """SIGKILL in mid-turn: nothing is left, the turn is interrupted, the conversation goes on."""
    known = world.pick()
    world.talk(known)
    prompt = busy_turn(world, known)
    pending = world.turn(known, prompt)
    world.has_heard(known, prompt.split()[0])
    world.victim.kill()
    pending.result_or_cut()
    until(lambda: not world.victim.processes(), "nothing is left of a killed service", GONE_SECS)
    world.restart()
    _expect_interrupted(world, known)
    world.check_memory(known)


def _expect_interrupted(world: World, known: Known) -> None:
    query = "SELECT ending FROM turns WHERE session_id = ? ORDER BY turn_index DESC LIMIT 1"
    if world.victim.ask(query, known.session_id) != [("interrupted",)]:
        raise ChaosFailed("a turn cut off by a kill is not marked interrupted")


def kill_service_in_commits(world: World) -> None:
    """SIGKILL while several sessions commit as fast as they can."""
    while len(world.sessions) < 2:
        world.open()
    chosen = [known for known in world.sessions.values() if known.agent == "good"][:3]
    talkers = [threading.Thread(target=_talk_until_cut, args=(world, known)) for known in chosen]
    for talker in talkers:
        talker.start()
    talkers[0].join(world.rng.uniform(0.02, 0.6))  # a moment somewhere in the middle of it all
    world.victim.kill()
    for talker in talkers:
        talker.join()
    until(lambda: not world.victim.processes(), "nothing is left of a killed service", GONE_SECS)
    world.restart()
    for known in chosen:
        world.talk(known)


def _talk_until_cut(world: World, known: Known) -> None:
    while (answer := world.turn(known, world.remember(known)).result_or_cut()) is not None:
        world.acknowledge(known, answer)


def kill_service_and_wardens(world: World) -> None:
    """Both lines of defence at once: the next start sweeps what is left, before it is ready."""
    known = world.pick()
    world.talk(known)
    wardens = [world.victim.find(session, "warden.py") for session in world.victim.trees()]
    world.victim.freeze()
    for pid in wardens:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
    world.victim.kill()
    world.restart()
    if world.victim.processes():
        raise ChaosFailed("the start did not sweep what an earlier life left")
    world.check_memory(known)


def drain(world: World, how: str) -> None:
    """A turn that can finish does, its caller is answered, and the exit code is 0."""
    known = world.pick()
    prompt = busy_turn(world, known, "sleep: 0.5")
    pending = world.turn(known, prompt)
    world.has_heard(known, prompt.split()[0])
    if how == "signal":
        world.victim.terminate()
    else:
        world.client.post(
            "/admin/drain", headers={"Authorization": f"Bearer {world.victim.admin_token}"}
        ).raise_for_status()
    world.acknowledge(known, pending.result())
    if (code := world.victim.bury()) != 0:
        raise ChaosFailed(f"exit code {code} after a drain")
    world.restart()
    world.check_memory(known)
