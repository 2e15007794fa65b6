"""Measure everything, side by side: ``python -m bench``.

Prints what was found, and with ``--write`` puts figures and picture into ``docs/``. ``--quick``
goes everywhere with tiny counts. ``--part`` (again and again) names the parts to measure, and
``--peer`` other services to measure beside ours.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from bench.figures import Figures, Line
from bench.flood import measure_flood
from bench.growth import measure_growth
from bench.hosts import measure_hosts
from bench.ledger import measure_store
from bench.memory import measure_memory
from bench.peers import PEERS
from bench.plan import SESSIONS, Plan
from bench.report import describe, write_report
from bench.routes import measure_routes
from bench.starts import measure_starts
from bench.turns import Opener, measure_turns
from clawdforge import __version__
from clawdforge.config import Config
from clawdforge.processes.runtime import ensure_runtime

DOCS: Final = Path(__file__).parents[1] / "docs"

PARTS: Final[Mapping[str, Callable[..., Iterator[Line]]]] = {
    **{f"turns-{count}": partial(measure_turns, sessions=count) for count in SESSIONS},
    "hosts": measure_hosts,
    "starts": measure_starts,
    "routes": measure_routes,
    "store": measure_store,
    "memory": measure_memory,
    "flood": measure_flood,
    "growth": measure_growth,
}


def main() -> int:
    """Measure, print, write; 1 when a goal was missed."""
    options = read_options()
    ensure_runtime(Config().runtime_dir, "acpx", say)
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="clawdforge-bench-") as folder:
        plan = Plan(Path(folder))
        plan = plan.quick() if options.quick else plan
        plan = attrs.evolve(plan, **({"blocks": options.blocks} if options.blocks else {}))
        for name in options.part or PARTS:
            say(f"{name} …")
            lines += PARTS[name](plan, **_peers_for(name, options.peer))
    figures = Figures(tuple(lines))
    print(describe(figures))
    about = {
        "clawdforge": __version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "at": int(time.time()),
        "blocks": plan.blocks,
    }
    if options.json:
        Path(options.json).write_text(json.dumps({"about": about, "lines": figures.to_json()}))
    if options.write:
        write_report(figures, about, DOCS)
    return 0


def _peers_for(part: str, names: Sequence[str] | None) -> Mapping[str, Sequence[Opener]]:
    """Peers take part in turns."""
    if not names or not part.startswith("turns-"):
        return {}
    return {"peers": [PEERS[name] for name in names]}


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny counts: does it run?")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only these")
    parser.add_argument("--blocks", type=int, help="how often each subject has its turn")
    parser.add_argument("--peer", action="append", choices=list(PEERS), help="and this one")
    parser.add_argument("--json", metavar="FILE", help="write the figures here")
    parser.add_argument("--write", action="store_true", help="write docs/performance.*")
    return parser.parse_args()


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
