"""Control routes: requests per second and processor time, for one connection and for sixteen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from bench.figures import Line
from bench.plan import Plan
from bench.subjects import Service, fake_service
from bench.turns import Subject, of_service, run_blocks

CONNECTIONS: Final = (1, 16)
LISTED: Final = 10


def measure_routes(plan: Plan) -> Iterator[Line]:
    """On a service with a fake launcher: no agent has a part in these."""
    with ExitStack() as stack:
        service = stack.enter_context(fake_service())
        session = service.open_sessions(LISTED, "demo")[0]
        for connections in CONNECTIONS:
            subjects = list(_subjects(stack, service, session, connections))
            for name, blocks in run_blocks(plan, subjects, plan.requests).items():
                part = f"control routes, {connections} connection{'s' * (connections > 1)}"
                spans = [sum(t.total_secs for t in block.timings) / connections for block in blocks]
                rates = tuple(len(b.timings) / s for b, s in zip(blocks, spans, strict=True))
                cpu = tuple(block.cpu_secs * 1000 / len(block.timings) for block in blocks)
                yield Line(part, name, "rate", "requests/s", rates)
                yield Line(part, name, "processor", "ms", cpu)


def _subjects(
    stack: ExitStack, service: Service, session: str, connections: int
) -> Iterator[Subject]:
    for name, path in (
        ("GET /livez", "/livez"),
        ("GET /healthz", "/healthz"),
        ("GET /sessions/{id}", f"/sessions/{session}"),
        (f"GET /sessions ({LISTED} rows)", "/sessions"),
    ):
        asked = [("GET", path, None)] * connections
        yield of_service(service, name, stack.enter_context(service.requests(asked)))
