"""Faults that leave the service alive: callers, agents, disk, clock; and what callers are told."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from clawdforge.testing.bad_disk import Fault
from ops.chaos.kills import busy_turn, kill_one
from ops.chaos.victim import SLOTS, ChaosFailed, until
from ops.chaos.world import Known, World

IDLE_SECS: Final = 4000
"""More than the default lifetime of an idle session (3600)."""

Step = Callable[[World], None]


def just_talk(world: World) -> None:
    """No fault: a turn, and the memory of all before it."""
    known = world.pick()
    world.talk(known)
    world.check_memory(known)


# --- callers that leave or stay -------------------------------------------------------------------


def hang_up_in_turn(world: World, prompt: str) -> None:
    """The caller leaves: the turn is over soon, deaf agent or not, and the session goes on."""
    known = world.pick()
    asked = busy_turn(world, known, prompt)
    body = {"prompt": asked}
    stream = world.hang_up("POST", f"/sessions/{known.session_id}/turn", body)
    world.has_heard(known, asked.split()[0])
    stream.close()
    world.talk(known)


def hang_up_in_creation(world: World) -> None:
    """The caller leaves while the agent starts: nothing of the session stays."""
    before = len(_open_sessions(world))
    with world.hang_up("POST", "/sessions", {"agent": "good"}) as stream:
        stream.settimeout(world.rng.uniform(0.01, 0.4))
        try:
            is_answered = bool(stream.recv(1))
        except TimeoutError:
            is_answered = False
    if is_answered:  # too late: it is a session that nobody knows
        for session in _open_sessions(world) - world.sessions.keys():
            world.call("DELETE", f"/sessions/{session}")
    until(lambda: len(_open_sessions(world)) <= before, "the creation is undone", 30)


def _open_sessions(world: World) -> set[str]:
    listed = world.call("GET", "/sessions?include_closed=false")["sessions"]
    return {row["session_id"] for row in listed}


def close_in_turn(world: World) -> None:
    """Closing ends the turn first; its caller is told."""
    known = world.open()
    prompt = busy_turn(world, known, "setsid: 300\nsleep: 60")
    pending = world.turn(known, prompt)
    world.has_heard(known, prompt.split()[0])
    world.close(known)
    world.expect(pending.result(), 200, 410)


def run_past_the_deadline(world: World) -> None:
    """A slow agent: 504 at the deadline, and the session goes on."""
    known = world.pick()
    world.expect(world.turn(known, "sleep: 60", timeout_secs=5).result(), 504)
    world.talk(known)


def crowd(world: World) -> None:
    """More creations at once than there are slots: each is let in or told 503."""
    pending = [world.ask("POST", "/sessions", {"agent": "good"}) for _ in range(7)]
    opened = []
    for each in pending:
        body = world.expect(each.result(), 200, 503)
        if "session_id" in body:
            opened.append(Known(body["session_id"], "good"))
    world.sessions.update({known.session_id: known for known in opened})
    if (slots := world.call("GET", "/healthz")["open_sessions"]) > SLOTS:
        raise ChaosFailed(f"{slots} live sessions are more than the cap allows")
    for known in opened:
        world.close(known)


def dawdle(world: World) -> None:
    """Callers that send half a request, or nothing, while others work."""
    place = urlsplit(world.victim.url)
    idlers = [socket.create_connection((place.hostname, place.port)) for _ in range(20)]
    for idler in idlers[::2]:
        idler.sendall(b"POST /sessions HTTP/1.1\r\nHost: chaos\r\nContent-Length: 9\r\n\r\n{")
    world.talk(world.pick())
    for idler in idlers:
        idler.close()


# --- bad agents -----------------------------------------------------------------------------------


def misbehave(world: World, prompt: str) -> None:
    """A turn in which the agent is a nuisance, and still a turn."""
    known = world.pick()
    world.acknowledge(known, world.turn(known, f"{world.remember(known)}\n{prompt}").result())


def freeze_agent(world: World) -> None:
    """The agent hangs for ever: its caller leaves, it is killed, the session goes on."""
    known = world.pick()
    asked = busy_turn(world, known)
    stream = world.hang_up("POST", f"/sessions/{known.session_id}/turn", {"prompt": asked})
    world.has_heard(known, asked.split()[0])
    kill_one(world, known, "agent", signal.SIGSTOP)
    stream.close()
    world.talk(known)


def fail_to_start(world: World) -> None:
    """An agent that is dead at once: 502, and 503 at once when it keeps being so."""
    answers = [world.ask("POST", "/sessions", {"agent": "dead"}).result() for _ in range(4)]
    for answer in answers:
        world.expect(answer, 502, 503)
    if answers[-1].status_code != 503:
        raise ChaosFailed("an agent that never starts is hammered")
    world.talk(world.pick())


def outlive_a_stubborn_agent(world: World) -> None:
    """Only KILL ends it, and KILL does."""
    known = world.open("stubborn")
    world.talk(known)
    world.talk(known)
    world.close(known)


# --- the ledger and the clock ---------------------------------------------------------------------


def spoil_disk(world: World, fault: Fault) -> None:
    """The disk goes wrong for some requests: 200 or 503, and well again afterwards."""
    world.make_room()
    known = next(iter(world.sessions.values()), None) or world.open()
    world.talk(known)
    world.victim.order(disk=fault)
    world.doubtful.update(world.sessions)
    try:
        answers = [world.turn(known, world.remember(known)).result() for _ in range(2)]
        created = world.ask("POST", "/sessions", {"agent": "good"}).result()
    finally:
        world.victim.order(disk="none")
    for answer in answers:
        world.expect(answer, 200, 503)
        if answer.status_code == 200:
            world.acknowledge(known, answer)
    if world.expect(created, 200, 503)["ok"]:
        session_id = created.json()["session_id"]
        world.sessions[session_id] = Known(session_id, "good")
    until(lambda: world.ask("GET", "/readyz").result().status_code == 200, "it is ready again", 30)
    world.check_memory(known)


def hold_the_lock(world: World) -> None:
    """Another program holds the ledger's lock for a second: requests wait for it."""
    known = world.pick()
    with world.victim.opened() as db:
        db.execute("BEGIN IMMEDIATE")
        pending = world.turn(known, world.remember(known))
        threading.Event().wait(1)
        db.rollback()
    world.acknowledge(known, pending.result())


def jump_ahead(world: World) -> None:
    """The clock is suddenly an hour late: idle sessions are closed, and say so."""
    world.talk(world.pick())
    world.victim.order(clock=IDLE_SECS)
    until(lambda: not _open_sessions(world), "all idle sessions are closed", 30)
    for known in list(world.sessions.values()):
        answer = world.turn(known, "hello?").result()
        world.expect(answer, 410)
        if "idle" not in answer.text:
            raise ChaosFailed(f"no reason given: {answer.text}")
        world.forget(known)
    world.victim.order(clock=-IDLE_SECS)


def jump_back(world: World) -> None:
    """The clock is suddenly an hour early: nothing is closed, nothing is negative."""
    known = world.pick()
    world.talk(known)
    world.victim.order(clock=-IDLE_SECS)
    world.talk(known)
    world.victim.order(clock=IDLE_SECS)
    world.talk(known)
