"""The golden files: what the given contract promises, route by route, written by hand.

``tests/golden/ROUTE.STATUS.json`` says who asks for what, after what, and the answer's status,
headers and body: its exact keys, and the type or value of each. The words for types are in
``TYPES``; ``true`` and ``false`` are themselves, ``{"exactly": x}`` is ``x``, a list of one shape
is a list in which each element has it. They change with the contract, never with the code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import attrs
import httpx2 as httpx
import pytest
import trio

from clawdforge.config import Config
from clawdforge.domain.runs import RunResult
from clawdforge.testing import FakeLauncher, RunningServer, running_server
from clawdforge.testing.fake_runner import FakeRunner
from clawdforge.web.app import OPERATIONS
from tests.waiting import wait_until

FOLDER: Final = Path(__file__).parents[1] / "golden"
GOLDEN: Final = sorted(FOLDER.glob("*.json"))

TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "text": lambda value: isinstance(value, str) and value != "",
    "text or empty": lambda value: isinstance(value, str),
    "text or null": lambda value: value is None or isinstance(value, str),
    "integer": lambda value: type(value) is int,
    "boolean": lambda value: type(value) is bool,
    "object": lambda value: isinstance(value, dict),
    "list": lambda value: isinstance(value, list),
}


def misfits(shape: Any, value: Any, path: str = "$") -> Iterator[str]:
    """Where a value is not as its golden shape says."""
    if isinstance(shape, dict) and set(shape) != {"exactly"}:
        yield from _misfits_of_object(shape, value, path)
    elif isinstance(shape, list):
        for index, element in enumerate(value if isinstance(value, list) and value else [None]):
            yield from misfits(shape[0], element, f"{path}[{index}]")
    elif isinstance(shape, str):
        if not TYPES[shape](value):
            yield f"{path} is {value!r}, no {shape}"
    else:
        exactly = shape["exactly"] if isinstance(shape, dict) else shape
        if value != exactly or type(value) is not type(exactly):
            yield f"{path} is {value!r}, not {exactly!r}"


def _misfits_of_object(shape: dict[str, Any], value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict) or set(value) != set(shape):
        keys = sorted(value) if isinstance(value, dict) else type(value).__name__
        yield f"{path} has {keys}, not {sorted(shape)}"
        return
    for key, inner in shape.items():
        yield from misfits(inner, value[key], f"{path}.{key}")


# --- what goes before -----------------------------------------------------------------------------

CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "small bodies": {"max_body_bytes": 1024},
    "small uploads": {"max_upload_bytes": 1024},
    "a full pool": {"max_live_sessions": 0},
    "short timeouts": {"turn_timeout_secs": 1, "cancel_grace_secs": 0.2},
    "turns wait as many as may": {"turn_queue": 0, "cancel_grace_secs": 0.2},
}


@attrs.define
class Scene:
    """A server, and what has happened on it so far."""

    server: RunningServer
    launcher: FakeLauncher
    runner: FakeRunner
    app: httpx.Client
    nobody: httpx.Client
    cleanup: ExitStack
    names: dict[str, str] = attrs.field(factory=dict)

    def session(self, client: httpx.Client | None = None) -> None:
        body = {"agent": "demo", "meta": {"room": "kitchen"}}
        answer = (client or self.app).post("/sessions", json=body).raise_for_status()
        self.names["session"] = answer.json()["session_id"]

    def another_apps_session(self) -> None:
        with client_of(self.server, self.server.mint("garage")) as client:
            self.session(client)

    def file(self) -> None:
        answer = self.app.post("/files", files={"file": ("a.txt", b"hello")}).raise_for_status()
        self.names["file"] = answer.json()["file_token"]

    def turn(self) -> None:
        body = {"prompt": "hello"}
        self.app.post(f"/sessions/{self.names['session']}/turn", json=body).raise_for_status()

    def close(self) -> None:
        self.app.delete(f"/sessions/{self.names['session']}").raise_for_status()

    def busy(self) -> None:
        """A turn is at work that does not end, and none may wait."""
        self.launcher.hold_turns()
        threads = self.cleanup.enter_context(ThreadPoolExecutor(1))
        target = f"/sessions/{self.names['session']}/turn"
        threads.submit(self.app.post, target, json={"prompt": "hello"})
        self.cleanup.callback(self.close)
        wait_until(lambda: self.launcher.agents[0].prompts, "the turn is at work")

    def drain(self) -> None:
        start = self.server._service.start_drain
        trio.from_thread.run_sync(start, trio_token=self.server._token)


GIVEN: Final[dict[str, Callable[[Scene], object]]] = {
    "session": Scene.session,
    "another app's session": Scene.another_apps_session,
    "file": Scene.file,
    "a turn": Scene.turn,
    "it is closed": Scene.close,
    "turns wait as many as may": Scene.busy,
    "draining": Scene.drain,
    "agents that do not start": lambda scene: setattr(scene.launcher, "starting", "fails"),
    "a run that answers JSON": lambda scene: setattr(
        scene.runner, "next_result", RunResult(True, {"colours": ["red"]}, "", "", 7, "end_turn")
    ),
    "a run that fails": lambda scene: setattr(
        scene.runner,
        "next_result",
        RunResult(False, None, "", "it said no", 7, "error", "the command failed"),
    ),
}


def client_of(server: RunningServer, token: str | None) -> httpx.Client:
    """A client with that token, or with none."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.Client(
        base_url=server.base_url, headers=headers, timeout=30, verify=False
    )  # no TLS


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_answer_is_as_the_contract_says(path: Path) -> None:
    """Status, headers, keys and types: no more and no less."""
    golden = json.loads(path.read_text("utf-8"))
    launcher, runner = FakeLauncher(), FakeRunner()
    fields = {
        key: value for word in golden["given"] for key, value in CONFIGS.get(word, {}).items()
    }
    with (
        running_server(Config(**fields), launcher=launcher, runner=runner) as server,
        client_of(server, server.mint("kitchen")) as app,
        client_of(server, None) as nobody,
        ExitStack() as cleanup,
    ):
        scene = Scene(server, launcher, runner, app, nobody, cleanup)
        for word in golden["given"]:
            if word in GIVEN:
                GIVEN[word](scene)
        answer = ask(scene, golden["as"], golden["request"])
        assert answer.status_code == golden["status"], answer.text
        for name, shape in golden["headers"].items():
            given = answer.headers[name]
            assert given.isdigit() if shape == "integer" else given == shape
        assert list(misfits(golden["body"], answer.json())) == []


