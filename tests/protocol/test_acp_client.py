"""What we say to an agent fits the published schema, and what it answers is read for what it is."""

from __future__ import annotations

from typing import Any

import acp.schema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawdforge.protocol.acp_client import (
    Attachment,
    chosen,
    initialize_params,
    prompt_blocks,
    read_models,
    read_offer,
    session_params,
    take_up_method,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
FILE = Attachment("notes.txt", "file:///work/notes.txt", "text/plain", 4)
PICTURE = Attachment("cat.png", "file:///work/cat.png", "image/png", 3, b"\x89PN")
ODD_FILE = Attachment("data", "file:///work/data", None, 0)


def demo_option(**fields: Any) -> dict[str, Any]:
    """A model option as the demo agent sends it."""
    choices = [{"value": "demo", "name": "demo"}, {"value": "opus", "name": "opus"}]
    option = {"id": "model", "name": "Model", "category": "model", "type": "select"}
    return {**option, "currentValue": "demo", "options": choices, **fields}


@pytest.mark.parametrize(
    ("schema", "params"),
    [
        ("InitializeRequest", initialize_params("1.0")),
        ("NewSessionRequest", session_params("/work")),
        ("NewSessionRequest", session_params("/work", meta={"claudeCode": {"options": {}}})),
        ("LoadSessionRequest", session_params("/work", session_id="s")),
        ("ResumeSessionRequest", session_params("/work", session_id="s")),
        ("PromptRequest", {"sessionId": "s", "prompt": prompt_blocks("hi", [])}),
        (
            "PromptRequest",
            {"sessionId": "s", "prompt": prompt_blocks("", [FILE, ODD_FILE, PICTURE])},
        ),
        ("CancelNotification", {"sessionId": "s"}),
        ("RequestPermissionResponse", chosen("allow")),
        ("RequestPermissionResponse", chosen(None)),
        ("SetSessionConfigOptionSelectRequest", {"sessionId": "s", "configId": "m", "value": "v"}),
    ],
)
def test_what_we_say_fits_the_published_schema(schema: str, params: dict[str, Any]) -> None:
    """The schema's own reader takes every field, and none is lost or repaired on the way."""
    read = getattr(acp.schema, schema).model_validate(params)
    assert read.model_dump(mode="json", by_alias=True, exclude_unset=True) == params


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        ("NewSessionResponse", {"sessionId": "s", "configOptions": [demo_option()]}),
        ("LoadSessionResponse", {"configOptions": [demo_option()]}),
        ("ResumeSessionResponse", {"configOptions": [demo_option()]}),
    ],
)
def test_models_are_read_from_what_the_schema_allows(schema: str, answer: dict[str, Any]) -> None:
    """A model option that the schema takes is one we can choose from."""
    getattr(acp.schema, schema).model_validate(answer)
    menu = read_models(answer)
    assert menu is not None
    assert (set(menu.models), menu.current) == ({"demo", "opus"}, "demo")
    choice = menu.choice("s", "opus")
    assert choice == {"sessionId": "s", "configId": "model", "value": "opus"}
    assert menu.method == "session/set_config_option"


def test_the_callbacks_are_not_offered() -> None:
    """The agent is told that it can read, write and run nothing through us."""
    offered = initialize_params("1")["clientCapabilities"]
    assert offered == {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}


@pytest.mark.parametrize(
    ("result", "fields"),
    [
        (
            {
                "protocolVersion": 1,
                "agentCapabilities": {
                    "loadSession": True,
                    "sessionCapabilities": {"resume": {}},
                    "promptCapabilities": {"image": True},
                },
                "agentInfo": {"name": "a" * 200, "version": "2"},
            },
            (1, True, True, True, "a" * 100, "2"),
        ),
        ({"protocolVersion": 1}, (1, False, False, False, None, None)),
        ({}, (None, False, False, False, None, None)),
        (
            {
                "protocolVersion": True,
                "agentCapabilities": {"loadSession": 1, "sessionCapabilities": {"resume": None}},
                "agentInfo": {"name": 5},
            },
            (None, False, False, False, None, None),
        ),
        (
            {"protocolVersion": "1", "agentCapabilities": []},
            (None, False, False, False, None, None),
        ),
    ],
)
def test_an_offer_is_read_for_what_it_is(result: dict[str, Any], fields: tuple[Any, ...]) -> None:
    """What does not fit counts as absent; names are cut."""
    offer = read_offer(result)
    found = (offer.protocol_version, offer.can_load, offer.can_resume, offer.takes_images)
    assert (*found, offer.name, offer.version) == fields


@pytest.mark.parametrize(
    ("can", "method"),
    [
        ({}, None),
        ({"loadSession": True}, "session/load"),
        ({"sessionCapabilities": {"resume": {}}}, "session/resume"),
        ({"loadSession": True, "sessionCapabilities": {"resume": {}}}, "session/resume"),
    ],
)
def test_a_conversation_is_resumed_before_it_is_loaded(
    can: dict[str, Any], method: str | None
) -> None:
    """Resume has nothing to replay; load serves where it alone is offered."""
    assert take_up_method(read_offer({"agentCapabilities": can})) == method


@pytest.mark.parametrize(
    ("options", "chosen_id"),
    [
        ([demo_option(id="m")], "m"),
        ([demo_option(category=None)], "model"),
        ([demo_option(category=None), demo_option(id="m")], "m"),
        ([demo_option(id="m"), demo_option()], "model"),
        (
            [demo_option(options=[{"group": "g", "name": "G", "options": [{"value": "x"}]}])],
            "model",
        ),
        ([demo_option(type="boolean")], None),
        ([demo_option(id="mode", category="mode")], None),
        ([demo_option(currentValue=None), demo_option(options=None), "odd"], None),
        ("odd", None),
    ],
)
def test_the_model_option_is_the_best_of_those_offered(
    options: list[Any], chosen_id: str | None
) -> None:
    """Category and name, then category, then name; other options are none."""
    menu = read_models({"configOptions": options})
    assert (menu.params["configId"] if menu else None) == chosen_id


def test_models_in_groups_are_found() -> None:
    """A select's values may stand in groups."""
    groups = [{"group": "g", "name": "G", "options": [{"value": "x", "name": "X"}]}]
    menu = read_models({"configOptions": [demo_option(options=groups)]})
    assert menu is not None
    assert menu.models == {"x"}


def test_the_older_field_is_understood() -> None:
    """Agents of earlier schemas list models beside the options, and take session/set_model."""
    older = {"currentModelId": "a", "availableModels": [{"modelId": "a"}, {"modelId": 5}, "odd"]}
    menu = read_models({"models": older})
    assert menu is not None
    assert (set(menu.models), menu.method) == ({"a"}, "session/set_model")
    assert menu.choice("s", "a") == {"sessionId": "s", "modelId": "a"}
    assert read_models({"models": {"currentModelId": "a"}}) is None


@given(st.dictionaries(st.sampled_from(["configOptions", "models", "agentCapabilities"]), JSON))
def test_no_answer_is_fatal(result: dict[str, Any]) -> None:
    """Whatever an agent answers, reading it raises nothing."""
    read_offer(result)
    read_models(result)
