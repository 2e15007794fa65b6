"""Hypercorn inside our own tree, and the whole of ``clawdforge serve`` around it.

Signals, drain and the last-resort watchdog are ours. Shutdown has one order: new work is refused,
turns in progress may finish up to ``drain_secs``, what is left is called off, the server closes,
and only then the actors stop, because they outlive HTTP.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import structlog
import trio
from hypercorn.logging import Logger
from hypercorn.trio import serve

from clawdforge.app import open_service
from clawdforge.config import Config
from clawdforge.connections import ServerConfig, install_bounded_connections
from clawdforge.domain.limits import LEAST_CONNECTIONS
from clawdforge.errors import ClawdforgeError, DataDirectoryBusy, WrongConfiguration
from clawdforge.fitting import plan_open_files
from clawdforge.listening import bind_listener, listen, url_of
from clawdforge.web.app import locate, make_edge
from clawdforge.web.edge import Asgi, Edge
from clawdforge.web.service import RunningService

_log: Final = structlog.get_logger("clawdforge.server")

FINISH_SECS: Final = 2.0
"""After the drain: what answers that are being written get to finish in."""

WATCHDOG_MARGIN_SECS: Final = 20.0
"""Beyond drain and cancel grace: stopping actors and agents takes seconds, not more."""

KEEP_ALIVE_SECS: Final = 75
"""An idle connection is kept for so long; longer than the usual proxy keeps its own (60 s)."""

HEADER_BYTES: Final = 32 * 1024
"""Request line and headers together; past it 431."""

EXIT_DRAINED: Final = 0
EXIT_FAILED: Final = 1
EXIT_MISCONFIGURED: Final = 2
EXIT_STUCK: Final = 70


class ServerLog(Logger):
    """Hypercorn's log as our own events: no access lines (ours are better), no tracebacks."""

    async def access(self, *_: object) -> None:
        """Leave it to the edge."""

    async def exception(self, message: str, *_args: object, **_named: object) -> None:
        """Say what failed and where, in one line."""
        error = sys.exc_info()[1]
        _log.error(message, **({} if error is None else locate(error)))


# --- serving --------------------------------------------------------------------------------------


def hypercorn_config(*, graceful_secs: float, max_connections: int) -> ServerConfig:
    """Hypercorn's settings for ``serve``; the socket is handed in by its descriptor."""
    config = ServerConfig()
    config.graceful_timeout = graceful_secs
    config.keep_alive_timeout = KEEP_ALIVE_SECS
    config.keep_alive_max_requests = 1_000_000
    config.h11_max_incomplete_size = HEADER_BYTES
    config.include_server_header = False
    config.max_connections = max_connections
    config.errorlog = None
    config.logger_class = ServerLog
    return config


