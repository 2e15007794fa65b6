"""The API description (OpenAPI 3.1), made from the operations: what is served is what is said.

Bodies, answers, limits and refusals are read from the values that the routes themselves use; the
refusals' documents are made by :mod:`.problems` from examples of the errors. Pure. The committed
copy is written with ``python -m clawdforge.web.openapi > docs/openapi.json``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from clawdforge import __version__, errors
from clawdforge.config import Config
from clawdforge.web.answers import Page, to_json
from clawdforge.web.bodies import Nothing, narrow
from clawdforge.web.operations import Operation
from clawdforge.web.problems import CONTENT_TYPE, OUR_BUG, Problem, describe_error, describe_status
from clawdforge.web.schemas import COMPONENTS, Schema, Schemas, plain_words, required

ABOUT: Final = """\
clawdforge hosts coding agents for the apps of a house, lab or company.

Times are Unix seconds (`*_at`), spans are seconds (`*_secs`) or milliseconds (`*_ms`). In a
request, `null` for an optional field is the field left out; unknown fields are refused. No text
may hold a NUL character or half a surrogate pair. Every refusal is a problem document (RFC 9457)
with `ok: false`. A path that is no route answers 404, a method that a route does not take 405 with
`Allow`; both are problem documents too.
"""

SECURITY: Final[Mapping[str, Schema]] = {
    "app": {
        "type": "http",
        "scheme": "bearer",
        "description": "The token of an app, `cf_…`, as it was minted.",
    },
    "admin": {
        "type": "http",
        "scheme": "bearer",
        "description": "The secret in `CLAWDFORGE_ADMIN_TOKEN`.",
    },
}

PATH_PARAMETERS: Final[Mapping[str, tuple[str, Schema]]] = {
    "session_id": ("The session.", {"type": "string", "pattern": "^[A-Za-z0-9_-]{16,128}$"}),
    "name": ("The token's name.", {"type": "string", "pattern": "^[a-z0-9_-]{1,64}$"}),
    "turn_index": ("The turn's number in its session.", {"type": "integer", "minimum": 1}),
    "request_id": ("The permission request.", {"type": "string", "minLength": 1}),
}

KEY_PARAMETER: Final[Schema] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Your own name for this request: sent again with the same fields, it gets the"
    " same answer, and nothing is done twice.",
    # Spaces at either end are no part of a header's value (RFC 9110, 5.5).
    "schema": {"type": "string", "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}

FAULT: Final[Schema] = {
    "type": "object",
    "description": "One thing wrong with a request: where, and what.",
    "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
    "required": ["path", "message"],
    "additionalProperties": False,
}

MEMBERS: Final[Mapping[str, Schema]] = {
    "faults": {"type": "array", "items": {"$ref": COMPONENTS + "Fault"}},
    "turn_index": {"type": "integer", "minimum": 1},
    "stop_reason": {"type": "string"},
    "duration_ms": {"type": "integer", "minimum": 0},
}
"""The members that some problems have besides the common ones."""

SHAPES: Final[Mapping[tuple[str, ...], str]] = {
    (): "Problem",
    ("faults",): "InvalidRequestProblem",
    ("duration_ms", "stop_reason", "turn_index"): "TurnProblem",
}
"""The names of the schemas of problems, by those members, sorted."""

PROBLEM: Final[Mapping[str, Schema]] = {
    "type": {"type": "string", "pattern": "^urn:clawdforge:problem:[a-z0-9-]+$"},
    "title": {"type": "string"},
    "status": {"type": "integer", "minimum": 400, "maximum": 599},
    "detail": {"type": "string"},
    "instance": {"type": "string", "description": "The route, never the ids in its path."},
    "ok": {"type": "boolean", "const": False},
}
"""The members that every problem has."""

HEADERS: Final[Mapping[str, Schema]] = {
    "WWW-Authenticate": {"schema": {"type": "string", "const": "Bearer"}, "required": True},
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 0},
        "required": True,
    },
    "Connection": {"schema": {"type": "string"}},
}


def describe_api(operations: Sequence[Operation], config: Config) -> Schema:
    """The whole description, with the limits of these settings."""
    schemas = Schemas(narrow(config))
    schemas.components["Fault"] = dict(FAULT)
    paths: dict[str, Schema] = {}
    for operation in operations:
        path = re.sub(r"<(\w+)>", r"{\1}", operation.path)
        described = _operation(operation, config, schemas)
        paths.setdefault(path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": "clawdforge", "version": __version__, "description": ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "securitySchemes": {name: dict(scheme) for name, scheme in SECURITY.items()},
        },
    }


def _operation(operation: Operation, config: Config, schemas: Schemas) -> Schema:
    made: Schema = {
        "operationId": operation.handle.__name__,
        "summary": operation.summary,
        "description": plain_words(operation.handle.__doc__),
        "tags": [operation.path.split("/")[1]],
        "security": [] if operation.gate == "open" else [{operation.gate: []}],
    }
    if parameters := [*_path_parameters(operation), *_query_parameters(operation, schemas)]:
        made["parameters"] = parameters
    if operation.method == "POST":
        made["requestBody"] = _request_body(operation, schemas)
    made["responses"] = _responses(operation, config, schemas)
    return made


# --- what is asked --------------------------------------------------------------------------------


def _path_parameters(operation: Operation) -> Iterator[Schema]:
    for name in re.findall(r"<(\w+)>", operation.path):
        description, schema = PATH_PARAMETERS[name]
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": description,
            "schema": dict(schema),
        }


def _query_parameters(operation: Operation, schemas: Schemas) -> Iterator[Schema]:
    if operation.takes_key:
        yield KEY_PARAMETER
    for name, words in operation.headers.items():
        schema = {"type": "string"}
        yield {"name": name, "in": "header", "description": words, "schema": schema}
    if operation.method == "POST":
        return
    for name, schema in schemas.fields(operation.asks).items():
        is_required = name in required(operation.asks)
        yield {"name": name, "in": "query", "required": is_required, "schema": schema}


def _request_body(operation: Operation, schemas: Schemas) -> Schema:
    media_type = "multipart/form-data" if operation.is_form else "application/json"
    if operation.is_form:
        schema = {
            "type": "object",
            "properties": schemas.fields(operation.asks),
            "required": required(operation.asks),
            "additionalProperties": False,
        }
    else:
        name = operation.asks.__name__
        schemas.components.setdefault(name, schemas.body(operation.asks))
        schema = {"$ref": COMPONENTS + name}
    media: Schema = {"schema": schema}
    if operation.example is not None:
        media["example"] = dict(operation.example)
    is_required = operation.asks is not Nothing and not operation.is_body_optional
    return {"required": is_required, "content": {media_type: media}}


# --- what is answered -----------------------------------------------------------------------------


def _success(operation: Operation, schemas: Schemas) -> Schema:
    answer = operation.answer
    if isinstance(answer, Page):
        content: Schema = {answer.content_type.partition(";")[0]: {"schema": {"type": "string"}}}
    elif isinstance(answer, Mapping):
        content = {"application/json": {"schema": {"type": "object"}}}
    else:
        content = {"application/json": _json(answer, schemas)}
    for media_type, description in operation.also_answers.items():
        content[media_type] = {"schema": {"type": "string", "description": description}}
    made: Schema = {"description": "It worked.", "content": content}
    if operation.links:
        made["links"] = {
            link.operation_id: {
                "operationId": link.operation_id,
                "parameters": dict(link.parameters),
                **({"requestBody": dict(link.body)} if link.body is not None else {}),
            }
            for link in operation.links
        }
    return made


def _responses(operation: Operation, config: Config, schemas: Schemas) -> dict[str, Schema]:
    responses = {
        "200": _success(operation, schemas),
        **_refusals(operation, config, schemas),
    }
    for status, answer in operation.failures.items():
        response = responses.setdefault(str(status), {"description": "", "content": {}})
        said = [response["description"], plain_words(type(answer).__doc__)]
        response["description"] = "; ".join(filter(None, said))
        response["content"]["application/json"] = _json(answer, schemas)
    return dict(sorted(responses.items()))


def _json(answer: object, schemas: Schemas) -> Schema:
    return {"schema": schemas.of(type(answer)), "example": json.loads(to_json(answer))}


def _refusals(operation: Operation, config: Config, schemas: Schemas) -> dict[str, Schema]:
    """One response a status, with an example of every problem that it may be."""
    by_status: dict[int, dict[str, Problem]] = {}
    for problem in [*_common(operation, config), *map(_problem, operation.refusals)]:
        of_turn = "-of-a-turn" if "turn_index" in problem.members else ""
        by_status.setdefault(problem.status, {}).setdefault(problem.kind.slug + of_turn, problem)
    return {
        str(status): _refusal(problems, operation.instance, schemas)
        for status, problems in sorted(by_status.items())
    }


def _common(operation: Operation, config: Config) -> Iterator[Problem]:
    """What any route like this may answer."""
    yield describe_status(400)
    yield _problem(errors.NotAllowed("this address may not connect; see ALLOW_CIDRS"))
    if operation.gate != "open":
        yield _problem(errors.NotAuthenticated())
    if operation.method == "POST":
        yield describe_status(408)
        is_upload = operation.is_form
        what, cap = (
            ("upload", config.max_upload_bytes) if is_upload else ("body", config.max_body_bytes)
        )
        yield _problem(errors.TooLarge(what, cap))
    if operation.method == "POST" or operation.gate != "open":
        place = "$" if operation.method == "POST" else "query"
        yield _problem(errors.InvalidRequest([errors.Fault(f"{place}.colour", "unknown field")]))
    yield Problem(OUR_BUG, OUR_BUG.detail or "")
    yield _problem(errors.TooSlow())
    yield _problem(errors.ShuttingDown(5))
    if operation.gate != "open":
        yield _problem(errors.StoreUnavailable(""))


def _problem(refusal: errors.ClawdforgeError | Problem) -> Problem:
    return refusal if isinstance(refusal, Problem) else describe_error(refusal)


def _refusal(examples: Mapping[str, Problem], instance: str, schemas: Schemas) -> Schema:
    problems = list(examples.values())
    headers = _headers(problems)
    return {
        "description": "; ".join(dict.fromkeys(problem.kind.title for problem in problems)),
        **({"headers": headers} if headers else {}),
        "content": {
            CONTENT_TYPE: {
                "schema": _problem_schema(problems, schemas),
                "examples": {
                    name: {"value": json.loads(problem.to_bytes(instance))}
                    for name, problem in examples.items()
                },
            }
        },
    }


def _headers(problems: Iterable[Problem]) -> Schema:
    """The headers of a status; one that not all of its problems carry is not promised."""
    names = [{name for name, _ in problem.headers} for problem in problems]
    made = {}
    for name in sorted(set().union(*names)):
        made[name] = dict(HEADERS[name])
        if not all(name in each for each in names):
            made[name].pop("required", None)
    return made


def _problem_schema(problems: Sequence[Problem], schemas: Schemas) -> Schema:
    """The schema that each of these problems fits."""
    refs = []
    for members in sorted({tuple(sorted(problem.members)) for problem in problems}):
        name = SHAPES[members]
        schemas.components.setdefault(name, _shape(members))
        refs.append({"$ref": COMPONENTS + name})
    return refs[0] if len(refs) == 1 else {"anyOf": refs}


def _shape(members: Sequence[str]) -> Schema:
    """The schema of a problem document with these members besides the common ones."""
    properties = {**PROBLEM, **{member: MEMBERS[member] for member in members}}
    return {
        "type": "object",
        "description": "A refusal as a problem document (RFC 9457).",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def main() -> None:
    """Print the description of the default settings: the committed copy."""
    from clawdforge.web.app import OPERATIONS  # noqa: PLC0415 - it imports us

    document = describe_api(OPERATIONS, Config())
    sys.stdout.write(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
