"""A stand-in for the ``claude`` command on stream-json, for a peer that drives that.

Standard library only. It answers control requests and gives each turn one word, as the demo agent
does to ``say: hello``.
"""

from __future__ import annotations

import json
import sys

USAGE = {"input_tokens": 1, "output_tokens": 1}
ABOUT = {"session_id": "bench", "uuid": "0", "parent_tool_use_id": None}


def emit(**message: object) -> None:
    """Write one message."""
    sys.stdout.write(json.dumps({**ABOUT, **message}) + "\n")
    sys.stdout.flush()


def turn() -> None:
    """One answer, streamed and whole."""
    text = {"type": "text", "text": "hello"}
    message = {"id": "m", "model": "bench", "type": "message", "role": "assistant", "usage": USAGE}
    block = {"type": "content_block_start", "index": 0, "content_block": {**text, "text": ""}}
    delta = {"type": "text_delta", "text": "hello"}
    ending = {"stop_reason": "end_turn"}
    for event in (
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
        block,
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ending, "usage": USAGE},
        {"type": "message_stop"},
    ):
        emit(type="stream_event", event=event)
    emit(type="assistant", message={**message, **ending, "content": [text]})
    numbers = {"duration_ms": 1, "duration_api_ms": 1, "num_turns": 1, "total_cost_usd": 0.0}
    emit(type="result", subtype="success", is_error=False, result="hello", usage=USAGE, **numbers)


def main() -> None:
    """Answer until the input ends."""
    if "--version" in sys.argv or "-v" in sys.argv:
        print("2.1.0 (Claude Code)")
        return
    emit(type="system", subtype="init", cwd="/", tools=[], mcp_servers=[], model="bench")
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "user":
            turn()
        elif message["type"] == "control_request":
            is_start = message["request"]["subtype"] == "initialize"
            answer = {"commands": [], "output_style": "default"} if is_start else {}
            response = {"subtype": "success", "request_id": message["request_id"]}
            emit(type="control_response", response={**response, "response": answer})


if __name__ == "__main__":
    main()
