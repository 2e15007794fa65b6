"""Readers: from a value as the operator wrote it to a value of Config. Pure.

A reader takes text (from the environment) or a TOML value (from the file) and raises ValueError
with words that fit behind the setting's name. None of them repeats a secret.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from clawdforge.domain.access import parse_network
from clawdforge.domain.ids import AGENT_NAME, MODEL

Reader = Callable[[object], Any]

ADMIN_TOKEN_CHARACTERS: Final = 16
YEAR_SECS: Final = 366 * 86400


def parse_bind(text: str) -> tuple[str, int]:
    """Host and port of ``host:port`` (an IPv6 host in brackets). Raises ValueError."""
    host, colon, port = text.rpartition(":")
    is_bracketed = host.startswith("[") and host.endswith("]")
    if is_bracketed:
        host = host[1:-1]
        ipaddress.IPv6Address(host.partition("%")[0])
    if not colon or not host or (":" in host and not is_bracketed):
        raise ValueError("must be host:port, an IPv6 host in brackets")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("the port must be 0 to 65535")
    if not is_bracketed and not re.fullmatch(r"[A-Za-z0-9._-]+", host):
        raise ValueError("must be host:port, an IPv6 host in brackets")
    return host, int(port)


def whole(low: int, high: int) -> Reader:
    """A whole number within bounds."""

    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value):
            value = int(value)
        if type(value) is not int:
            raise ValueError("must be a whole number")
        if not low <= value <= high:
            raise ValueError(f"must be {low} to {high}")
        return value

    return read


def span(low: float, high: float) -> Reader:
    """Seconds within bounds, fractions allowed."""

    def read(value: object) -> float:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise ValueError("must be a number of seconds") from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("must be a number of seconds")  # noqa: TRY004  # see the module
        if not low <= value <= high:  # nor is nan
            raise ValueError(f"must be {low:g} to {high:g}")
        return float(value)

    return read


def read_span_or_off(value: object) -> float | None:
    """Seconds, or the word ``off``."""
    return None if value == "off" else float(span(0.1, YEAR_SECS)(value))


def choice(*words: str) -> Reader:
    """One of these words."""

    def read(value: object) -> str:
        if value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return str(value)

    return read


def read_text(value: object) -> str:
    """Text, not empty, without NUL."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be text, not empty")
    return value


def read_switch(value: object) -> bool:
    """0 or 1, true or false."""
    words = {"0": False, "false": False, "1": True, "true": True}
    word = str(value).lower()
    if word not in words:
        raise ValueError("must be 0 or 1")
    return words[word]


def read_bind(value: object) -> str:
    """host:port."""
    try:
        parse_bind(read_text(value))
    except ipaddress.AddressValueError:
        raise ValueError("the host in brackets must be an IPv6 address") from None
    return str(value)


def read_folder(value: object) -> Path:
    """An absolute path; a leading ``~`` is the home directory."""
    try:
        return Path(read_text(value)).expanduser().absolute()
    except RuntimeError:
        raise ValueError("names a home directory that is not known") from None


def read_admin_token(value: object) -> str:
    """A secret long enough not to be guessed. The fault does not repeat it."""
    token = read_text(value)
    if len(token) < ADMIN_TOKEN_CHARACTERS:
        raise ValueError(f"must have at least {ADMIN_TOKEN_CHARACTERS} characters")
    if not re.fullmatch(r"[!-~]+", token):
        raise ValueError("must be printable ASCII without spaces: it travels in a header")
    return token


def read_networks(value: object) -> tuple[str, ...]:
    """Networks or addresses: a list, or text with commas."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError("must be a list of networks")
    networks = tuple(item.strip() for item in items if item.strip())
    for network in networks:
        try:
            parse_network(network)
        except ValueError:
            raise ValueError(f"{network!r} is no network such as 192.168.0.0/16") from None
    return networks


def read_texts(value: object) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list):
        raise ValueError("must be a list of texts")  # noqa: TRY004  # as above
    return tuple(read_text(item) for item in value)


def read_argv(value: object) -> tuple[str, ...]:
    """A command and its arguments."""
    if not (argv := read_texts(value)):
        raise ValueError("must not be empty")
    return argv


def read_variable(name: str) -> str:
    """The name of an environment variable that an agent may have."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"holds {name!r}, which names no environment variable")
    if name.startswith("CLAWDFORGE_"):
        raise ValueError(f"holds {name}: settings of the service are not passed on")
    return name


def read_set_env(value: object) -> dict[str, str]:
    """Environment variables with their values."""
    if not isinstance(value, dict):
        raise ValueError("must be a table of texts")  # noqa: TRY004  # as above
    return {
        read_variable(name): "" if content == "" else read_text(content)
        for name, content in value.items()
    }


def read_model(value: object) -> str:
    """A model's name."""
    if not MODEL.fullmatch(read_text(value)):
        raise ValueError("is no model name")
    return str(value)


def read_agent_name(value: object) -> str:
    """The name of an agent; whether there is one is seen when all of them are known."""
    if not AGENT_NAME.fullmatch(read_text(value)):
        raise ValueError("is no name of an agent")
    return str(value)
