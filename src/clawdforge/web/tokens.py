"""The admin's routes: mint, list and revoke the tokens of apps."""

from __future__ import annotations

from typing import Final

from clawdforge.domain.ids import APP_NAME, AppName
from clawdforge.errors import AppNameTaken, AppNotFound
from clawdforge.web.answers import Done, TokenList, TokenMinted, TokenView
from clawdforge.web.bodies import MintToken, Nothing
from clawdforge.web.operations import Call, Link, Operation
from clawdforge.web.sessions import closing_secs


async def mint_token(call: Call[MintToken]) -> TokenMinted:
    """Make a token and show its text, this once."""
    asked = call.asked
    text = await call.service.mint(AppName(asked.name), asked.ip_cidrs)
    return TokenMinted(asked.name, text, asked.ip_cidrs)


async def list_tokens(call: Call[Nothing]) -> TokenList:
    """All tokens, without their texts."""
    return TokenList([TokenView.of(row) for row in await call.service.store.list_apps()])


async def revoke_token(call: Call[Nothing]) -> Done:
    """The next request with it is refused, and its live sessions are closed."""
    name = call.path["name"]
    if APP_NAME.fullmatch(name) is None:
        raise AppNotFound("")
    await call.service.revoke(AppName(name))
    return Done()


OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/admin/tokens",
        gate="admin",
        handle=mint_token,
        summary="Mint a token",
        asks=MintToken,
        example={"name": "kitchen", "ip_cidrs": ["192.168.1.0/24"]},
        answer=TokenMinted("kitchen", "cf_…", ["192.168.1.0/24"]),
        refusals=[AppNameTaken("kitchen")],
        links=[Link("revoke_token", {"name": "$response.body#/name"})],
    ),
    Operation(
        method="GET",
        path="/admin/tokens",
        gate="admin",
        handle=list_tokens,
        summary="List the tokens",
        answer=TokenList([TokenView("kitchen", ["192.168.1.0/24"], 1_790_000_000)]),
    ),
    Operation(
        method="DELETE",
        path="/admin/tokens/<name>",
        gate="admin",
        handle=revoke_token,
        summary="Revoke a token",
        bound_secs=closing_secs,
        refusals=[AppNotFound("")],
    ),
)
