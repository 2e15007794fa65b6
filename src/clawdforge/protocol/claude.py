"""The one-shot interface of the ``claude`` command: arguments out, its answer in. Pure.

``claude -p --output-format json`` reads the prompt from stdin and prints one JSON object. The rule:
*no text of a caller is ever a bare argument*: the prompt goes by stdin whatever its size, a system
text as ``--flag=value`` or by a file, and a model's name is matched before it gets here. Measured
with Claude Code 2.1.197; any command that speaks the same may take its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

ARGUMENT_BYTES: Final = 32 * 1024
"""A system text longer than this goes by a file: Linux takes 128 KiB in one argument."""

LOG_IN: Final = (
    "the claude command is not logged in: give the service ANTHROPIC_API_KEY or"
    " CLAUDE_CODE_OAUTH_TOKEN"
)
"""The answer to "please run /login", which nobody who reads it over HTTP can do."""

STATUSES: Final[Mapping[int, str]] = {
    400: "the model API refused the request",
    401: "the model API refused the service's credentials",
    403: "the model API does not allow this",
    404: "the model API does not know this model, or this account may not use it",
    413: "the prompt is too large for the model API",
    429: "the model API limits the rate of requests",
    500: "the model API failed",
    529: "the model API is overloaded",
}
"""What an error status of the model API means to the person who asked for a run."""

SUBTYPES: Final[Mapping[str, str]] = {
    "error_max_turns": "the model did not finish in the allowed number of steps",
    "error_max_budget_usd": "the run reached its budget",
    "error_during_execution": "the command failed while it worked",
}

_FENCED: Final = re.compile(
    r"(?P<fence>`{3,}|~{3,})[^\n`]*\n(?:(?P<inner>.*)\n)?(?P=fence)", re.DOTALL
)


# --- to the command -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Invocation:
    """How to start one run: arguments behind the command's own, and a file to write first.

    ``system_text`` is what has to be in the file that ``system_file`` names in the arguments; None
    when none is needed.
    """

    arguments: tuple[str, ...]
    system_text: str | None = None


def plan_invocation(
    *, model: str, system: str | None, system_mode: str, effort: str | None, system_file: str
) -> Invocation:
    """The arguments of a run; ``system_file`` is used when the system text is long."""
    arguments = [
        "-p",
        "--output-format",
        "json",
        "--no-session-persistence",  # a caller's texts do not stay in the command's home
        "--model",
        model,
    ]
    text = None
    if system:
        flag = "--system-prompt" if system_mode == "replace" else "--append-system-prompt"
        if len(system.encode(errors="surrogatepass")) > ARGUMENT_BYTES:
            arguments.append(f"{flag}-file={system_file}")
            text = system
        else:
            arguments.append(f"{flag}={system}")
    if effort:
        arguments += ["--effort", effort]
    return Invocation(arguments=tuple(arguments), system_text=text)


def name_attachments(suffixes: list[str]) -> list[str]:
    """The names of attached files in the run's working directory: ``attachment-1.txt``, ..."""
    return [f"attachment-{number}{suffix}" for number, suffix in enumerate(suffixes, 1)]


# --- from the command -----------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Verdict:
    """What a command's end means. ``error`` None is success; its words may still need cleaning."""

    result: Any = None
    stop_reason: str = "error"
    error: str | None = None


def judge_run(stdout: str, *, code: int | None, signal: int | None) -> Verdict:
    """Decide how a run went from what was printed and how the command ended."""
    answer = read_answer(stdout)
    if answer is None:
        return Verdict(error=_explain_silence(stdout, code, signal))
    if answer.get("is_error") or code != 0 or answer.get("subtype", "success") != "success":
        return Verdict(error=explain_error(answer, code))
    return _judge_success(answer)


def _explain_silence(stdout: str, code: int | None, signal: int | None) -> str:
    """Why there is no answer that could be read."""
    if signal is not None:
        return f"the command was ended by signal {signal}"
    if code == 127:
        return "the command could not be started"
    if code != 0:
        return f"the command ended with exit code {code} and no answer"
    if not stdout.strip():
        return "the command printed no answer"
    return "the command's answer is not the JSON that was expected"


def _judge_success(answer: Mapping[str, Any]) -> Verdict:
    if not isinstance(answer.get("result"), str):
        return Verdict(error="the command's answer has no result")
    reason = answer.get("stop_reason")
    return Verdict(
        result=parse_result(answer["result"]),
        stop_reason=reason if isinstance(reason, str) and reason else "end_turn",
    )


def read_answer(stdout: str) -> dict[str, Any] | None:
    """The command's result object: all of stdout, or its last line if there is talk before it."""
    for text in (stdout, *stdout.strip().split("\n")[-1:]):
        value = _load(text)
        if isinstance(value, list) and value:  # the verbose form: every message, the result last
            value = value[-1]
        if isinstance(value, dict) and value.get("type", "result") == "result":
            return value
    return None


def explain_error(answer: Mapping[str, Any], code: int | None) -> str:
    """One line on why a run failed: what kind of failure, then the command's own words."""
    words = answer.get("result")
    words = words.strip() if isinstance(words, str) else ""
    status = answer.get("api_error_status")
    subtype = answer.get("subtype")
    if status is None and "Not logged in" in words:
        return LOG_IN
    if isinstance(status, int):
        kind = f"{STATUSES.get(status, 'the model API failed')} ({status})"
    elif words.startswith("API Error"):
        kind = "the model API could not be reached"
    elif isinstance(subtype, str) and subtype != "success":
        kind = SUBTYPES.get(subtype, f"the command reports {subtype}")
    elif answer.get("is_error"):
        kind = "the command reports an error"
    else:
        kind = f"the command ended with exit code {code}"
    return f"{kind}: {words}" if words else kind


def parse_result(text: str) -> Any:  # noqa: ANN401 - whatever JSON the model wrote
    """The result without its code fences: as JSON if it parses, else as text."""
    bare = strip_fences(text)
    value = _load(bare)
    return bare if value is _NOT_JSON else value


def strip_fences(text: str) -> str:
    """The inside of ``text`` if all of it is one fenced block; else ``text`` as it is."""
    found = _FENCED.fullmatch(text.strip())
    if found is None:
        return text
    inner, fence = found["inner"] or "", found["fence"]
    closes_early = any(line.strip().startswith(fence) for line in inner.splitlines())
    return text if closes_early else inner


_NOT_JSON: Final[Any] = object()


def _load(text: str) -> Any:  # noqa: ANN401 - whatever JSON it is
    """The JSON value of ``text``, or ``_NOT_JSON``."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _refuse_constant(word: str) -> None:
    """NaN and the infinities are Python's, not JSON's (RFC 8259 §6)."""
    raise ValueError(word)
