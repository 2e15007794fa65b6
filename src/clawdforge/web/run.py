"""The route of one-shot runs: one prompt in, one result out.

A run that fails is a result too, in a flat body that old clients read; only what keeps it from
being run at all is a problem document.
"""

from __future__ import annotations

from typing import Final

from clawdforge.config import Config
from clawdforge.domain.runs import RunResult
from clawdforge.errors import RunsFull, UnknownFileToken
from clawdforge.web.answers import RunDone, RunFailed
from clawdforge.web.bodies import RunOnce
from clawdforge.web.operations import SHORT_SECS, Call, Operation
from clawdforge.web.problems import RUN_FAILED, Flat
from clawdforge.web.service import NewRun


async def run_once(call: Call[RunOnce]) -> RunDone | Flat:
    """Run once and answer. A caller who leaves stops the run."""
    asked = call.asked
    result = await call.service.run_once(
        call.app,
        NewRun(
            prompt=asked.prompt,
            timeout_secs=asked.timeout_secs or call.service.config.run_timeout_secs,
            model=asked.model,
            system=asked.system,
            system_mode=asked.system_mode,
            effort=asked.effort,
            files=asked.files,
        ),
    )
    return RunDone.of(result) if result.ok else Flat(RUN_FAILED, RunFailed.of(result))


def run_secs(config: Config) -> float:
    """The longest run that may be asked for, then its kill."""
    return config.max_timeout_secs + SHORT_SECS


FAILED: Final = RunResult(
    False, None, "", "", 5210, "error", "the model API limits the rate of requests (429)"
)
"""An example of a run that failed, for the API description."""

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/run",
        gate="app",
        handle=run_once,
        summary="Run the one-shot command once",
        asks=RunOnce,
        bound_secs=run_secs,
        example={"prompt": "Three colours, as a JSON list", "effort": "low", "timeout_secs": 60},
        answer=RunDone(result=["red", "green", "blue"], duration_ms=3120, stop_reason="end_turn"),
        refusals=[UnknownFileToken.at([0]), RunsFull(10, 128)],
        failures={RUN_FAILED: RunFailed.of(FAILED)},
    ),
)
