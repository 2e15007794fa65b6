"""From environment and TOML file to the frozen Config: the only place that reads settings.

The environment comes first, then the file named by ``CLAWDFORGE_CONFIG`` (same names, lower case,
without the prefix), then the default. Whatever is wrong stops the start: values that do not parse
or are out of range, unknown names, contradictions. All faults are named at once, one a line. An
empty environment variable counts as one that is not set.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from clawdforge.config import Config, built_in_agents
from clawdforge.domain.ids import AGENT_NAME, AgentName
from clawdforge.domain.profiles import PERMISSIONS, TRANSPORTS, AgentProfile, RunCommand
from clawdforge.errors import WrongConfiguration
from clawdforge.setting_readers import (
    YEAR_SECS,
    Reader,
    choice,
    read_admin_token,
    read_agent_name,
    read_argv,
    read_bind,
    read_folder,
    read_model,
    read_networks,
    read_set_env,
    read_span_or_off,
    read_switch,
    read_texts,
    read_variable,
    span,
    whole,
)

PREFIX: Final = "CLAWDFORGE_"
CONFIG_FILE: Final = "CLAWDFORGE_CONFIG"
NOT_SETTINGS: Final = frozenset({CONFIG_FILE, "CLAWDFORGE_MARK"})
"""Names of ours that are no settings: the file itself, and what marks a child process."""

GIB: Final = 1024**3
DAY_SECS: Final = 86400


def load_config(environ: Mapping[str, str]) -> Config:
    """Read all settings. Raises WrongConfiguration, which names every fault."""
    table = _read_file(environ.get(CONFIG_FILE, ""))
    faults = list(_unknown_names(environ, table))
    values: dict[str, Any] = {}
    for field, name, raw in _raw_values(environ, table):
        try:
            values[field] = READERS[field](raw)
        except ValueError as error:
            faults.append(WrongConfiguration(name, str(error)))
    values["agents"] = _read_agents(table.get("agents", {}), faults)
    if not faults:
        config = Config(**values)
        faults.extend(find_contradictions(config))
    if faults:
        raise attrs.evolve(faults[0], others=tuple(faults[1:]))
    return config


def find_contradictions(config: Config) -> Iterator[WrongConfiguration]:
    """Settings that are each right and cannot all be meant."""
    if config.session_hard_ttl_secs < config.session_ttl_secs:
        yield WrongConfiguration(
            "CLAWDFORGE_SESSION_HARD_TTL_SECS", "is less than CLAWDFORGE_SESSION_TTL_SECS"
        )
    profile = config.agents.get(config.run_agent)
    if profile is None:
        yield WrongConfiguration("CLAWDFORGE_RUN_AGENT", "names no agent that there is")
    elif profile.run is None:
        yield WrongConfiguration("CLAWDFORGE_RUN_AGENT", "names an agent without a table [run]")
    for field in ("run_timeout_secs", "turn_timeout_secs"):
        if getattr(config, field) > config.max_timeout_secs:
            yield WrongConfiguration(variable_of(field), "is more than CLAWDFORGE_MAX_TIMEOUT_SECS")


def variable_of(field: str) -> str:
    """The environment variable of a field of Config."""
    return "ALLOW_CIDRS" if field == "allow_cidrs" else PREFIX + field.upper()


# --- where values come from -----------------------------------------------------------------------


def _read_file(path: str) -> dict[str, Any]:
    """The TOML file; nothing when none is named. Raises WrongConfiguration."""
    if not path:
        return {}
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        reason = error.strerror or "unknown error"
        raise WrongConfiguration(CONFIG_FILE, f"cannot be read: {reason}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise WrongConfiguration(CONFIG_FILE, f"is not TOML: {error}") from error


def _unknown_names(
    environ: Mapping[str, str], table: Mapping[str, Any]
) -> Iterator[WrongConfiguration]:
    """What looks like a setting and is none, in either source."""
    variables = {variable_of(field) for field in READERS} | NOT_SETTINGS
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in variables:
            yield WrongConfiguration(name, "is no setting")
    for key in table:
        if key not in READERS and key != "agents":
            yield WrongConfiguration(key, "is no setting (in the file)")


def _raw_values(
    environ: Mapping[str, str], table: Mapping[str, Any]
) -> Iterator[tuple[str, str, Any]]:
    """What is set: the field, the name that the operator used, the value as written."""
    for field in READERS:
        if environ.get(variable_of(field)):
            yield field, variable_of(field), environ[variable_of(field)]
        elif field in table:
            yield field, f"{field} (in the file)", table[field]


READERS: Final[Mapping[str, Reader]] = {
    "bind": read_bind,
    "data_dir": read_folder,
    "runtime_dir": read_folder,
    "admin_token": read_admin_token,
    "allow_cidrs": read_networks,
    "trusted_proxies": read_networks,
    "max_live_sessions": whole(1, 10_000),
    "max_runs": whole(1, 1000),
    "turn_queue": whole(0, 1000),
    "session_ttl_secs": whole(1, YEAR_SECS),
    "session_hard_ttl_secs": whole(1, 10 * YEAR_SECS),
    "sweep_secs": whole(1, DAY_SECS),
    "run_agent": read_agent_name,
    "run_timeout_secs": whole(5, DAY_SECS),
    "turn_timeout_secs": whole(5, DAY_SECS),
    "max_timeout_secs": whole(5, DAY_SECS),
    "cancel_grace_secs": span(0, 600),
    "start_secs": span(0.1, 3600),
    "drain_secs": span(0, 3600),
    "max_body_bytes": whole(1024, GIB),
    "max_upload_bytes": whole(1024, 1024 * GIB),
    "events": choice("acp", "normalized", "none"),
    "permission_secs": span(0.1, DAY_SECS),
    "first_output_secs": read_span_or_off,
    "silence_secs": read_span_or_off,
    "max_turn_bytes": whole(1024, GIB),
    "event_log_bytes": whole(0, 64 * GIB),
    "start_concurrency": whole(1, 1000),
    "circuit_failures": whole(1, 1000),
    "circuit_secs": span(0, DAY_SECS),
    "audit_prompts": read_switch,
    "audit_days": whole(0, 36_600),
    "log": choice("auto", "json", "text"),
}
"""One reader a field of Config, ``agents`` excepted."""


# --- agents ---------------------------------------------------------------------------------------


def _read_agents(table: object, faults: list[WrongConfiguration]) -> dict[AgentName, AgentProfile]:
    """The built-in profiles, changed and added to by the file."""
    agents = built_in_agents()
    if not isinstance(table, dict):
        faults.append(WrongConfiguration("agents", "must be a table"))
        return agents
    for name, keys in table.items():
        try:
            agents[AgentName(name)] = _read_agent(AgentName(name), keys, agents)
        except ValueError as error:
            faults.append(WrongConfiguration(f"agents.{name}", str(error)))
    return agents


def _read_agent(
    name: AgentName, keys: object, built_in: Mapping[AgentName, AgentProfile]
) -> AgentProfile:
    """One profile. Raises ValueError."""
    if not AGENT_NAME.fullmatch(name):
        raise ValueError("the name must match [A-Za-z0-9_-]{1,64}")
    if not isinstance(keys, dict):
        raise ValueError("must be a table")  # noqa: TRY004  # every fault of a setting is a ValueError
    known = built_in.get(name)
    values: dict[str, Any] = {}
    if known is not None:
        values = {"argv": known.argv, "env": known.env, "run": known.run}
    for key, value in keys.items():
        if key not in AGENT_READERS:
            raise ValueError(f"{key} is no key of a profile")
        try:
            values[key] = AGENT_READERS[key](value)
        except ValueError as error:
            raise ValueError(f"{key} {error}") from None
    profile = AgentProfile(name, **values)
    if known is None and profile.argv is None:
        raise ValueError("argv is missing: the command of the agent")
    if profile.run is not None and profile.run.argv is None and known is None:
        raise ValueError("run.argv is missing: the one-shot command")
    if profile.permissions not in profile.permissions_allowed:
        raise ValueError("permissions_allowed does not hold the profile's own permissions")
    return profile


def _read_run(keys: object) -> RunCommand:
    """The one-shot command of a profile. Raises ValueError."""
    if not isinstance(keys, dict):
        raise ValueError("must be a table")  # noqa: TRY004  # every fault of a setting is a ValueError
    readers = {key: AGENT_READERS[key] for key in ("argv", "env", "model")}
    if unknown := keys.keys() - readers.keys():
        raise ValueError(f"has no key {min(unknown)}")
    values = {}
    for key, value in keys.items():
        try:
            values[key] = readers[key](value)
        except ValueError as error:
            raise ValueError(f"{key} {error}") from None
    return RunCommand(**values)


AGENT_READERS: Final[Mapping[str, Reader]] = {
    "argv": read_argv,
    "env": lambda value: tuple(map(read_variable, read_texts(value))),
    "set_env": read_set_env,
    "model": read_model,
    "permissions": choice(*PERMISSIONS),
    "permissions_allowed": lambda value: tuple(map(choice(*PERMISSIONS), read_texts(value))),
    "transport": choice(*TRANSPORTS),
    "warm": whole(0, 1000),
    "run": _read_run,
}
