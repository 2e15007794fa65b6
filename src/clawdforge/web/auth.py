"""Who is asking: bearer tokens of apps, and the admin's secret.

The ledger holds only a SHA-256 of an app's token; the admin's secret is compared in constant time.
No token text leaves this module, in an error least of all.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Final

from clawdforge.domain.access import Address, is_within_token
from clawdforge.domain.ids import AppName
from clawdforge.errors import NotAllowed, NotAuthenticated
from clawdforge.web.service import Service

_BEARER: Final = re.compile(r"bearer +(\S.{0,511})", re.IGNORECASE)
"""RFC 6750, but with any character in the token: the admin's secret is the operator's choice."""

_APP_TOKEN: Final = re.compile(r"cf_[A-Za-z0-9_-]+")


def hash_token(token: str) -> str:
    """The form in which the ledger knows a token: SHA-256, in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def read_bearer(headers: Sequence[tuple[str, str]]) -> str:
    """The token of the request (names in lower case). Raises NotAuthenticated."""
    values = [value for name, value in headers if name == "authorization"]
    match = _BEARER.fullmatch(values[0].strip()) if len(values) == 1 else None
    if match is None:
        raise NotAuthenticated
    return match[1]


async def authenticate_app(
    service: Service, headers: Sequence[tuple[str, str]], address: Address
) -> AppName:
    """The app that asks.

    Raises NotAuthenticated; NotAllowed when its token is not for this address.
    """
    token = read_bearer(headers)
    row = None
    if _APP_TOKEN.fullmatch(token) is not None:
        row = await service.store.find_app(hash_token(token))
    if row is None:
        raise NotAuthenticated
    if not is_within_token(address, row.ip_cidrs):
        raise NotAllowed("this token may not be used from this address")
    return row.name


async def authenticate_admin(service: Service, headers: Sequence[tuple[str, str]]) -> None:
    """Let the admin through. Raises NotAuthenticated; NotAllowed for an app or without secret."""
    secret = service.config.admin_token
    if secret is None:
        raise NotAllowed("the admin routes are off: CLAWDFORGE_ADMIN_TOKEN is not set")
    token = read_bearer(headers)
    # Digests are compared, so that not even the secret's length shows in the time it takes.
    given = hashlib.sha256(token.encode("latin-1")).digest()  # the bytes as they came
    if secrets.compare_digest(given, hashlib.sha256(secret.encode()).digest()):
        return
    if _APP_TOKEN.fullmatch(token) and await service.store.find_app(hash_token(token)) is not None:
        raise NotAllowed("this route is for the admin")
    raise NotAuthenticated
