"""The demo command: what ``claude -p`` is to ``/run``, scripted. Standard library only.

It takes the arguments of ``claude -p --output-format json``, reads the prompt from stdin and prints
one result object, so that ``/run`` can be tried without an account. Run it as
``python -I -S demo_cli.py -p --output-format json --model M``.

A prompt line that is a command word and a colon is obeyed; any other line is quoted back.

=============  =====================================================================================
command        what it does
=============  =====================================================================================
say: TEXT      answers TEXT
json: VALUE    answers VALUE in a fenced block, as models like to
read: NAME     answers the text of that file in the working directory
options        answers its options as JSON: model, system texts, effort
cwd            answers its working directory's name and what is in it, as JSON
env: NAME      answers the value of that variable
sleep: SECS    waits
fork: SECS     starts a grandchild in a session of its own that lives SECS
warn: TEXT     writes TEXT to stderr
fail: TEXT     answers with an error that says TEXT
status: N      answers with the model API's error status N
crash: CODE    exits at once with CODE and no answer
garbage        prints what is no JSON, and no answer
flood: BYTES   prints that many bytes, and no answer
=============  =====================================================================================
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

KIB: Final = 1024


class Ended(Exception):
    """Ends the run early: the fields of the answer, or None for no answer; and the exit code."""

    def __init__(self, answer: dict[str, Any] | None, code: int) -> None:
        super().__init__()
        self.answer = answer
        self.code = code


def parse_options(arguments: list[str]) -> argparse.Namespace:
    """The options of ``claude`` that a run uses. Any other argument is an error, as it is there."""
    parser = argparse.ArgumentParser("claude", allow_abbrev=False)
    parser.add_argument("-p", "--print", action="store_true", required=True)
    parser.add_argument("--output-format", choices=["json"], required=True)
    parser.add_argument("--no-session-persistence", action="store_true")
    parser.add_argument("--model", default="sonnet")
    parser.add_argument("--append-system-prompt")
    parser.add_argument("--append-system-prompt-file", type=Path)
    parser.add_argument("--system-prompt")
    parser.add_argument("--system-prompt-file", type=Path)
    parser.add_argument("--effort", choices=["low", "medium", "high", "xhigh", "max"])
    return parser.parse_args(arguments)


def system_text(given: str | None, file: Path | None) -> str | None:
    """A system text, wherever it came from."""
    return file.read_text() if file is not None else given


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """What the caller asked for besides the prompt."""
    return {
        "model": options.model,
        "append": system_text(options.append_system_prompt, options.append_system_prompt_file),
        "replace": system_text(options.system_prompt, options.system_prompt_file),
        "effort": options.effort,
    }


def obey(line: str, options: argparse.Namespace) -> str | None:
    """What one line of the prompt adds to the answer. Raises Ended."""
    word, _, rest = line.partition(":")
    argument = rest.strip()
    match word.lower():
        case "say":
            said = argument
        case "json":
            said = f"```json\n{argument}\n```"
        case "read":
            said = Path(Path(argument).name).read_text()
        case "options":
            said = json.dumps(describe(options))
        case "cwd":
            here = Path.cwd()
            said = json.dumps([here.name, sorted(entry.name for entry in here.iterdir())])
        case "env":
            said = os.environ.get(argument, "")
        case other:
            return None if act(other, argument) else f"You said: {line}"
    return said


def act(word: str, argument: str) -> bool:
    """Obey a command that answers nothing; False when it is none. Raises Ended."""
    match word:
        case "sleep":
            time.sleep(float(argument))
        case "fork":
            nap = [sys.executable, "-I", "-S", "-c", f"import time; time.sleep({float(argument)})"]
            subprocess.Popen(nap, start_new_session=True)
        case "warn":
            print(argument, file=sys.stderr, flush=True)  # noqa: T201 - a command's stderr
        case "fail":
            raise Ended({"is_error": True, "result": argument}, 1)
        case "status":
            words = f"API Error: {argument}"
            raise Ended({"is_error": True, "api_error_status": int(argument), "result": words}, 1)
        case "crash":
            raise Ended(None, int(argument))
        case "garbage":
            print("this is not JSON")  # noqa: T201 - a command's stdout
            raise Ended(None, 0)
        case "flood":
            for _ in range(int(argument) // KIB):
                sys.stdout.write("x" * (KIB - 1) + "\n")
            raise Ended(None, 0)
        case _:
            return False
    return True


def main(arguments: list[str]) -> int:
    """One run."""
    began_at = time.monotonic()
    options = parse_options(arguments)
    answer: dict[str, Any] = {"type": "result", "subtype": "success", "is_error": False}
    code = 0
    try:
        said = [obey(line.strip(), options) for line in sys.stdin.read().splitlines() if line]
        answer |= {"result": "\n".join(filter(None, said)), "stop_reason": "end_turn"}
    except Ended as ended:
        if ended.answer is None:
            return ended.code
        answer |= ended.answer
        code = ended.code
    answer["duration_ms"] = round((time.monotonic() - began_at) * 1000)
    print(json.dumps(answer))  # noqa: T201 - a command's stdout
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
