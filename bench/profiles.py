"""Profile pictures of the turn path and of the list route: ``python -m bench.profiles``.

py-spy (the dependency group ``bench``) looks at the service from outside while sixteen clients ask
it; only samples that hold Python's lock count, so that waiting is not in the picture.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.clients import Channel, drive
from bench.plan import Plan
from bench.processes import Tree
from bench.subjects import clawdforge

DOCS: Final = Path(__file__).parents[1] / "docs"
CLIENTS: Final = 16
SECS: Final = 10

_COMMAND: Final = re.compile(r"(?<=>)[^<>]*py-spy record[^<>]*(?=</text>)")
"""The picture's title as py-spy makes it: its own command line, with the places of this machine."""


def main() -> int:
    """Draw both; 1 when py-spy is not there."""
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        print("py-spy is not there: pip install py-spy", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="clawdforge-bench-") as folder, ExitStack() as stack:
        service = stack.enter_context(clawdforge(Plan(Path(folder)).new_folder(), agents=["acp"]))
        sessions = service.open_sessions(CLIENTS, "acp")
        listing = [("GET", "/sessions", None)] * CLIENTS
        turns = stack.enter_context(service.turns(sessions, is_stream=False))
        lists = stack.enter_context(service.requests(listing))
        for name, channels in (("turn", turns), ("list", lists)):
            drive(channels, 20 * CLIENTS)
            draw(spy, service.tree, channels, DOCS / f"profile-{name}.svg")
    return 0


def draw(spy: str, tree: Tree, channels: Sequence[Channel], picture: Path) -> None:
    """Record while the channels are driven."""
    options = ["--gil", "-d", str(SECS), "-r", "400", "-f", "flamegraph", "-o", str(picture)]
    with subprocess.Popen(
        [spy, "record", "-p", str(tree.pid), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as recording:
        while recording.poll() is None:
            drive(channels, 5 * CLIENTS)
    title = f"{picture.stem}: {CLIENTS} clients, time that holds Python's lock"
    picture.write_text(_COMMAND.sub(title, picture.read_text()))


if __name__ == "__main__":
    sys.exit(main())