def ask(scene: Scene, who: str, request: dict[str, Any]) -> httpx.Response:
    """Ask what the golden file asks, in the name of whom it says."""
    request = json.loads(_fill(json.dumps(request), scene.names))
    target = request["path"]
    fields: dict[str, Any] = {"headers": request.get("headers", {})}
    if form := request.get("form"):
        name, text = form.pop("file")
        fields |= {"files": {"file": (name, text.encode())}, "data": form}
    elif "json" in request:
        fields["json"] = request["json"]
    server = scene.server
    if who == "app":
        return scene.app.request(request["method"], target, **fields)
    if who == "nobody":
        return scene.nobody.request(request["method"], target, **fields)
    elsewhere = who == "an app of another address"
    token = server.mint("attic", ["10.0.0.0/8"]) if elsewhere else server.admin_token
    with client_of(server, token) as client:
        return client.request(request["method"], target, **fields)


def _fill(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def test_every_route_has_golden_files() -> None:
    """One for its success, one for each status that the contract's table of refusals gives it."""
    asked: dict[tuple[str, str], set[int]] = {}
    for path in GOLDEN:
        golden = json.loads(path.read_text("utf-8"))
        target = golden["request"]["path"].partition("?")[0]
        key = (golden["request"]["method"], target)
        asked.setdefault(key, set()).add(golden["status"])
        assert path.stem.partition(".")[2].startswith(str(golden["status"]))
    for operation in OPERATIONS:
        if operation.path not in GIVEN_BY_THE_CONTRACT:
            continue
        target = operation.path.replace("<session_id>", "{session}").replace("<name>", "kitchen")
        statuses = asked[operation.method, target]
        assert 200 in statuses, operation.path
        assert operation.gate == "open" or 401 in statuses, operation.path
        assert operation.gate != "admin" or 403 in statuses, operation.path


GIVEN_BY_THE_CONTRACT: Final = {
    "/healthz",
    "/run",
    "/files",
    "/sessions",
    "/sessions/<session_id>",
    "/sessions/<session_id>/turn",
    "/admin/tokens",
    "/admin/tokens/<name>",
}


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        (True, False),
        (True, 1),
        ("text", ""),
        ("integer", True),
        ("integer", 1.0),
        ("boolean", 1),
        ({"exactly": 1}, True),
        ({"exactly": None}, 0),
        ({"a": "text"}, {"a": "x", "b": "y"}),
        ({"a": "text"}, {}),
        ({"a": "text"}, []),
        ({"a": "text"}, None),
        (["text"], []),
        (["text"], ["x", 1]),
        (["text"], "x"),
    ],
)
def test_a_misfit_is_seen(shape: Any, value: Any) -> None:
    """The comparison itself lets nothing through."""
    assert list(misfits(shape, value))
