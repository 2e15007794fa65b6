"""What a turn costs over the bare pipe: the same agent, the same prompt, turn by turn in one run.

Run it as ``python -m bench.turn_overhead``. Exit code 1 when the median of a turn through HTTP,
actor, warden and acpx host lies more than 50 ms above that of the pipe.
"""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx2 as httpx

from clawdforge.config import Config
from clawdforge.processes.lodging import DEMO_AGENT
from clawdforge.processes.runtime import ensure_runtime

TURNS = 100
WARM_UP = 5
LIMIT_MS = 50.0
PROMPT = "say: hello"


class Pipe:
    """The agent with nobody in between."""

    def __init__(self, folder: Path) -> None:
        env = {"PATH": os.environ["PATH"], "DEMO_AGENT_STATE": str(folder)}
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(DEMO_AGENT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            cwd=folder,
        )
        self._call("initialize", protocolVersion=1, clientCapabilities={})
        self._session = self._call("session/new", cwd=str(folder), mcpServers=[])["sessionId"]

    def turn(self) -> None:
        """One prompt to its stop reason."""
        blocks = [{"type": "text", "text": PROMPT}]
        done = self._call("session/prompt", sessionId=self._session, prompt=blocks)
        assert done["stopReason"] == "end_turn"

    def close(self) -> None:
        """End the agent by the end of its input."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def _call(self, method: str, **params: object) -> dict[str, str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        while True:
            message = json.loads(self.process.stdout.readline())
            if "id" in message and "method" not in message:
                result: dict[str, str] = message["result"]
                return result


class Service:
    """The agent behind ``clawdforge serve``."""

    def __init__(self, folder: Path) -> None:
        admin = secrets.token_urlsafe(24)
        runtime = Config().runtime_dir
        ensure_runtime(runtime, "acpx", lambda line: print(line, file=sys.stderr))
        env = {
            "PATH": os.environ["PATH"],
            "CLAWDFORGE_BIND": "127.0.0.1:0",
            "CLAWDFORGE_DATA_DIR": str(folder),
            "CLAWDFORGE_RUNTIME_DIR": str(runtime),
            "CLAWDFORGE_ADMIN_TOKEN": admin,
        }
        command = [sys.executable, "-m", "clawdforge", "serve"]
        self.process = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        url = self.process.stdout.readline().split()[-1]
        self.client = httpx.Client(base_url=url, timeout=60)
        token = self._post("/admin/tokens", admin, name="bench")["token"]
        self._turn = f"/sessions/{self._post('/sessions', token, agent='demo')['session_id']}/turn"

    def turn(self) -> None:
        """One prompt to its stop reason."""
        answer = self.client.post(self._turn, json={"prompt": PROMPT}).raise_for_status().json()
        assert answer["stop_reason"] == "end_turn"

    def close(self) -> None:
        """Stop the server."""
        self.client.close()
        self.process.terminate()
        self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _post(self, path: str, token: str, **body: object) -> dict[str, str]:
        self.client.headers["authorization"] = f"Bearer {token}"
        answer: dict[str, str] = self.client.post(path, json=body).raise_for_status().json()
        return answer


def time_ms(turn: Callable[[], None]) -> float:
    """How long one turn takes."""
    began = time.perf_counter()
    turn()
    return (time.perf_counter() - began) * 1000


def describe(name: str, times: list[float]) -> str:
    """Median and spread in one line."""
    deciles = statistics.quantiles(times, n=20)
    return f"{name:8} median {statistics.median(times):7.2f} ms   p95 {deciles[18]:7.2f} ms"


def main() -> int:
    """Measure, print, judge."""
    with tempfile.TemporaryDirectory() as folder:
        (pipe_folder := Path(folder) / "pipe").mkdir()
        pipe, service = Pipe(pipe_folder), Service(Path(folder) / "service")
        try:
            for _ in range(WARM_UP):
                pipe.turn()
                service.turn()
            pairs = [(time_ms(pipe.turn), time_ms(service.turn)) for _ in range(TURNS)]
        finally:
            service.close()
            pipe.close()
    bare, served = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    above = statistics.median(served) - statistics.median(bare)
    print(f"{TURNS} turns each, one client, interleaved")
    print(describe("pipe", bare))
    print(describe("service", served))
    print(f"above the pipe: {above:.2f} ms (limit {LIMIT_MS:g} ms)")
    return 0 if above <= LIMIT_MS else 1


if __name__ == "__main__":
    sys.exit(main())
