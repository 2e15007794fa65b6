"""Taking the process in hand, and fitting the settings to what the kernel gives us.

Only for a process that is ours: inside somebody else's (``clawdforge.testing``) none of it is.
"""

from __future__ import annotations

import gc
import resource
from typing import Final

import attrs
import structlog

from clawdforge.config import Config
from clawdforge.domain.limits import FilePlan, plan_files
from clawdforge.errors import WrongConfiguration
from clawdforge.processes.kernel import become_subreaper, raise_open_files, set_not_dumpable

log: Final = structlog.get_logger("clawdforge.app")

YOUNG_OBJECTS: Final = 20_000
"""How many more objects than before there must be until it looks: some MiB at most."""


def claim_process(config: Config) -> Config:
    """Ask the kernel for what only the owner of a process may, and answer the settings that fit.

    A cap of sessions that the limit of open files cannot bear is lowered, with a line in the log:
    a smaller service is better than none. Raises WrongConfiguration when not even one fits.
    """
    become_subreaper()
    set_not_dumpable()
    raise_open_files()
    plan = plan_open_files(config)
    if plan is None:
        raise WrongConfiguration(
            "CLAWDFORGE_MAX_RUNS",
            f"{_soft_limit()} open files are too few for these settings and even one session;"
            " raise the hard limit (ulimit -Hn, LimitNOFILE=)",
        )
    if plan.sessions < config.max_live_sessions:
        log.warning(
            "fewer sessions than asked for: open files are limited",
            asked=config.max_live_sessions,
            sessions=plan.sessions,
            open_files=_soft_limit(),
        )
    return attrs.evolve(config, max_live_sessions=plan.sessions)


def calm_collector() -> None:
    """Have Python look for garbage less often, and never again in what was loaded at the start.

    By default it looks after every 700 new objects, which a turn makes some times over: measured,
    0.4 ms of the 3.5 ms of processor that a turn took.
    """
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


def plan_open_files(config: Config) -> FilePlan | None:
    """How the limit that holds now is divided; None when it is too low for one session."""
    return plan_files(
        _soft_limit(),
        sessions=config.max_live_sessions,
        runs=config.max_runs,
        starts=config.start_concurrency,
    )


def _soft_limit() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
