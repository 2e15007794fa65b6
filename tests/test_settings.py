"""Settings: tables of what is read, and of what is refused and how."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from clawdforge.config import Config
from clawdforge.domain.ids import AgentName
from clawdforge.domain.profiles import RunCommand
from clawdforge.errors import WrongConfiguration
from clawdforge.setting_readers import parse_bind
from clawdforge.settings import READERS, load_config, variable_of


def load(tmp_path: Path, toml: str, **environ: str) -> Config:
    """The configuration from a file of this text."""
    path = tmp_path / "clawdforge.toml"
    path.write_text(toml)
    return load_config({"CLAWDFORGE_CONFIG": str(path), **environ})


def refusal(environ: dict[str, str]) -> str:
    """The words with which an environment is refused."""
    with pytest.raises(WrongConfiguration) as caught:
        load_config(environ)
    return str(caught.value)


def test_nothing_set_is_the_default() -> None:
    """Without environment and file every setting has its default."""
    assert load_config({"PATH": "/bin", "CLAWDFORGE_MARK": "a:b:c"}) == Config()


def test_every_setting_has_a_reader() -> None:
    """No field of Config can be forgotten here."""
    assert {*READERS, "agents"} == {field.name for field in attrs.fields(Config)}
    assert variable_of("allow_cidrs") == "ALLOW_CIDRS"


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("CLAWDFORGE_BIND", "[::1]:0", "bind", "[::1]:0"),
        ("CLAWDFORGE_DATA_DIR", "/srv/forge", "data_dir", Path("/srv/forge")),
        ("CLAWDFORGE_ADMIN_TOKEN", "s" * 16, "admin_token", "s" * 16),
        ("ALLOW_CIDRS", "10.0.0.0/8, fd00::/8", "allow_cidrs", ("10.0.0.0/8", "fd00::/8")),
        ("CLAWDFORGE_TRUSTED_PROXIES", "192.168.1.1", "trusted_proxies", ("192.168.1.1",)),
        ("CLAWDFORGE_MAX_LIVE_SESSIONS", "3", "max_live_sessions", 3),
        ("CLAWDFORGE_CANCEL_GRACE_SECS", "0.5", "cancel_grace_secs", 0.5),
        ("CLAWDFORGE_SILENCE_SECS", "off", "silence_secs", None),
        ("CLAWDFORGE_SILENCE_SECS", "30", "silence_secs", 30.0),
        ("CLAWDFORGE_EVENTS", "normalized", "events", "normalized"),
        ("CLAWDFORGE_AUDIT_PROMPTS", "1", "audit_prompts", True),
        ("CLAWDFORGE_LOG", "json", "log", "json"),
        ("CLAWDFORGE_MAX_RUNS", "", "max_runs", 4),
    ],
)
def test_the_environment_is_read(name: str, text: str, field: str, value: object) -> None:
    """Each kind of value is read from text; an empty one is not set."""
    assert getattr(load_config({name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("CLAWDFORGE_BIND", "8800", "host:port"),
        ("CLAWDFORGE_BIND", "::1:8800", "brackets"),
        ("CLAWDFORGE_BIND", "[here]:8800", "IPv6"),
        ("CLAWDFORGE_BIND", "localhost:99999", "0 to 65535"),
        ("CLAWDFORGE_BIND", "a b:1", "host:port"),
        ("CLAWDFORGE_ADMIN_TOKEN", "short", "at least 16"),
        ("CLAWDFORGE_ADMIN_TOKEN", "sixteen letters and a space", "printable"),
        ("ALLOW_CIDRS", "10.0.0.0/8,house", "'house' is no network"),
        ("CLAWDFORGE_MAX_LIVE_SESSIONS", "0", "1 to 10000"),
        ("CLAWDFORGE_MAX_LIVE_SESSIONS", "many", "whole number"),
        ("CLAWDFORGE_MAX_LIVE_SESSIONS", "1.5", "whole number"),
        ("CLAWDFORGE_MAX_LIVE_SESSIONS", "1" * 30, "whole number"),
        ("CLAWDFORGE_START_SECS", "nan", "0.1 to 3600"),
        ("CLAWDFORGE_START_SECS", "-1", "0.1 to 3600"),
        ("CLAWDFORGE_FIRST_OUTPUT_SECS", "soon", "number of seconds"),
        ("CLAWDFORGE_EVENTS", "all", "acp, normalized, none"),
        ("CLAWDFORGE_AUDIT_PROMPTS", "yes", "0 or 1"),
        ("CLAWDFORGE_MAX_SESSIONS", "3", "is no setting"),
        ("CLAWDFORGE_SESSION_HARD_TTL_SECS", "60", "SESSION_TTL_SECS"),
        ("CLAWDFORGE_TURN_TIMEOUT_SECS", "4000", "MAX_TIMEOUT_SECS"),
        ("CLAWDFORGE_CONFIG", "/nowhere/at/all.toml", "No such file"),
    ],
)
def test_a_wrong_value_is_named(name: str, text: str, words: str) -> None:
    """Every refusal names the setting and says what would be right."""
    said = refusal({name: text})
    assert said.startswith(f"{name}: ")
    assert words in said
    assert "\n" not in said


def test_a_short_secret_is_not_repeated() -> None:
    """The refusal of an admin token does not show it."""
    assert "hunter2" not in refusal({"CLAWDFORGE_ADMIN_TOKEN": "hunter2"})
    assert "secret" not in repr(load_config({"CLAWDFORGE_ADMIN_TOKEN": "secret" * 4}))


def test_all_faults_are_named_one_a_line(tmp_path: Path) -> None:
    """An operator sees every fault at once, from both sources."""
    with pytest.raises(WrongConfiguration) as caught:
        load(tmp_path, "max_runs = 0\nmaxruns = 1", CLAWDFORGE_LOG="loud", CLAWDFORGE_PORT="1")
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "CLAWDFORGE_PORT",
        "maxruns",
        "max_runs (in the file)",
        "CLAWDFORGE_LOG",
    ]


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """Environment first, then the file, then the default."""
    toml = 'max_runs = 2\nturn_queue = 3\nallow_cidrs = ["10.0.0.0/8"]\naudit_prompts = true'
    config = load(tmp_path, toml, CLAWDFORGE_MAX_RUNS="7")
    assert (config.max_runs, config.turn_queue, config.sweep_secs) == (7, 3, 60)
    assert config.allow_cidrs == ("10.0.0.0/8",)
    assert config.audit_prompts


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    """A broken file stops the start with its line number."""
    with pytest.raises(WrongConfiguration, match="CLAWDFORGE_CONFIG: is not TOML"):
        load(tmp_path, "max_runs = ")


def test_agents_are_changed_and_added(tmp_path: Path) -> None:
    """The file changes a built-in profile key by key and adds new ones."""
    config = load(
        tmp_path,
        """
        [agents.claude]
        permissions = "approve-all"
        [agents.mine]
        argv = ["/usr/bin/python3", "-S", "agent.py"]
        env = ["HTTPS_PROXY"]
        set_env = { MODE = "quiet", EMPTY = "" }
        model = "big/one"
        permissions_allowed = ["approve-reads"]
        """,
    )
    assert sorted(config.agents) == ["claude", "demo", "mine"]
    claude, mine = config.agents[AgentName("claude")], config.agents[AgentName("mine")]
    assert "ANTHROPIC_API_KEY" in claude.env
    assert claude.permissions == "approve-all"
    assert "approve-all" in claude.permissions_allowed
    assert mine.argv == ("/usr/bin/python3", "-S", "agent.py")
    assert mine.set_env == {"MODE": "quiet", "EMPTY": ""}
    assert mine.permissions_allowed == ("approve-reads",)


def test_runs_have_a_command_of_their_own(tmp_path: Path) -> None:
    """A table [run] names the one-shot command; which profile's is used is a setting."""
    toml = """
        run_agent = "mine"
        [agents.mine]
        argv = ["agent"]
        [agents.mine.run]
        argv = ["/usr/bin/mine", "--once"]
        env = ["MINE_KEY"]
        model = "big"
        """
    config = load(tmp_path, toml)
    assert config.agents[config.run_agent].run == RunCommand(
        ("/usr/bin/mine", "--once"), ("MINE_KEY",), "big"
    )
    assert load(tmp_path, toml, CLAWDFORGE_RUN_AGENT="demo").run_agent == "demo"
    assert load(tmp_path, "").run_agent == "claude"


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("run_agent = 'a b'", "run_agent (in the file): is no name of an agent"),
        ("run_agent = 'gone'", "CLAWDFORGE_RUN_AGENT: names no agent"),
        ("run_agent = 'mine'\n[agents.mine]\nargv = ['x']", "RUN_AGENT: names an agent without"),
        ("[agents.demo]\nrun = 1", "run must be a table"),
        ("[agents.demo.run]\nwarm = 1", "run has no key warm"),
        ("[agents.demo.run]\nargv = []", "run argv must not be empty"),
        ("[agents.mine]\nargv = ['x']\n[agents.mine.run]\nmodel = 'm'", "run.argv is missing"),
        ("agents = 1", "agents: must be a table"),
        ("[agents]\nmine = 1", "agents.mine: must be a table"),
        ('[agents."a b"]\nargv = ["x"]', "agents.a b: the name"),
        ("[agents.mine]\nmodel = 'm'", "argv is missing"),
        ("[agents.mine]\nargv = []", "argv must not be empty"),
        ("[agents.mine]\nargv = 'x'", "argv must be a list"),
        ("[agents.mine]\nargv = ['x', 1]", "argv must be text"),
        ("[agents.demo]\nenv = ['A=B']", "env holds 'A=B'"),
        ("[agents.demo]\nenv = ['CLAWDFORGE_ADMIN_TOKEN']", "not passed on"),
        ("[agents.demo]\nset_env = { A = 1 }", "set_env must be text"),
        ("[agents.demo]\nset_env = ['A']", "set_env must be a table"),
        ("[agents.demo]\nmodel = '-x'", "model is no model name"),
        ("[agents.demo]\npermissions = 'all'", "permissions must be one of"),
        ("[agents.demo]\npermissions_allowed = ['ask']", "permissions_allowed does not hold"),
        ("[agents.demo]\ntransport = 'http'", "transport must be one of acpx"),
        ("[agents.demo]\nwarm = -1", "warm must be"),
        ("[agents.demo]\nwarm = true", "warm must be"),
        ("[agents.demo]\ncolour = 'red'", "colour is no key"),
    ],
)
def test_a_wrong_profile_is_named(tmp_path: Path, toml: str, words: str) -> None:
    """Every fault of a profile says which agent and which key."""
    with pytest.raises(WrongConfiguration) as caught:
        load(tmp_path, toml)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:8800", ("127.0.0.1", 8800)),
        ("localhost:0", ("localhost", 0)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
    ],
)
def test_an_address_is_taken_apart(text: str, parts: tuple[str, int]) -> None:
    """Host and port, brackets removed."""
    assert parse_bind(text) == parts