async def serve_app(
    asgi: Asgi,
    config: Config,
    *,
    shutdown_trigger: Callable[[], Awaitable[None]],
    listener: socket.socket | None = None,
    graceful_secs: float = FINISH_SECS,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until ``shutdown_trigger`` returns, then up to ``graceful_secs`` more.

    Hands its URL to ``task_status``. Takes over ``listener`` (made from ``config.bind`` without
    one). Raises WrongConfiguration when the address is taken.
    """
    install_bounded_connections()
    listener = listener or bind_listener(config.bind)
    with listener:
        listen(listener)
        url = url_of(listener)
        plan = plan_open_files(config)
        settings = hypercorn_config(
            graceful_secs=graceful_secs,
            max_connections=plan.connections if plan else LEAST_CONNECTIONS,
        )
        descriptor = os.dup(listener.fileno())
        settings.bind = [f"fd://{descriptor}"]

    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(serve, asgi, settings, shutdown_trigger=shutdown_trigger)  # type: ignore[arg-type]
        )
        os.set_inheritable(descriptor, False)  # Hypercorn made it inheritable: not by agents
        task_status.started(url)


# --- the whole of `clawdforge serve` --------------------------------------------------------------


def run_service(config: Config, *, announce: Callable[[str], None] | None = None) -> int:
    """Run ``clawdforge serve`` to its end and answer the exit code.

    ``announce`` is called with the URL once requests are taken; by default it prints the ready
    line. An error that the operator can mend is one line on stderr.
    """
    stopping = Stopping(config)
    try:
        listener = bind_listener(config.bind)
        trio.run(_run_tree, config, listener, stopping, announce or print_ready)
    except* ClawdforgeError as group:
        first = _first_error(group)
        print(f"clawdforge: {first}", file=sys.stderr)  # noqa: T201 - the operator's one line
        is_mendable = isinstance(first, WrongConfiguration | DataDirectoryBusy)
        stopping.exit_code = EXIT_MISCONFIGURED if is_mendable else EXIT_FAILED
    except* Exception as group:  # noqa: BLE001 - a bug of ours: one line, and a code that says so
        _log.critical("the service failed", **locate(_first_error(group)))
        stopping.exit_code = EXIT_FAILED
    finally:
        stopping.call_off_watchdog()
    return stopping.exit_code


def print_ready(url: str) -> None:
    """The one line on stdout."""
    print(f"clawdforge is ready on {url}", flush=True)  # noqa: T201 - a script waits for it


async def _run_tree(
    config: Config, listener: socket.socket, stopping: Stopping, announce: Callable[[str], None]
) -> None:
    with listener:
        async with trio.open_nursery() as root:
            await root.start(stopping.watch_signals, root.cancel_scope)
            async with open_service(config) as service:
                await serve_until_stopped(service, listener, stopping, announce)
            root.cancel_scope.cancel()


async def serve_until_stopped(
    service: RunningService,
    listener: socket.socket,
    stopping: Stopping,
    announce: Callable[[str], None],
) -> None:
    """Serve a running service, drain it when told to, and return when the server has closed."""
    edge = make_edge(service)
    drained = trio.Event()
    async with trio.open_nursery() as nursery:
        url = await nursery.start(
            partial(
                serve_app,
                edge,
                service.config,
                shutdown_trigger=drained.wait,
                listener=listener,
            )
        )
        stopping.is_ready = True
        announce(url)
        await _wait_asked(service, stopping)
        await drain(service, edge)
        drained.set()


async def _wait_asked(service: RunningService, stopping: Stopping) -> None:
    """Return when a signal or the admin asks for a drain. Unbounded: until then we serve."""

    async def obey_admin() -> None:
        await service.wait_drain_requested()
        stopping.ask()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(obey_admin)
        await stopping.asked.wait()
        nursery.cancel_scope.cancel()


async def drain(service: RunningService, edge: Edge) -> None:
    """Refuse new work, let turns finish up to ``drain_secs``, call off what is left.

    Requests without an answer are told 503. Streams have begun theirs: those of a session end at
    once, those of a turn with its ending, so that no caller takes a cut connection for an answer.
    """
    service.start_drain()
    edge.end_streams()
    _log.info("draining", up_to_secs=service.config.drain_secs)
    with trio.move_on_after(service.config.drain_secs) as patience:
        await service.wait_idle()
    if patience.cancelled_caught:
        edge.cancel_requests()
    await service.stop_work()
    with trio.move_on_at(max(patience.deadline, trio.current_time() + FINISH_SECS)) as answering:
        await edge.wait_answered()
    if answering.cancelled_caught:
        edge.cancel_requests()
        edge.call_off_streams()


class Stopping:
    """How one service is told to stop: first signal drain, second at once, third by force."""

    def __init__(self, config: Config) -> None:
        self.asked = trio.Event()
        self.is_ready = False
        self.exit_code = EXIT_DRAINED
        self._config = config
        self._watchdog: threading.Timer | None = None

    async def watch_signals(
        self,
        root: trio.CancelScope,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Obey SIGTERM and SIGINT until cancelled. Waits without bound: that is its job."""
        count = 0
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for number in signals:
                count += 1
                if count == 1 and self.is_ready:
                    self.ask()
                elif count <= 2:
                    # Before there is anything to drain, the first signal is as good as the second.
                    self.exit_code = EXIT_DRAINED if count == 1 else 128 + number
                    self._start_watchdog(0)
                    root.cancel()
                else:
                    os._exit(128 + number)

    def ask(self) -> None:
        """Ask for a drain. Idempotent."""
        if not self.asked.is_set():
            self.asked.set()
            self._start_watchdog(self._config.drain_secs)

    def _start_watchdog(self, drain_secs: float) -> None:
        """A thread that ends the process when nothing else can: the event loop may be stuck."""
        self.call_off_watchdog()
        secs = drain_secs + self._config.cancel_grace_secs + WATCHDOG_MARGIN_SECS
        self._watchdog = threading.Timer(secs, _exit_stuck)
        self._watchdog.daemon = True
        self._watchdog.start()

    def call_off_watchdog(self) -> None:
        """The process ends by itself."""
        if self._watchdog is not None:
            self._watchdog.cancel()


def _exit_stuck() -> None:
    os.write(2, b"clawdforge: did not stop in time, ended by the watchdog\n")
    os._exit(EXIT_STUCK)


def _first_error(group: BaseExceptionGroup[Any]) -> BaseException:
    """The first leaf of a group."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
