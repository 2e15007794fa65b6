"""``clawdforge token``: the token registry, straight on the database; no server is needed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from clawdforge.domain.ports import Store

Answer = TypeVar("Answer")

json_option = click.option("--json", "is_json", is_flag=True, help="Print JSON.")


@click.group
def token() -> None:
    """Mint, list and revoke the tokens of apps, straight on the database."""


def _network(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is no network."""
    from clawdforge.domain.access import parse_network

    for value in values:
        try:
            parse_network(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is no network such as 192.168.0.0/16") from None
    return values


@token.command
@click.argument("name")
@click.option(
    "--ip-cidr", "cidrs", multiple=True, callback=_network, help="Allow only this network."
)
@json_option
def mint(name: str, cidrs: tuple[str, ...], is_json: bool) -> None:
    """Make a token for the app NAME and print it, this once."""
    from clawdforge.domain.ids import APP_NAME, AppName
    from clawdforge.service import mint_token

    if not APP_NAME.fullmatch(name):
        raise click.BadParameter("must match [a-z0-9_-]{1,64}", param_hint="NAME")

    async def work(store: Store) -> str:
        return await mint_token(store, AppName(name), cidrs, int(time.time()))

    text = _with_store(work)
    click.echo(json.dumps({"name": name, "token": text, "ip_cidrs": cidrs}) if is_json else text)


@token.command("list")
@json_option
def list_(is_json: bool) -> None:
    """List the tokens that are valid, without their texts."""

    async def work(store: Store) -> list[dict[str, object]]:
        return [
            {"name": row.name, "ip_cidrs": row.ip_cidrs, "created_at": row.created_at}
            for row in await store.list_apps()
        ]

    rows = _with_store(work)
    if is_json:
        click.echo(json.dumps({"tokens": rows}))
        return
    for row in rows:
        created = time.strftime("%Y-%m-%d %H:%M", time.localtime(float(str(row["created_at"]))))
        cidrs = row["ip_cidrs"]
        networks = ", ".join(cidrs) if isinstance(cidrs, tuple) and cidrs else "any address"
        click.echo(f"{row['name']}  {created}  {networks}")


@token.command
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke the token of the app NAME.

    New requests with it are refused at once; its live sessions end at the server's next sweep.
    """
    from clawdforge.domain.ids import AppName

    async def work(store: Store) -> None:
        await store.revoke_app(AppName(name))

    _with_store(work)
    click.echo(f"revoked {name}")


def _with_store(work: Callable[[Store], Awaitable[Answer]]) -> Answer:
    """Open the configured ledger (made if need be), do one thing, close it."""
    import trio

    from clawdforge.settings import load_config
    from clawdforge.store.sqlite import open_sqlite_store

    config = load_config(os.environ)
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def run() -> Answer:
        async with open_sqlite_store(config.database_path) as store:
            return await work(store)

    return trio.run(run)
