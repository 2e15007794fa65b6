"""The models and modes that an agent offers in a session, and which are chosen now. Pure.

Agents say it in ``configOptions`` (a select of category ``model`` or ``mode``) or in the older
fields ``models`` and ``modes`` of a session's opening, and later in updates. What does not fit
counts as not offered. Source: https://agentclientprotocol.com (session setup, session modes,
session config options).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

MAX_CHOICES: Final = 200
MAX_CHARACTERS: Final = 200
"""The most that is taken of a menu: far beyond any real agent's."""


@attrs.frozen
class Choice:
    """One of a menu."""

    id: str
    name: str


@attrs.frozen
class Menu:
    """What may be chosen, and what is."""

    current: str | None
    available: tuple[Choice, ...]


@attrs.frozen
class Menus:
    """None is a menu that the agent does not offer."""

    models: Menu | None = None
    modes: Menu | None = None

    def with_model(self, model: str | None) -> Menus:
        """After a model was asked for and granted."""
        if model is None or self.models is None:
            return self
        return attrs.evolve(self, models=attrs.evolve(self.models, current=model))

    def after(self, update: Mapping[str, Any]) -> Menus:
        """After an update of the session's."""
        kind, mode = update.get("sessionUpdate"), update.get("currentModeId")
        if kind == "current_mode_update" and self.modes is not None and isinstance(mode, str):
            return attrs.evolve(self, modes=attrs.evolve(self.modes, current=mode))
        if kind == "config_option_update":
            now = read_menus(update)
            return Menus(now.models or self.models, now.modes or self.modes)
        return self


NO_MENUS: Final = Menus()


def read_menus(opened: Mapping[str, Any]) -> Menus:
    """The menus in the answer to ``session/new``, ``session/load`` or ``session/resume``."""
    return Menus(
        _option(opened, "model") or _older(opened, "models", "availableModels", "modelId"),
        _option(opened, "mode") or _older(opened, "modes", "availableModes", "id"),
    )


def _option(opened: Mapping[str, Any], category: str) -> Menu | None:
    for option in _objects(opened.get("configOptions")):
        if option.get("category") == category and isinstance(option.get("options"), list):
            return _menu(option.get("currentValue"), _flat(option["options"]), "value")
    return None


def _older(opened: Mapping[str, Any], field: str, listed: str, key: str) -> Menu | None:
    state = opened.get(field)
    if not isinstance(state, Mapping) or not isinstance(state.get(listed), list):
        return None
    current = state.get("currentModelId" if field == "models" else "currentModeId")
    return _menu(current, _objects(state[listed]), key)


def _menu(current: object, entries: Iterator[Mapping[str, Any]], key: str) -> Menu:
    choices: list[Choice] = []
    for entry in entries:
        value, name = entry.get(key), entry.get("name")
        if isinstance(value, str) and len(choices) < MAX_CHOICES:
            text = name if isinstance(name, str) else value
            choices.append(Choice(value[:MAX_CHARACTERS], text[:MAX_CHARACTERS]))
    return Menu(current[:MAX_CHARACTERS] if isinstance(current, str) else None, tuple(choices))


def _flat(options: list[Any]) -> Iterator[Mapping[str, Any]]:
    """Options may come in groups, each with options of its own."""
    for option in _objects(options):
        inner = option.get("options")
        if isinstance(inner, list):
            yield from _objects(inner)
        else:
            yield option


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, Mapping))
