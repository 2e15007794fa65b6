"""The listening socket: bound first, before anything else starts, and listening last.

Between the two a second service on the same address is refused with one clear line, and a client
that comes too early is refused by the kernel instead of waiting on a service that is not there.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from clawdforge.errors import WrongConfiguration

SETTING: Final = "CLAWDFORGE_BIND"

BACKLOG: Final = 128

UNREAD_SECS: Final = 45
"""A client that takes nothing for so long is cut off by the kernel. Longer than the 30 s after
which a live answer ends with a word, so that the word is there for a client that comes back."""


def bind_listener(bind: str) -> socket.socket:
    """A TCP socket bound to ``host:port`` or ``[host]:port``; port 0 picks a free one.

    Raises WrongConfiguration. Connections inherit ``TCP_USER_TIMEOUT``, the bound on a client that
    does not read.
    """
    host, port = split_bind(bind)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise WrongConfiguration(SETTING, f"{host!r} is no address of this machine") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_SECS * 1000)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _explain(bind, error) from None
    listener.setblocking(False)
    return listener


def listen(listener: socket.socket) -> None:
    """Begin to take connections. Raises WrongConfiguration when another took the address first."""
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise _explain(url_of(listener), error) from None


def url_of(listener: socket.socket) -> str:
    """Where the socket can be reached: ``http://127.0.0.1:8800``."""
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def split_bind(bind: str) -> tuple[str, int]:
    """Host and port of the setting. Raises WrongConfiguration."""
    host, _, port = bind.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise WrongConfiguration(SETTING, "must be host:port, such as 127.0.0.1:8800")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if ":" in host:
        raise WrongConfiguration(SETTING, "an IPv6 address is written in brackets: [::1]:8800")
    return host, int(port)


def _explain(bind: str, error: OSError) -> WrongConfiguration:
    words = {
        errno.EADDRINUSE: "is in use by another program",
        errno.EACCES: "may not be bound by this user",
        errno.EADDRNOTAVAIL: "is no address of this machine",
    }
    return WrongConfiguration(SETTING, f"{bind} {words.get(error.errno or 0, 'cannot be bound')}")
