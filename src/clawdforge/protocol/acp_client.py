"""What a client of the Agent Client Protocol, version 1, says to an agent, and what is answered.

Pure: parameters out, meaning in. The rule: *an agent's answers may hold anything*, so each field is
read for what it is and what does not fit counts as absent. Source: https://agentclientprotocol.com
(initialization, session setup, content, session config options).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from clawdforge.protocol.jsonrpc import mapping

PROTOCOL_VERSION: Final = 1

AUTH_REQUIRED: Final = -32000
"""The agent wants a login first (ACP, error codes)."""

OPENINGS: Final = frozenset({"session/new", "session/load", "session/resume"})
"""The requests whose result is the beginning of a session: what comes before is a replay."""

IMAGE_TYPES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""What models can look at; other files go as links."""

_WORD_CHARACTERS: Final = 100
"""The most that is taken of an agent's own name and version."""

Json = Mapping[str, Any]


# --- the handshake --------------------------------------------------------------------------------


def initialize_params(version: str) -> Json:
    """Of ``initialize``: who we are. No callback is offered: agents have tools of their own."""
    return {
        "protocolVersion": PROTOCOL_VERSION,
        "clientCapabilities": {
            "fs": {"readTextFile": False, "writeTextFile": False},
            "terminal": False,
        },
        "clientInfo": {"name": "clawdforge", "title": "clawdforge", "version": version},
    }


@attrs.frozen
class Offer:
    """What an agent says of itself. ``protocol_version`` None: it named none."""

    protocol_version: int | None
    can_load: bool
    can_resume: bool
    takes_images: bool
    name: str | None
    version: str | None


def read_offer(result: Json) -> Offer:
    """The answer to ``initialize``."""
    can = mapping(result.get("agentCapabilities"))
    info, version = mapping(result.get("agentInfo")), result.get("protocolVersion")
    return Offer(
        protocol_version=version if type(version) is int else None,
        can_load=can.get("loadSession") is True,
        # An empty object means "yes" (ACP, session resume).
        can_resume=isinstance(mapping(can.get("sessionCapabilities")).get("resume"), dict),
        takes_images=mapping(can.get("promptCapabilities")).get("image") is True,
        name=_word(info.get("name")),
        version=_word(info.get("version")),
    )


def _word(value: object) -> str | None:
    return value[:_WORD_CHARACTERS] if isinstance(value, str) else None


# --- the session ----------------------------------------------------------------------------------


def session_params(cwd: str, *, session_id: str | None = None, meta: Json | None = None) -> Json:
    """Of ``session/new``; with a ``session_id`` of ``session/load`` and ``session/resume``."""
    params: dict[str, Any] = {"cwd": cwd, "mcpServers": []}
    if session_id is not None:
        params["sessionId"] = session_id
    if meta is not None:
        params["_meta"] = meta
    return params


def take_up_method(offer: Offer) -> str | None:
    """How this agent takes a conversation up; None when it cannot.

    ``session/resume`` goes first where both are offered, as in acpx: it has nothing to replay.
    """
    if offer.can_resume:
        return "session/resume"
    return "session/load" if offer.can_load else None


@attrs.frozen
class ModelMenu:
    """The models of a session, and the request that chooses one of them."""

    models: frozenset[str]
    current: str
    method: str
    params: Json

    def choice(self, session_id: str, model: str) -> Json:
        """The parameters of ``method`` that choose ``model``."""
        field = "value" if "configId" in self.params else "modelId"
        return {"sessionId": session_id, **self.params, field: model}


def read_models(result: Json) -> ModelMenu | None:
    """What a session's opening offers: as a config option, else in the older field ``models``.

    Of several options the one named and categorised ``model`` counts, then one so categorised,
    then one so named.
    """
    options = result.get("configOptions")
    found = [option for option in _objects(options) if _is_model_option(option)]
    if found:
        option = max(found, key=lambda option: 2 * _is_category(option) + (option["id"] == "model"))
        choose = {"configId": option["id"]}
        models = frozenset(_values(option["options"]))
        return ModelMenu(models, option["currentValue"], "session/set_config_option", choose)
    older = mapping(result.get("models"))
    if isinstance(older.get("currentModelId"), str) and isinstance(
        older.get("availableModels"), list
    ):
        models = frozenset(_texts(older["availableModels"], "modelId"))
        return ModelMenu(models, older["currentModelId"], "session/set_model", {})
    return None


def _is_model_option(option: Json) -> bool:
    return (
        option.get("type") == "select"
        and isinstance(option.get("id"), str)
        and isinstance(option.get("currentValue"), str)
        and isinstance(option.get("options"), list)
        and (_is_category(option) or option["id"] == "model")
    )


def _is_category(option: Json) -> bool:
    return option.get("category") == "model"


def _values(options: Sequence[Any]) -> Iterator[str]:
    """The values of a select; they may stand in groups."""
    yield from _texts(options, "value")
    for group in _objects(options):
        yield from _texts(group.get("options"), "value")


def _texts(values: object, field: str) -> Iterator[str]:
    return (each[field] for each in _objects(values) if isinstance(each.get(field), str))


def _objects(values: object) -> Iterator[Json]:
    return (
        (each for each in values if isinstance(each, dict))
        if isinstance(values, list)
        else iter(())
    )


# --- the turn -------------------------------------------------------------------------------------


@attrs.frozen
class Attachment:
    """A file of a turn where the agent can read it. ``image`` is its content, if it is shown."""

    name: str
    uri: str
    mime_type: str | None
    size_bytes: int
    image: bytes | None = attrs.field(default=None, repr=False)


def prompt_blocks(text: str, attachments: Sequence[Attachment]) -> list[Json]:
    """The content of a prompt: the files first, so that the caller's words have the last word.

    A file is a link, which every agent takes (ACP, content: the baseline), or an image.
    """
    return [*map(_block, attachments), {"type": "text", "text": text}]


def _block(file: Attachment) -> Json:
    if file.image is not None:
        data = base64.b64encode(file.image).decode("ascii")
        return {"type": "image", "mimeType": file.mime_type, "data": data, "uri": file.uri}
    kind = {} if file.mime_type is None else {"mimeType": file.mime_type}
    link = {"type": "resource_link", "name": file.name, "uri": file.uri, "size": file.size_bytes}
    return {**link, **kind}


def chosen(option_id: str | None) -> Json:
    """The answer to ``session/request_permission``; None is the outcome ``cancelled``."""
    if option_id is None:
        return {"outcome": {"outcome": "cancelled"}}
    return {"outcome": {"outcome": "selected", "optionId": option_id}}
