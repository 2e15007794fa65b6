"""``POST /run`` over a scripted service: both bodies to the letter, and every refusal."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from clawdforge.domain.runs import RunResult
from clawdforge.errors import (
    FilesUnavailable,
    RunsFull,
    ShuttingDown,
    StoreUnavailable,
    UnknownFileToken,
)
from clawdforge.web.app import make_edge
from clawdforge.web.service import NewRun
from tests.web.stage import KITCHEN, RAN, FakeService, ask, bearer, make_service
from tests.web.test_routes import assert_problem


async def run(service: FakeService, **body: Any) -> Any:
    """One request."""
    return await ask(make_edge(service), "POST", "/run", headers=bearer(), body=body)


@pytest.mark.parametrize("result", [{"a": [1, None]}, [], "text", "", 42, 1.5, True, None])
async def test_success_has_exactly_four_fields(result: Any) -> None:
    """Nothing of the command's raw output is among them."""
    service = await make_service(run_result=attrs.evolve(RAN, result=result))
    answer = await run(service, prompt="hi")
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.json == {
        "ok": True,
        "result": result,
        "duration_ms": 7,
        "stop_reason": "end_turn",
    }
    assert list(answer.json) == ["ok", "result", "duration_ms", "stop_reason"]


@pytest.mark.parametrize("stop_reason", ["error", "timeout", "cancelled"])
async def test_failure_is_a_flat_body(stop_reason: str) -> None:
    """502 with exactly five fields, in no problem document; a long stderr is cut at its head."""
    failed = RunResult(False, None, "raw", "x" * 3000 + "end", 9, stop_reason, "no luck")
    answer = await run(await make_service(run_result=failed), prompt="hi")
    assert (answer.status, answer.header("content-type")) == (502, "application/json")
    assert answer.json == {
        "ok": False,
        "error": "no luck",
        "stderr": "x" * 1997 + "end",
        "duration_ms": 9,
        "stop_reason": stop_reason,
    }


async def test_a_failure_without_words_has_some() -> None:
    """``error`` is text, whatever a runner leaves out."""
    failed = RunResult(False, None, "", "", 9, "error")
    answer = await run(await make_service(run_result=failed), prompt="hi")
    assert answer.json["error"] == "the run failed"


async def test_every_field_reaches_the_service() -> None:
    """As it was sent; what was left out, or null, has its default."""
    service = await make_service()
    await run(service, prompt="hi")
    await run(
        service,
        prompt="hi",
        model=None,
        system=None,
        system_mode=None,
        effort=None,
        timeout_secs=None,
    )
    full: dict[str, Any] = {
        "prompt": "--help",
        "model": "claude-opus-4[1m]",
        "system": "-x",
        "system_mode": "replace",
        "effort": "xhigh",
        "timeout_secs": 5,
    }
    await run(service, **full, files=["ff_a", "ff_b"])
    default = (KITCHEN, NewRun(prompt="hi", timeout_secs=120))
    assert service.asked[:2] == [default, default]
    assert service.asked[2] == (KITCHEN, NewRun(**full, files=("ff_a", "ff_b")))


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "$.prompt"),
        ({"prompt": ""}, "$.prompt"),
        ({"prompt": None}, "$.prompt"),
        ({"prompt": ["hi"]}, "$.prompt"),
        ({"prompt": "a\x00b"}, "$.prompt"),
        ({"prompt": "hi", "model": "-x"}, "$.model"),
        ({"prompt": "hi", "model": "a\n"}, "$.model"),
        ({"prompt": "hi", "model": "a b"}, "$.model"),
        ({"prompt": "hi", "model": "a" * 129}, "$.model"),
        ({"prompt": "hi", "system": 5}, "$.system"),
        ({"prompt": "hi", "system": "\x00"}, "$.system"),
        ({"prompt": "hi", "system_mode": "prepend"}, "$.system_mode"),
        ({"prompt": "hi", "effort": "huge"}, "$.effort"),
        ({"prompt": "hi", "files": "ff_a"}, "$.files"),
        ({"prompt": "hi", "files": [1]}, "$.files[0]"),
        ({"prompt": "hi", "timeout_secs": 4}, "$.timeout_secs"),
        ({"prompt": "hi", "timeout_secs": 3601}, "$.timeout_secs"),
        ({"prompt": "hi", "timeout_secs": True}, "$.timeout_secs"),
        ({"prompt": "hi", "agent": "demo"}, "$.agent"),
    ],
)
async def test_a_body_that_does_not_fit(body: Any, path: str) -> None:
    """422 naming the field; ``agent`` is none of ``/run``'s. Nothing is run."""
    service = await make_service()
    answer = await run(service, **body)
    assert_problem(answer, 422)
    assert [fault["path"] for fault in answer.json["faults"]] == [path]
    assert service.asked == []


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (ShuttingDown(5), 503, "5"),
        (RunsFull(10, 128), 503, "10"),
        (StoreUnavailable("disk full"), 503, "1"),
        (FilesUnavailable("disk full"), 503, "1"),
        (UnknownFileToken.at([1]), 422, None),
    ],
)
async def test_what_keeps_a_run_from_being_run(
    error: Exception, status: int, retry_after: str | None
) -> None:
    """Is a problem document, as everywhere; 503 says when to try again."""
    answer = await run(await make_service(fails_with=error), prompt="hi")
    assert_problem(answer, status)
    assert answer.header("retry-after") == retry_after


async def test_a_caller_who_leaves_cancels_the_run() -> None:
    """The handler is cancelled, and with it the request to the service."""
    service = await make_service(holds=True)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: run(service, prompt="hi"))
            await service.entered.wait()
            nursery.cancel_scope.cancel()
    assert service.was_cancelled
