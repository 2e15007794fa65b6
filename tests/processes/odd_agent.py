"""An ACP agent that says unusual things, for the tests of the acpx host. Standard library only.

A prompt's text names what to do: ``odd`` (valid lines that no serialiser would write), ``choose``
(a permission with two options of one kind), ``mute`` (close the output and live on). It offers
``session/resume`` and not ``session/load``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

ODD_LINES = (
    '{ "jsonrpc":"2.0", "method":"session/update","params":{"sessionId":"odd","update":{"sessionUpd'
    'ate":"of_a_new_kind","big":12345678901234567890,"one":1.0,"text":"\\u00e9é"}}}\n'
    '{"method":"session/update","jsonrpc":"2.0","params":{"update":{"sessionUpdate":"agent_message_'
    'chunk","content":{"type":"text","text":"hi"}},"sessionId":"odd"} }'
).splitlines()
OPTIONS = [
    {"optionId": name, "name": name, "kind": "allow_always"} for name in ("here", "everywhere")
]


def say(line: str) -> None:
    """Write one line."""
    sys.stdout.buffer.write(line.encode() + b"\n")
    sys.stdout.buffer.flush()


def hear() -> dict[str, Any]:
    """Read one message; the end of input is the end."""
    line = sys.stdin.buffer.readline()
    message: dict[str, Any] = json.loads(line) if line else sys.exit(0)
    return message


def prompt(text: str) -> dict[str, Any]:
    """One turn."""
    if text == "odd":
        for line in ODD_LINES:
            say(line)
    elif text == "mute":
        os.close(1)
        time.sleep(600)
    else:
        tool_call = {"toolCallId": "t", "title": "choose"}
        params = {"sessionId": "odd", "toolCall": tool_call, "options": OPTIONS}
        method = "session/request_permission"
        say(json.dumps({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}))
        chosen = json.dumps(hear()["result"]["outcome"])
        content = {"type": "text", "text": chosen}
        update = {"sessionUpdate": "agent_message_chunk", "content": content}
        params = {"sessionId": "odd", "update": update}
        say(json.dumps({"jsonrpc": "2.0", "method": "session/update", "params": params}))
    return {"stopReason": "end_turn"}


def main() -> None:
    """Answer requests, one after the other."""
    while True:
        request = hear()
        result: dict[str, Any] = {}
        if request["method"] == "initialize":
            result = {
                "protocolVersion": 1,
                "agentCapabilities": {"sessionCapabilities": {"resume": {}}},
            }
        elif request["method"] == "session/new":
            result = {"sessionId": "odd"}
        elif request["method"] == "session/prompt":
            result = prompt(request["params"]["prompt"][0]["text"])
        if "id" in request:
            say(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}))


if __name__ == "__main__":
    main()
