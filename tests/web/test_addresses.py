"""Who may call, through the whole application: the contract's paragraph, sentence by sentence."""

from __future__ import annotations

import pytest

from clawdforge.config import Config
from clawdforge.domain.ids import AppName
from clawdforge.domain.ports import AppRow
from clawdforge.web.app import OPERATIONS, make_edge
from clawdforge.web.auth import hash_token
from clawdforge.web.edge import Edge
from clawdforge.web.operations import Operation
from tests.web.stage import ADMIN, ask, bearer, make_service

NARROW = "cf_narrowed-0123456789-0123456789-0123456789"

CONFIG = Config(
    admin_token=ADMIN,
    allow_cidrs=("10.0.0.0/8", "2001:db8::/32", "::ffff:172.16.0.0/108"),
    trusted_proxies=("192.0.2.1", "127.0.0.9", "2001:db8:ffff::1"),
)


async def make(*networks: str) -> Edge:
    """The application, with an app whose token is narrowed to these networks."""
    service = await make_service(config=CONFIG)
    await service.store.add_app(AppRow(AppName("attic"), networks, 3), hash_token(NARROW))
    return make_edge(service)


@pytest.mark.parametrize(
    ("peer", "forwarded", "status"),
    [
        # ALLOW_CIDRS gates by the socket's peer: IPv4, IPv6, and IPv4 in the clothes of IPv6.
        ("10.1.2.3", None, 200),
        ("::ffff:10.1.2.3", None, 200),
        ("2001:db8::7", None, 200),
        ("172.16.9.9", None, 200),
        ("203.0.113.9", None, 403),
        ("::ffff:203.0.113.9", None, 403),
        ("2001:db9::1", None, 403),
        (None, None, 403),
        # Loopback always passes, as a direct peer; with a forwarding header it is none.
        ("127.0.0.1", None, 200),
        ("::1", None, 200),
        ("::ffff:127.0.0.1", None, 200),
        ("127.0.0.1", "10.1.2.3", 403),
        ("::1", "10.1.2.3", 403),
        # From other peers the header is ignored.
        ("10.1.2.3", "203.0.113.9", 200),
        ("203.0.113.9", "10.1.2.3", 403),
        # Through a trusted proxy the right-most untrusted address is judged, loopback included.
        ("192.0.2.1", "10.1.2.3", 200),
        ("192.0.2.1", "203.0.113.9, 10.1.2.3", 200),
        ("192.0.2.1", "10.1.2.3, 203.0.113.9", 403),
        ("192.0.2.1", "10.1.2.3, 127.0.0.9", 200),
        ("2001:db8:ffff::1", "2001:db8::7", 200),
        ("127.0.0.9", "10.1.2.3", 200),
        ("127.0.0.9", "127.0.0.1", 403),
        ("::ffff:192.0.2.1", "::1", 403),
        ("192.0.2.1", "::ffff:10.1.2.3", 200),
    ],
)
async def test_an_address_is_judged(peer: str | None, forwarded: str | None, status: int) -> None:
    """Whatever is asked for: routes with a token, open ones, and routes that are none."""
    edge = await make()
    extra = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    for target in ("/sessions", "/healthz", "/livez", "/openapi.json", "/docs"):
        answer = await ask(edge, "GET", target, headers=bearer() | extra, peer=peer)
        assert answer.status == status, target
    for method, target, otherwise in (("GET", "/nothing", 404), ("PUT", "/sessions", 405)):
        answer = await ask(edge, method, target, headers=bearer() | extra, peer=peer)
        assert answer.status == (403 if status == 403 else otherwise), target


@pytest.mark.parametrize(
    ("networks", "peer", "forwarded", "status"),
    [
        (["10.0.0.0/16"], "10.0.9.9", None, 200),
        (["10.0.0.0/16"], "10.1.0.1", None, 403),
        (["10.0.0.0/16"], "::ffff:10.0.9.9", None, 200),
        (["::ffff:10.0.0.0/112"], "10.0.9.9", None, 200),
        (["2001:db8::7"], "2001:db8::7", None, 200),
        (["2001:db8::7"], "2001:db8::8", None, 403),
        # Narrowed further, never widened; loopback included.
        (["0.0.0.0/0"], "203.0.113.9", None, 403),
        (["10.0.0.0/16"], "127.0.0.1", None, 403),
        (["127.0.0.0/8"], "127.0.0.1", None, 200),
        (["127.0.0.0/8"], "::1", None, 403),
        # Behind a proxy it is the caller's address that counts, not the proxy's.
        (["10.0.0.0/16"], "192.0.2.1", "10.0.9.9", 200),
        (["192.0.2.1"], "192.0.2.1", "10.0.9.9", 403),
    ],
)
async def test_a_token_is_narrowed(
    networks: list[str], peer: str, forwarded: str | None, status: int
) -> None:
    """A token with networks is good from within them only."""
    extra = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    edge = await make(*networks)
    answer = await ask(edge, "GET", "/sessions", headers=bearer(NARROW) | extra, peer=peer)
    assert answer.status == status


async def test_the_address_comes_before_the_token() -> None:
    """From a wrong address nobody learns whether a token is right, nor whether a route exists."""
    edge = await make()
    answers = [
        await ask(edge, "GET", target, headers=headers, peer="203.0.113.9")
        for target in ("/sessions", "/nothing", "/admin/tokens")
        for headers in ({}, bearer(), bearer(ADMIN), bearer("cf_nobody"))
    ]
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda op: f"{op.method} {op.path}")
def test_the_open_routes_are_those_that_the_contract_names(operation: Operation) -> None:
    """Health, life, readiness and the description need no token; all else does."""
    is_open = operation.path in {"/healthz", "/livez", "/readyz", "/openapi.json", "/docs"}
    assert (operation.gate == "open") == is_open
