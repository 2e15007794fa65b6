"""The API description: it is valid, complete, true to the code, and readable without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from clawdforge import errors
from clawdforge.config import DEMO, Config
from clawdforge.processes.runtime import node_binary
from clawdforge.web.app import OPERATIONS, make_edge
from clawdforge.web.bodies import Nothing
from clawdforge.web.documents import ASSETS, PAGE
from clawdforge.web.openapi import describe_api
from clawdforge.web.problems import KINDS
from clawdforge.web.wire import Reader
from tests.web.stage import ADMIN, ask, make_service

COMMITTED: Final = Path(__file__).parents[2] / "docs" / "openapi.json"
COMMAND: Final = "python -m clawdforge.web.openapi > docs/openapi.json"

API: Final = describe_api(OPERATIONS, Config())

NEVER_ANSWERED: Final = {
    errors.WrongConfiguration: "stops the start",
    errors.DataDirectoryBusy: "stops the start",
    errors.RuntimeNotInstalled: "is AgentNotStarted by the time that it reaches a route",
    errors.IdempotencyKeyTaken: "is answered by the service itself",
}
"""Errors with a status that no route is meant to answer with, and why."""


def answers() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every operation's id, status and response."""
    for methods in API["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                yield operation["operationId"], status, response


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value fits a schema of the description."""
    whole = {**schema, "components": API["components"]}
    return bool(OAS31Validator(whole).is_valid(value))


def test_the_committed_copy_is_up_to_date() -> None:
    """What is served by default is what is committed."""
    is_same = json.loads(COMMITTED.read_text("utf-8")) == API
    assert is_same, f"docs/openapi.json is behind the code; run: {COMMAND}"


def test_it_is_valid() -> None:
    """OpenAPI 3.1, by somebody else's rules."""
    assert list(OpenAPIV31SpecValidator(API).iter_errors()) == []


def test_every_operation_is_in_it_once() -> None:
    """By method and path, under an id of its own."""
    described = {
        (method.upper(), re.sub(r"\{(\w+)\}", r"<\1>", path))
        for path, methods in API["paths"].items()
        for method in methods
    }
    assert described == {(operation.method, operation.path) for operation in OPERATIONS}
    ids = [
        operation["operationId"]
        for methods in API["paths"].values()
        for operation in methods.values()
    ]
    assert len(set(ids)) == len(ids)


def test_every_link_leads_to_an_operation() -> None:
    """With parameters that it has."""
    by_id = {
        one["operationId"]: one for methods in API["paths"].values() for one in methods.values()
    }
    links = [link for _, _, response in answers() for link in response.get("links", {}).values()]
    assert links
    for link in links:
        target = by_id[link["operationId"]]
        names = {parameter["name"] for parameter in target.get("parameters", ())}
        assert set(link["parameters"]) <= names


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: f"{op.method} {op.path}")
def test_examples_of_requests_are_read(operation: Any) -> None:
    """Every route that takes a JSON body shows one, and it is what the route takes."""
    if operation.method != "POST" or operation.asks is Nothing or operation.is_form:
        return
    body = json.dumps(operation.example).encode()
    assert Reader().read_body(operation.asks, body)
    name = operation.asks.__name__
    assert fits({"$ref": f"#/components/schemas/{name}"}, operation.example)


def test_examples_of_answers_fit_their_schemas() -> None:
    """Each response shows what it promises."""
    count = 0
    for operation_id, status, response in answers():
        for media in response["content"].values():
            examples = [one["value"] for one in media.get("examples", {}).values()]
            examples += [media["example"]] if "example" in media else []
            for example in examples:
                assert fits(media["schema"], example), (operation_id, status, example)
                count += 1
    assert count > 100


def test_a_refusal_says_its_own_status() -> None:
    """A problem stands under the status that it carries."""
    for _, status, response in answers():
        for media_type, media in response["content"].items():
            if media_type == "application/problem+json":
                shown = [one["value"]["status"] for one in media["examples"].values()]
                assert set(shown) == {int(status)}


