"""The service as an ASGI application, for ``hypercorn -k trio``; settings from the environment.

The actors live in a nursery of their own inside the server's lifespan, so that their failure is a
failure of the server: it ends with a non-zero code. What only ``clawdforge serve`` gives (drain
with refusals, watchdog, bound on clients that do not read) is listed in the operator's pages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import trio

from clawdforge.app import open_service
from clawdforge.connections import install_bounded_connections
from clawdforge.errors import ClawdforgeError, NotReady
from clawdforge.logs import configure_logs
from clawdforge.settings import load_config
from clawdforge.web.app import make_edge
from clawdforge.web.edge import Edge, Receive, Scope, Send, refuse_early


class Application:
    """One service, alive from the server's start-up message to its shutdown message."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._edge: Edge | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._edge is None:
            await refuse_early(scope, receive, send, NotReady(["the service has not started"]))
        else:
            await self._edge(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Hold the service up between the two messages.

        A failure is told to the server in its own words: it then raises, into us and out of the
        worker. Raising it ourselves would only be logged, and the server would go on without us.
        """
        await receive()
        try:
            config = load_config(self._environ)
            configure_logs(config.log)
            async with open_service(config) as service:
                install_bounded_connections()
                self._edge = make_edge(service)
                await send({"type": "lifespan.startup.complete"})
                await receive()  # unbounded: the server says when it stops
                self._edge = None
                service.start_drain()
                with trio.move_on_after(config.drain_secs):  # turns that have no caller to wait
                    await service.wait_idle()
        except Exception as error:  # noqa: BLE001 - whatever it is, the server must end
            phase = "startup" if self._edge is None else "shutdown"
            self._edge = None
            await send({"type": f"lifespan.{phase}.failed", "message": describe(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})


def describe(error: BaseException) -> str:
    """The error in one line: the words of ours, the name of any other."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, ClawdforgeError) else type(error).__name__


app: Final = Application(os.environ)
