"""Who may connect: decisions about addresses, as the HTTP contract's "Who may call" states them.

Pure: addresses and header values in, the caller's address or a refusal out. IPv4-mapped IPv6
(``::ffff:10.0.0.1``) counts as the IPv4 address that it is, in peers, headers and networks alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

import attrs

from clawdforge.errors import NotAllowed

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

FORWARDING_HEADERS: Final = frozenset(
    {
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "x-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
    }
)
"""What a proxy adds: on a loopback peer they betray a proxy that nobody declared."""

_MAPPED: Final = IPv6Network("::ffff:0:0/96")

REMEMBERED: Final = 1024
"""Peers come again and again: so many are not worked out anew for each request. What a header says
is not remembered: it may be of any length."""


def parse_address(text: str) -> Address | None:
    """The address in ``text``, or None. IPv4-mapped IPv6 becomes IPv4."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def parse_network(text: str) -> Network:
    """The network in ``text``; a bare address is a network of one. Raises ValueError."""
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        inner = IPv4Address(int(network.network_address) & 0xFFFF_FFFF)
        return IPv4Network((inner, network.prefixlen - 96))
    return network


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether any of the networks holds the address; families never mix."""
    return any(address.version == network.version and address in network for network in networks)


def is_within_token(address: Address, ip_cidrs: Sequence[str]) -> bool:
    """Whether a token narrowed to ``ip_cidrs`` may be used from here; none means not narrowed.

    Loopback gets no privilege. A network that does not parse (a row edited by hand) holds nobody.
    """
    return not ip_cidrs or any(_holds(text, address) for text in ip_cidrs)


def _holds(text: str, address: Address) -> bool:
    try:
        return is_within(address, [parse_network(text)])
    except ValueError:
        return False


@lru_cache(REMEMBERED)
def _find_peer(text: str) -> tuple[Address | None, bool]:
    """The address of a socket's other end, and whether it is this machine's own."""
    address = parse_address(text)
    return address, address is not None and address.is_loopback


@attrs.frozen
class AccessRules:
    """``allowed`` may connect, besides loopback; ``proxies`` are believed about who is behind."""

    allowed: tuple[Network, ...] = ()
    proxies: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, allow_cidrs: Iterable[str], trusted_proxies: Iterable[str]) -> AccessRules:
        """From the texts of the settings. Raises ValueError."""
        return cls(
            tuple(parse_network(text) for text in allow_cidrs),
            tuple(parse_network(text) for text in trusted_proxies),
        )


def admit(peer: str | None, headers: Sequence[tuple[str, str]], rules: AccessRules) -> Address:
    """The caller's address, if it may connect. Raises NotAllowed.

    ``peer`` is the socket's other end, ``headers`` are all request headers, names in lower case.
    """
    address, is_loopback = (None, False) if peer is None else _find_peer(peer)
    if address is None:
        raise NotAllowed("the peer has no internet address")
    forwarding = [(name, value) for name, value in headers if name in FORWARDING_HEADERS]
    if forwarding and is_within(address, rules.proxies):
        return _admit_forwarded(forwarding, rules)
    if is_loopback:
        if forwarding:
            raise NotAllowed(
                "a forwarding header came from a loopback peer that is no trusted proxy; "
                "see CLAWDFORGE_TRUSTED_PROXIES"
            )
        return address
    return _judge(address, rules)


def _admit_forwarded(forwarding: Sequence[tuple[str, str]], rules: AccessRules) -> Address:
    """Judge who is behind a trusted proxy: loopback has no privilege here."""
    hops = [
        parse_hop(hop)
        for name, value in forwarding
        if name == "x-forwarded-for"
        for hop in value.split(",")
    ]
    if not hops:
        raise NotAllowed("a trusted proxy must send X-Forwarded-For")
    for hop in reversed(hops):
        if hop is None:
            raise NotAllowed("X-Forwarded-For holds something that is no address")
        if not is_within(hop, rules.proxies):
            return _judge(hop, rules)
    # Proxies all the way: the farthest of them is the caller. The loop saw that none is None.
    assert hops[0] is not None
    return _judge(hops[0], rules)


def parse_hop(text: str) -> Address | None:
    """One entry of X-Forwarded-For: an address, perhaps quoted, in brackets, or with a port."""
    hop = text.strip().strip('"')
    if hop.startswith("["):
        hop = hop[1:].partition("]")[0]
    elif hop.count(":") == 1:
        hop = hop.partition(":")[0]
    return parse_address(hop)


def _judge(address: Address, rules: AccessRules) -> Address:
    if not is_within(address, rules.allowed):
        raise NotAllowed("this address may not connect; see ALLOW_CIDRS")
    return address
