"""What is known of one request while it is served: the source of its one line in the access log.

It travels in the request's ASGI scope. Values that a caller chose freely (path, query, headers) are
not logged; the route and the app are.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

import attrs

from clawdforge.domain.access import Address
from clawdforge.domain.ids import AppName
from clawdforge.web.inflow import STREAMED, Inflow
from clawdforge.web.outflow import Leavings, Outflow
from clawdforge.web.problems import UNROUTED

_KEY: Final = "clawdforge"

NOBODY: Final = AppName("")
"""The app of a request that no app has made."""


@attrs.define
class Trace:
    """One request. ``status`` is None until its response has begun.

    ``inflow`` is its body, on the routes that take it in pieces; ``outflow`` is its answer, when
    that is live. ``leavings`` is what must be done when it is over.
    """

    request_id: str
    peer: str | None
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    address: Address | None = None
    route: str = UNROUTED
    app: AppName = NOBODY
    status: int | None = None
    inflow: Inflow | None = None
    outflow: Outflow | None = None
    leavings: Leavings = attrs.field(factory=Leavings)

    @classmethod
    def begin(cls, scope: MutableMapping[str, Any], request_id: str) -> Trace:
        """A new trace, put into the scope. Header names are in lower case."""
        client = scope.get("client")
        headers = tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in scope["headers"]
        )
        trace = cls(request_id, client[0] if client else None, headers)
        if (scope.get("method"), scope.get("path")) in STREAMED:
            trace.inflow = Inflow()
        scope[_KEY] = trace
        return trace

    def header(self, name: str) -> str | None:
        """The header of that name (in lower case), its lines joined; None when there is none."""
        lines = [value for key, value in self.headers if key == name]
        return ", ".join(lines) if lines else None

    @classmethod
    def of(cls, scope: Any) -> Trace:  # noqa: ANN401 - the framework's typed dict
        """The trace that was put into the scope."""
        trace = scope[_KEY]
        assert isinstance(trace, Trace)
        return trace
