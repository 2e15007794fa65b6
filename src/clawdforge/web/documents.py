"""The routes that say what the others do: the API description, and a page that shows it.

The page is ours, whole, and asks nobody but this server for anything: its style and script stand in
it and are allowed by their hashes, all else is forbidden by its policy.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from clawdforge.web.answers import Page
from clawdforge.web.bodies import Nothing
from clawdforge.web.openapi import describe_api
from clawdforge.web.operations import Call, Operation
from clawdforge.web.schemas import Schema

ASSETS: Final = Path(__file__).parent / "docs"


def with_documents(others: Sequence[Operation]) -> tuple[Operation, ...]:
    """The operations, and two more that describe them all."""

    async def show_openapi(call: Call[Nothing]) -> Schema:
        """The API description (OpenAPI 3.1), with the limits of this server's settings."""
        return describe_api(operations, call.service.config)

    operations = (
        *others,
        Operation(
            method="GET",
            path="/openapi.json",
            gate="open",
            handle=show_openapi,
            summary="The API description",
            answer={},
        ),
        Operation(
            method="GET",
            path="/docs",
            gate="open",
            handle=show_docs,
            summary="The API description, to be read",
            answer=PAGE,
        ),
    )
    return operations


async def show_docs(_: Call[Nothing]) -> Page:
    """A page that shows the API description."""
    return PAGE


def make_page(folder: Path) -> Page:
    """The page with its style and script inside, and the policy that allows them alone."""
    style = (folder / "page.css").read_text("utf-8")
    script = (folder / "page.js").read_text("utf-8")
    frame = (folder / "page.html").read_text("utf-8")
    html = frame.replace("/*style*/", style).replace("/*script*/", script)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = (
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
    )
    return Page(html.encode(), "text/html; charset=utf-8", headers)


def _hash(text: str) -> str:
    """As a Content-Security-Policy names an inline element (CSP 3, 2.3.1)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


PAGE: Final = make_page(ASSETS)