def test_every_refusal_is_described_somewhere() -> None:
    """Each class of error has its place, or a reason why none is ever answered."""
    shown = {
        problem["value"]["type"]
        for _, _, response in answers()
        for media in response["content"].values()
        for problem in media.get("examples", {}).values()
    }
    silent = {
        error for error, kind in KINDS.items() if f"urn:clawdforge:problem:{kind.slug}" not in shown
    }
    assert silent == set(NEVER_ANSWERED)


def test_waiting_and_authentication_are_described_as_headers() -> None:
    """401 promises WWW-Authenticate, 503 Retry-After."""
    for operation_id, status, response in answers():
        headers = response.get("headers", {})
        assert ("WWW-Authenticate" in headers) == (status == "401"), operation_id
        assert (headers.get("Retry-After", {}).get("required") is True) == (status == "503")


async def test_what_is_served_has_this_servers_limits() -> None:
    """Agents and the longest timeout are those of the settings."""
    config = Config(admin_token=ADMIN, agents={DEMO: Config().agents[DEMO]}, max_timeout_secs=99)
    answer = await ask(make_edge(await make_service(config=config)), "GET", "/openapi.json")
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    schemas = answer.json["components"]["schemas"]
    assert schemas["CreateSession"]["properties"]["agent"]["enum"] == ["demo", None]
    assert schemas["RunTurn"]["properties"]["timeout_secs"]["maximum"] == 99
    assert answer.json == describe_api(OPERATIONS, config)


# --- the page -------------------------------------------------------------------------------------


async def test_the_page_is_served_under_a_strict_policy() -> None:
    """Its own style and script are allowed by their hashes, its own server to be asked, no more."""
    answer = await ask(make_edge(await make_service()), "GET", "/docs")
    assert answer.status == 200
    assert answer.header("content-type") == "text/html; charset=utf-8"
    html = answer.body.decode()
    policy = answer.header("content-security-policy") or ""
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["connect-src"] == "'self'"
    for name in ("style", "script"):
        (inline,) = re.findall(rf"<{name}>(.*?)</{name}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert directives[f"{name}-src"] == f"'sha256-{digest}'"
    assert "unsafe" not in policy


def test_the_page_asks_nobody_else() -> None:
    """No address of another server, no markup made from data."""
    html = PAGE.body.decode()
    assert re.findall(r"https?:|//[a-z]+\.", html) == []
    assert re.findall(r"innerHTML|outerHTML|document\.write|eval\(|\son\w+=", html) == []


STUB: Final = """
const api = JSON.parse(require("fs").readFileSync(0, "utf8"));
class Element {
  constructor(name) { this.name = name; this.children = []; this.attributes = {}; }
  setAttribute(key, value) { this.attributes[key] = value; }
  append(...children) { this.children.push(...children); }
  get words() {
    const inside = this.children.map((one) => one.words ?? String(one));
    return (this.textContent ?? "") + inside.join(" ");
  }
}
const byId = { about: new Element("p"), routes: new Element("main") };
globalThis.document = {
  createElement: (name) => new Element(name),
  getElementById: (id) => byId[id],
};
globalThis.fetch = async () => ({ json: async () => api });
const write = require("fs").writeFileSync;
process.on("exit", () => write(1, byId.about.words + "\\n" + byId.routes.words));
"""


def test_the_page_shows_every_route_and_refusal() -> None:
    """Its script, run over the description, names each path, field and status."""
    script = STUB + (ASSETS / "page.js").read_text("utf-8").replace('"use strict";', "", 1)
    done = subprocess.run(
        [str(node_binary()), "-e", script],
        input=json.dumps(API),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    for path, methods in API["paths"].items():
        assert path in done.stdout
        for method, operation in methods.items():
            assert f"{method.upper()} {path}" in done.stdout
            assert operation["summary"] in done.stdout
    for word in ("file_token", "urn:clawdforge:problem:pool-full", "from 5 to 3600"):
        assert word in done.stdout
