"""The command: so many steps with a seed, a table at the end, and exit 1 when a promise was broken.

A failure is repeated with the same seed: the faults and their order come from it (the moments
within a fault are the machine's).
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import platformdirs

from clawdforge.processes.runtime import ensure_runtime
from ops.chaos import kills, steps
from ops.chaos.checks import Baseline, check_all
from ops.chaos.steps import Step
from ops.chaos.victim import ChaosFailed, Victim, until
from ops.chaos.world import World

STEPS: Final[Mapping[str, tuple[int, Step]]] = {
    "no fault": (4, steps.just_talk),
    "agent killed in turn": (2, partial(kills.kill_in_turn, victim="agent")),
    "host killed in turn": (2, partial(kills.kill_in_turn, victim="host")),
    "warden killed in turn": (2, partial(kills.kill_in_turn, victim="warden")),
    "agent killed at rest": (1, partial(kills.kill_at_rest, victim="agent")),
    "host killed at rest": (1, partial(kills.kill_at_rest, victim="host")),
    "warden killed at rest": (1, partial(kills.kill_at_rest, victim="warden")),
    "agent crashes": (1, kills.crash_in_turn),
    "forgetful agent lost": (1, kills.lose_a_forgetful_agent),
    "service killed in turn": (2, kills.kill_service),
    "service killed in commits": (2, kills.kill_service_in_commits),
    "service and wardens killed": (1, kills.kill_service_and_wardens),
    "drain by signal": (1, partial(kills.drain, how="signal")),
    "drain by the admin": (1, partial(kills.drain, how="admin")),
    "hang-up in turn": (2, partial(steps.hang_up_in_turn, prompt="sleep: 60")),
    "hang-up, deaf agent": (1, partial(steps.hang_up_in_turn, prompt="deaf: 60")),
    "hang-up, ignoring agent": (1, partial(steps.hang_up_in_turn, prompt="ignore\ndeaf: 60")),
    "hang-up in creation": (2, steps.hang_up_in_creation),
    "close in turn": (1, steps.close_in_turn),
    "slow agent, deadline": (1, steps.run_past_the_deadline),
    "crowd at the door": (1, steps.crowd),
    "dawdling callers": (1, steps.dawdle),
    "flood of updates": (1, partial(steps.misbehave, prompt="flood: 5000")),
    "huge line": (1, partial(steps.misbehave, prompt="huge: 3000000")),
    "garbage": (1, partial(steps.misbehave, prompt="garbage: 60")),
    "agent frozen": (1, steps.freeze_agent),
    "agent that never starts": (1, steps.fail_to_start),
    "stubborn agent": (1, steps.outlive_a_stubborn_agent),
    "disk full": (1, partial(steps.spoil_disk, fault="full")),
    "disk read-only": (1, partial(steps.spoil_disk, fault="read-only")),
    "disk broken": (1, partial(steps.spoil_disk, fault="broken")),
    "disk damaged": (1, partial(steps.spoil_disk, fault="corrupt")),
    "disk slow": (1, partial(steps.spoil_disk, fault="slow")),
    "ledger locked": (1, steps.hold_the_lock),
    "clock jumps ahead": (1, steps.jump_ahead),
    "clock jumps back": (1, steps.jump_back),
}
"""Name -> how often it is chosen, and what is done."""


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m ops.chaos", description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=None, help="repeat a run")
    parser.add_argument("--only", default="", help="only faults whose name has these words")
    parser.add_argument("--runtime-dir", type=Path, default=None, help="where acpx is installed")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    named = options.runtime_dir or os.environ.get("CLAWDFORGE_RUNTIME_DIR")
    runtime_dir = Path(named) if named else platformdirs.user_cache_path("clawdforge")
    ensure_runtime(runtime_dir, "acpx", print)
    plan = choose(options.steps, seed, options.only)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and kill the victim
    with tempfile.TemporaryDirectory(prefix="clawdforge-chaos-") as folder:
        return run(plan, seed, Victim(Path(folder), runtime_dir))


def choose(count: int, seed: int, only: str) -> Sequence[str]:
    """The faults, in order: each kind once as far as the steps go, the rest at random."""
    rng = random.Random(seed)
    names = [name for name in STEPS if only in name]
    plan = rng.sample(names, min(count, len(names)))
    weights = [STEPS[name][0] for name in names]
    return [*plan, *rng.choices(names, weights, k=count - len(plan))]


def run(plan: Sequence[str], seed: int, victim: Victim) -> int:
    """Do the plan; the exit code."""
    world, baseline = World(victim, random.Random(seed)), Baseline()
    number, began = 0, time.monotonic()
    try:
        world.start()
        warm_up(world)
        check_all(world, baseline)
        for number, name in enumerate(plan, 1):
            world.kind = name
            print(f"{number:4} of {len(plan)}  {name}", flush=True)
            STEPS[name][1](world)
            world.tallies[name].injected += 1
            world.kind = "checks"
            check_all(world, baseline)
        end(world)
    except ChaosFailed as error:
        print(f"FAILED at step {number} of seed {seed}: {error}\n{victim.last_words()}")
        return 1
    finally:
        if victim.lives and victim.is_alive:
            victim.kill()
    print_table(world, baseline)
    print(f"seed {seed}: {len(plan)} steps in {time.monotonic() - began:.0f} s, all promises kept")
    return 0


def warm_up(world: World) -> None:
    """One session's life, so that everything is loaded and measured as it will stay."""
    known = world.open()
    world.talk(known)
    world.close(known)


def end(world: World) -> None:
    """Close all, stop, and look once more."""
    world.kind = "end"
    for known in list(world.sessions.values()):
        world.close(known)
    if (slots := world.call("GET", "/healthz")["open_sessions"]) != 0:
        raise ChaosFailed(f"{slots} slots leaked")
    until(lambda: not world.victim.processes(), "no process is left", kills.GONE_SECS)
    world.client.close()
    world.victim.terminate()
    if (code := world.victim.bury()) != 0:
        raise ChaosFailed(f"exit code {code}")
    if world.victim.ask("PRAGMA integrity_check") != [("ok",)]:
        raise ChaosFailed("the ledger is damaged")
    if left := list((world.victim.data_dir / "sessions").iterdir()):
        raise ChaosFailed(f"{len(left)} directories of closed sessions are left")


def print_table(world: World, baseline: Baseline) -> None:
    """What was injected and what was answered, a line a kind."""
    print(f"\n{'fault':28}{'times':>6}{'worst s':>9}  answers")
    for name, tally in world.tallies.items():
        statuses = ", ".join(f"{count}x{code}" for code, count in sorted(tally.statuses.items()))
        cut = f", {tally.cut_off} cut off" if tally.cut_off else ""
        print(f"{name:28}{tally.injected or '':>6}{tally.worst_secs:9.2f}  {statuses}{cut}")
    mib = 1024 * 1024
    print(
        f"\nlives {world.victim.lives}, survivors 0, acknowledged turns lost 0;"
        f" at most {baseline.peak_files} descriptors, {baseline.peak_bytes / mib:.0f} MiB resident"
    )


if __name__ == "__main__":
    sys.exit(main())
