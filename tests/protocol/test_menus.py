"""What an agent offers, in each of the ways that agents say it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawdforge.protocol.menus import MAX_CHARACTERS, MAX_CHOICES, Choice, Menu, Menus, read_menus

OPTION: dict[str, Any] = {
    "id": "model",
    "category": "model",
    "type": "select",
    "currentValue": "opus",
    "options": [{"value": "opus", "name": "Opus"}, {"value": "haiku"}],
}
MODELS = Menu("opus", (Choice("opus", "Opus"), Choice("haiku", "haiku")))
MODES = {"currentModeId": "plan", "availableModes": [{"id": "plan", "name": "Plan"}, {"id": "go"}]}


def test_a_config_option_is_a_menu() -> None:
    """By its category, in groups or not."""
    grouped = {**OPTION, "options": [{"group": "all", "name": "All", "options": OPTION["options"]}]}
    for option in (OPTION, grouped):
        assert read_menus({"configOptions": [{"category": "other"}, option]}) == Menus(MODELS)


def test_the_older_fields_are_menus_too() -> None:
    """Models and modes each have their own."""
    models = {"currentModelId": "opus", "availableModels": [{"modelId": "opus", "name": "Opus"}]}
    menus = read_menus({"models": models, "modes": MODES})
    assert menus.models == Menu("opus", (Choice("opus", "Opus"),))
    assert menus.modes == Menu("plan", (Choice("plan", "Plan"), Choice("go", "go")))


def test_updates_are_followed() -> None:
    """The agent changes its mode or its options; other updates change nothing."""
    menus = read_menus({"configOptions": [OPTION], "modes": MODES})
    gone = menus.after({"sessionUpdate": "current_mode_update", "currentModeId": "go"})
    assert gone.modes is not None
    assert gone.modes.current == "go"
    option = {**OPTION, "currentValue": "haiku"}
    other = gone.after({"sessionUpdate": "config_option_update", "configOptions": [option]})
    assert (other.models and other.models.current, other.modes) == ("haiku", gone.modes)
    assert other.after({"sessionUpdate": "plan"}) is other


def test_a_model_that_was_asked_for_is_the_current_one() -> None:
    """Where there is a menu at all."""
    chosen = Menus(MODELS).with_model("haiku").models
    assert chosen is not None
    assert chosen.current == "haiku"
    assert Menus().with_model("haiku") == Menus()
    assert Menus(MODELS).with_model(None) == Menus(MODELS)


def test_a_menu_is_bounded() -> None:
    """An agent cannot fill our answers."""
    endless = {**OPTION, "options": [{"value": "x" * 999}] * 999}
    menu = read_menus({"configOptions": [endless]}).models
    assert menu is not None
    assert len(menu.available) == MAX_CHOICES
    assert len(menu.available[0].id) == MAX_CHARACTERS


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@pytest.mark.parametrize("field", ["configOptions", "models", "modes"])
@given(value=json_values)
def test_nonsense_is_no_menu(field: str, value: Any) -> None:
    """Whatever stands in the place of a menu."""
    assert read_menus({field: value}) == Menus()
