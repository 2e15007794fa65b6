"""The client's side of ``clawdforge demo``: it talks to the server, shows what comes, stops it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import threading
from collections.abc import Iterator
from typing import Any

import click

from clawdforge.cli.client import Client, RefusedError
from clawdforge.cli.proc import list_tree
from clawdforge.config import Config
from clawdforge.protocol.acp import text_of

FIRST = """\
My name is Ada, and I keep bees.
pace: 0.05
think: She keeps bees.
tool: look at the hives
say: Nice to meet you, Ada. How many hives are there in your garden?"""

TURNS = (FIRST, "What did I say?")

RUN = 'json: ["red", "green", "blue"]'
"""The demo command answers with that JSON in a fenced block, as models like to."""


class Guide:
    """The client's side of the demonstration, in a thread of its own."""

    def __init__(self, config: Config, *, is_kept: bool) -> None:
        self.exit_code = 0
        self._config = config
        self._is_kept = is_kept
        self._thread: threading.Thread | None = None

    def start(self, url: str) -> None:
        """Called when the server takes requests."""
        self._thread = threading.Thread(target=self._run, args=(url,), daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """After the server has ended: say what is left of it."""
        left = list(list_tree())
        _show("What is left of it", left or ["nothing"])
        if left:
            self.exit_code = 1

    def _run(self, url: str) -> None:
        try:
            _show("A server", [url])
            admin = Client(url, str(self._config.admin_token))
            minted = admin.call("POST", "/admin/tokens", {"name": "demo"})
            app = Client(url, minted["token"])
            self._talk(app)
            if self._is_kept:
                _show("Your turn (Ctrl-C ends it)", curl_lines(url, minted["token"]))
                return
        except (RefusedError, OSError, KeyError, ValueError) as error:
            click.echo(f"clawdforge: the demo failed: {error}", err=True)
            self.exit_code = 1
        os.kill(os.getpid(), signal.SIGTERM)

    def _talk(self, app: Client) -> None:
        """Run once; then open a session, run the turns, show the processes, close it."""
        _show("A one-shot run", [f"> {RUN}", json.dumps(app.call("POST", "/run", {"prompt": RUN}))])
        session = app.call("POST", "/sessions", {"agent": "demo"})
        _show("A session on the agent demo", [session["session_id"]])
        for number, prompt in enumerate(TURNS, 1):
            _show(f"Turn {number}", [f"> {prompt.splitlines()[0]}"])
            self._follow(app.stream(f"/sessions/{session['session_id']}/turn", {"prompt": prompt}))
        _show("Its processes", list(list_tree()))
        app.call("DELETE", f"/sessions/{session['session_id']}")
        _show("Its processes after closing", list(list_tree()) or ["none"])

    def _follow(self, events: Iterator[tuple[str, dict[str, Any]]]) -> None:
        """Show the agent's text as it comes, and in the end how the turn went."""
        click.echo("  ", nl=False)
        for kind, data in events:
            if kind == "acp":
                click.echo(text_of((data,)).replace("\n", "\n  "), nl=False)
            elif kind == "result":
                click.echo(f"\n  ({data['stop_reason']}, {data['duration_ms']} ms)")


def curl_lines(url: str, token: str) -> list[str]:
    """The same by hand."""
    header = shlex.quote(f"Authorization: Bearer {token}")
    create = shlex.quote('{"agent": "demo"}')
    turn = shlex.quote('{"prompt": "Good morning"}')
    run = shlex.quote(json.dumps({"prompt": RUN}))
    return [
        f"curl -s {url}/healthz",
        f"curl -s {url}/run -H {header} --json {run}",
        f"curl -s {url}/sessions -H {header} --json {create}",
        f"curl -s {url}/sessions/SESSION_ID/turn -H {header} --json {turn}",
        f"curl -sN {url}/sessions/SESSION_ID/events -H {header}",
        f"curl -s {url}/sessions -H {header}",
        f"curl -s -X DELETE {url}/sessions/SESSION_ID -H {header}",
    ]


def _show(title: str, lines: list[str]) -> None:
    """One paragraph in the terminal."""
    click.echo(click.style(f"\n{title}", bold=True))
    for line in "\n".join(lines).splitlines():
        click.echo(f"  {line}")
