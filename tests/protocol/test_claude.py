"""The one-shot interface of ``claude``: what goes in as an argument, and what its answers mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clawdforge.protocol.claude import (
    ARGUMENT_BYTES,
    judge_run,
    name_attachments,
    parse_result,
    plan_invocation,
)

START = ("-p", "--output-format", "json", "--no-session-persistence", "--model", "sonnet")
NESTED = "[" * 100_000


def plan(**fields: Any) -> Any:
    """An invocation with what the test does not care about filled in."""
    given = {"model": "sonnet", "system": None, "system_mode": "append", "effort": None, **fields}
    return plan_invocation(**given, system_file="/run/system.txt")


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({}, ()),
        ({"system": ""}, ()),
        ({"system": "be brief"}, ("--append-system-prompt=be brief",)),
        ({"system": "be brief", "system_mode": "replace"}, ("--system-prompt=be brief",)),
        ({"system": "--help"}, ("--append-system-prompt=--help",)),
        ({"system": "a\nb=c"}, ("--append-system-prompt=a\nb=c",)),
        ({"effort": "max"}, ("--effort", "max")),
    ],
)
def test_arguments(fields: dict[str, Any], more: tuple[str, ...]) -> None:
    """A caller's text is the value of a flag, never an argument of its own."""
    assert plan(**fields).arguments == START + more
    assert plan(**fields).system_text is None


@pytest.mark.parametrize(
    ("mode", "flag"), [("append", "--append-system-prompt"), ("replace", "--system-prompt")]
)
def test_a_long_system_text_goes_by_a_file(mode: str, flag: str) -> None:
    """Past the size that fits an argument, and counted in bytes, only a path is in the command."""
    text = "é" * (ARGUMENT_BYTES // 2 + 1)
    invocation = plan(system=text, system_mode=mode)
    assert invocation.arguments == (*START, f"{flag}-file=/run/system.txt")
    assert invocation.system_text == text
    assert plan(system=text[1:], system_mode=mode).system_text is None


def test_attachments_have_names_of_ours() -> None:
    """A number and an extension; nothing that a client wrote."""
    assert name_attachments([".txt", "", ".PDF"]) == [
        "attachment-1.txt",
        "attachment-2",
        "attachment-3.PDF",
    ]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("hello", "hello"),
        ("", ""),
        (" hello\n", " hello\n"),
        ('{"a": [1, null]}', {"a": [1, None]}),
        ('\n```json\n{"a": 1}\n```\n', {"a": 1}),
        ("```\n[1, 2]\n```", [1, 2]),
        ("~~~json\n[1]\n~~~", [1]),
        ("````md\n```\ncode\n```\n````", "```\ncode\n```"),
        ("```python\nprint(1)\n```", "print(1)"),
        ("```\n```", ""),
        ("42", 42),
        ("true", True),
        ('"quoted"', "quoted"),
        ('Here:\n```json\n{"a": 1}\n```', 'Here:\n```json\n{"a": 1}\n```'),
        ("```\na\n```\nand\n```\nb\n```", "```\na\n```\nand\n```\nb\n```"),
        ("```json\n{}", "```json\n{}"),
        ("NaN", "NaN"),
        ("[Infinity]", "[Infinity]"),
        ("1" * 5000, "1" * 5000),
        (NESTED, NESTED),
    ],
)
def test_a_result_is_json_if_it_parses(text: str, result: object) -> None:
    """Fences around the whole go; what is no JSON stays text."""
    assert parse_result(text) == result
    assert type(parse_result(text)) is type(result)


def answer(**fields: Any) -> str:
    """What the command prints."""
    return json.dumps(
        {"type": "result", "subtype": "success", "is_error": False, "result": "hi", **fields}
    )


@pytest.mark.parametrize(
    ("stdout", "stop_reason"),
    [
        (answer(stop_reason="end_turn"), "end_turn"),
        (answer(stop_reason="refusal"), "refusal"),
        (answer(stop_reason=None), "end_turn"),
        (answer(), "end_turn"),
        ('{"result": "hi"}', "end_turn"),
        ("a warning\n" + answer() + "\n", "end_turn"),
        (f'[{{"type": "system"}}, {answer()}]', "end_turn"),
    ],
)
def test_success(stdout: str, stop_reason: str) -> None:
    """A result object is a success, with or without talk around it."""
    verdict = judge_run(stdout, code=0, signal=None)
    assert (verdict.result, verdict.stop_reason, verdict.error) == ("hi", stop_reason, None)


@pytest.mark.parametrize(
    ("stdout", "code", "words"),
    [
        ("", 0, "printed no answer"),
        (" \n", 0, "printed no answer"),
        ("words", 0, "not the JSON"),
        ("[]", 0, "not the JSON"),
        ('{"type": "system"}', 0, "not the JSON"),
        (NESTED, 0, "not the JSON"),
        ('{"type": "result"}', 0, "has no result"),
        ('{"type": "result", "result": 5}', 0, "has no result"),
        ("", 3, "exit code 3"),
        ("words", 3, "exit code 3"),
        ("", 127, "could not be started"),
        (answer(), 3, "exit code 3: hi"),
        (answer(is_error=True), 0, "reports an error: hi"),
        (answer(is_error=True, result="Not logged in · Please run /login"), 1, "ANTHROPIC_API_KEY"),
        (answer(is_error=True, api_error_status=401, result="Bad key"), 1, "(401): Bad key"),
        (answer(is_error=True, api_error_status=429), 1, "limits the rate of requests (429)"),
        (answer(is_error=True, api_error_status=500), 1, "model API failed (500)"),
        (answer(is_error=True, api_error_status=529), 1, "overloaded (529)"),
        (answer(is_error=True, api_error_status=599), 1, "model API failed (599)"),
        (answer(is_error=True, result="API Error: Unable to connect"), 1, "could not be reached"),
        (answer(subtype="error_max_turns", result=None), 0, "number of steps"),
        (answer(subtype="error_new", result=None), 0, "reports error_new"),
    ],
)
def test_each_failure_says_what_it_is(stdout: str, code: int, words: str) -> None:
    """Whose fault it was can be read from the error, and none of them has a result."""
    verdict = judge_run(stdout, code=code, signal=None)
    assert verdict.error is not None
    assert words in verdict.error
    assert (verdict.result, verdict.stop_reason) == (None, "error")


def test_a_signal_is_named() -> None:
    """A command that was killed by somebody else says by what."""
    assert judge_run("", code=None, signal=9).error == "the command was ended by signal 9"
