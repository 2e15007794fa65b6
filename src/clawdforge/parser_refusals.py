"""What Hypercorn's parser refuses by itself (400, 431, 501), with a body like any refusal of ours.

It answers what is no HTTP before any application is asked, with an empty body. Pure: bytes in,
bytes out.
"""

from __future__ import annotations

import re
from typing import Final

from clawdforge.web.problems import CONTENT_TYPE, UNROUTED, describe_status

_BARE: Final = re.compile(
    rb"(HTTP/1\.1 ([45][0-9][0-9]) [^\r\n]*\r\n)content-length: 0\r\n(connection: close\r\n)"
)
"""How such an answer begins. Answers of ours that refuse are never empty."""


def with_problem(data: bytes) -> bytes:
    """``data`` about to be sent, with a problem document when it is a bare refusal."""
    found = _BARE.match(data)
    if found is None:
        return data
    body = describe_status(int(found[2])).to_bytes(UNROUTED)
    own = f"content-type: {CONTENT_TYPE}\r\ncontent-length: {len(body)}\r\n".encode()
    return found[1] + own + data[found.start(3) :] + body
