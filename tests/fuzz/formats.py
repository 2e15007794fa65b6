"""What values of our own formats look like; schemathesis loads this by name, in its own process."""

from __future__ import annotations

import ipaddress
import os
import uuid
from typing import Any

import schemathesis
from hypothesis import strategies as st

NETWORKS = st.ip_addresses().map(str) | st.builds(
    lambda address, bits: str(ipaddress.ip_network((address, bits), strict=False)),
    st.ip_addresses(),
    st.integers(0, 32),
)

schemathesis.openapi.format("ip-network", NETWORKS)
schemathesis.openapi.format("file-token", st.sampled_from(os.environ["FILE_TOKENS"].split()))


@schemathesis.hook
def before_call(_context: object, case: schemathesis.Case[Any], _kwargs: object) -> None:
    """Give each request a key of its own: a key that was used with other fields is refused."""
    key = case.headers.get("Idempotency-Key", "")
    if isinstance(key, str) and 0 < len(key) <= 255 and key.isascii() and key.isprintable():
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
