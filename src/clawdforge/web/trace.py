"""What is known of one request while it is served: the source of its one line in the access log.

It travels in the request's ASGI scope. Values that a caller chose freely (path, query, headers) are
not logged; the route and the app are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

import attrs
import trio

from clawdforge.domain.access import Address
from clawdforge.domain.ids import NOBODY, AppName
from clawdforge.errors import ClawdforgeError, TooSlow
from clawdforge.web.inflow import Inflow, Receive
from clawdforge.web.outflow import Leavings, Outflow
from clawdforge.web.problems import UNROUTED

_KEY: Final = "clawdforge"


@attrs.define(eq=False)
class Patience:
    """How long a request may still take, and what its caller is told when it takes longer.

    One scope for all of the request: its deadline moves with the request's phases (the body, the
    handler, the answer), and is never later than the edge's own bound, but for live answers.
    """

    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    otherwise: ClawdforgeError = attrs.field(factory=TooSlow)
    _latest: float = math.inf

    def begin(self, secs: float) -> None:
        """Nothing of it may take longer than this."""
        self._latest = self.scope.deadline = trio.current_time() + secs

    def allow(self, secs: float, otherwise: ClawdforgeError | None = None) -> None:
        """What comes now may take so long; ``otherwise`` is TooSlow unless it is said."""
        self.scope.deadline = min(trio.current_time() + secs, self._latest)
        self.otherwise = otherwise or TooSlow()

    def answer(self, *, is_live: bool) -> None:
        """The answer begins: it may take what is left, and a live one ends by its own rules."""
        self.scope.deadline = math.inf if is_live else self._latest

    def end(self, otherwise: ClawdforgeError) -> None:
        """End it now."""
        self.otherwise = otherwise
        self.scope.cancel()


@attrs.define(eq=False)
class Trace:
    """One request. ``status`` is None until its response has begun.

    ``inflow`` is its body; ``outflow`` is its answer, when that is live. ``leavings`` is what must
    be done when it is over.
    """

    request_id: str
    peer: str | None
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    inflow: Inflow
    address: Address | None = None
    route: str = UNROUTED
    app: AppName = NOBODY
    status: int | None = None
    outflow: Outflow | None = None
    leavings: Leavings = attrs.field(factory=Leavings)
    patience: Patience = attrs.field(factory=Patience)

    @classmethod
    def begin(cls, scope: Mapping[str, Any], request_id: str, receive: Receive) -> Trace:
        """The trace of a request that has just come. Header names are in lower case."""
        client = scope.get("client")
        headers = tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1"))
            for name, value in scope["headers"]
        )
        return cls(request_id, client[0] if client else None, headers, Inflow(receive))

    def put_into(self, scope: MutableMapping[str, Any]) -> None:
        """Have ``of`` find it."""
        scope[_KEY] = self

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
