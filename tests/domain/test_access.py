"""Who may connect, as tables: the contract's "Who may call", sentence by sentence."""

from __future__ import annotations

import pytest

from clawdforge.domain.access import (
    AccessRules,
    admit,
    is_within_token,
    parse_address,
    parse_hop,
    parse_network,
)
from clawdforge.errors import NotAllowed

RULES = AccessRules.parse(["10.0.0.0/8", "2001:db8::/32"], ["192.0.2.1", "127.0.0.9"])
LOOPBACK_PROXY = AccessRules.parse(["10.0.0.0/8"], ["127.0.0.0/8", "::1"])


def forwarded(*values: str) -> list[tuple[str, str]]:
    """The header, as often as there are values."""
    return [("x-forwarded-for", value) for value in values]


@pytest.mark.parametrize(
    ("peer", "headers", "rules", "caller"),
    [
        # Loopback always passes, as a direct peer.
        ("127.0.0.1", [], AccessRules(), "127.0.0.1"),
        ("127.9.9.9", [], AccessRules(), "127.9.9.9"),
        ("::1", [], AccessRules(), "::1"),
        ("::ffff:127.0.0.1", [], AccessRules(), "127.0.0.1"),
        ("127.0.0.1", [], LOOPBACK_PROXY, "127.0.0.1"),
        # The socket's peer is looked up in the allowed networks, both families.
        ("10.1.2.3", [], RULES, "10.1.2.3"),
        ("::ffff:10.1.2.3", [], RULES, "10.1.2.3"),
        ("2001:db8::7", [], RULES, "2001:db8::7"),
        # From a peer that is no proxy the headers are ignored.
        ("10.1.2.3", forwarded("203.0.113.9"), RULES, "10.1.2.3"),
        ("10.1.2.3", [("forwarded", "for=1.1.1.1")], RULES, "10.1.2.3"),
        # Behind a trusted proxy the right-most untrusted address counts.
        ("192.0.2.1", forwarded("10.5.5.5"), RULES, "10.5.5.5"),
        ("192.0.2.1", forwarded("203.0.113.9, 10.5.5.5"), RULES, "10.5.5.5"),
        ("192.0.2.1", forwarded("203.0.113.9", "10.5.5.5"), RULES, "10.5.5.5"),
        ("192.0.2.1", forwarded("10.5.5.5, 192.0.2.1"), RULES, "10.5.5.5"),
        ("192.0.2.1", forwarded("nonsense, 10.5.5.5:4711"), RULES, "10.5.5.5"),
        ("192.0.2.1", forwarded("[2001:db8::7]:443"), RULES, "2001:db8::7"),
        ("127.0.0.1", forwarded("10.5.5.5"), LOOPBACK_PROXY, "10.5.5.5"),
    ],
)
def test_admitted(
    peer: str, headers: list[tuple[str, str]], rules: AccessRules, caller: str
) -> None:
    """These may connect, and this is who they are."""
    assert str(admit(peer, headers, rules)) == caller


@pytest.mark.parametrize(
    ("peer", "headers", "rules"),
    [
        (None, [], RULES),
        ("", [], RULES),
        ("203.0.113.9", [], RULES),
        ("203.0.113.9", [], AccessRules()),
        ("2001:db9::1", [], RULES),
        ("203.0.113.9", forwarded("10.5.5.5"), RULES),
        # A loopback peer that is no trusted proxy betrays one by its header, an empty one too.
        ("127.0.0.1", forwarded("10.5.5.5"), RULES),
        ("127.0.0.1", forwarded(""), RULES),
        ("::1", [("x-real-ip", "10.5.5.5")], RULES),
        ("::ffff:127.0.0.1", [("forwarded", "for=10.5.5.5")], RULES),
        # Behind a trusted proxy nobody is loopback.
        ("192.0.2.1", forwarded("127.0.0.1"), RULES),
        ("192.0.2.1", forwarded("::1"), RULES),
        ("192.0.2.1", forwarded("203.0.113.9"), RULES),
        ("192.0.2.1", forwarded("10.5.5.5, 203.0.113.9"), RULES),
        # Proxies all the way: the farthest is the caller, and it has no privilege either.
        ("127.0.0.1", forwarded("127.0.0.1"), LOOPBACK_PROXY),
        # What is no address cannot be judged.
        ("192.0.2.1", forwarded("10.5.5.5, unknown"), RULES),
        ("192.0.2.1", forwarded(""), RULES),
        ("192.0.2.1", [("forwarded", "for=10.5.5.5")], RULES),
        # A trusted proxy that connects for itself is a peer like any other.
        ("192.0.2.1", [], RULES),
    ],
)
def test_refused(peer: str | None, headers: list[tuple[str, str]], rules: AccessRules) -> None:
    """These may not connect."""
    with pytest.raises(NotAllowed):
        admit(peer, headers, rules)


@pytest.mark.parametrize(
    ("address", "cidrs", "expected"),
    [
        ("127.0.0.1", [], True),
        ("127.0.0.1", ["10.0.0.0/8"], False),
        ("127.0.0.1", ["127.0.0.0/8"], True),
        ("10.1.1.1", ["192.168.0.0/16", "10.0.0.0/8"], True),
        ("10.1.1.1", ["::ffff:10.0.0.0/104"], True),
        ("10.1.1.1", ["::/0"], False),
        ("10.1.1.1", ["edited by hand"], False),
    ],
)
def test_token_is_narrowed(address: str, cidrs: list[str], expected: bool) -> None:
    """A token with networks is good from within them only, loopback included."""
    parsed = parse_address(address)
    assert parsed is not None
    assert is_within_token(parsed, cidrs) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_networks_are_read_kindly(text: str, expected: str) -> None:
    """Host bits are dropped, a bare address is a network, IPv4-mapped networks are IPv4."""
    assert str(parse_network(text)) == expected


@pytest.mark.parametrize("text", ["", "x", "10.0.0.0/33", "10.0.0/8", "1.2.3.4/8/8", "-"])
def test_what_is_no_network(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r".*"):
        parse_network(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" 10.0.0.1 ", "10.0.0.1"),
        ('"[2001:db8::1]:80"', "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("unknown", "None"),
        ("_hidden", "None"),
        ("[", "None"),
        ("", "None"),
    ],
)
def test_hops(text: str, expected: str) -> None:
    """An entry of X-Forwarded-For is read as proxies write it; what is no address is None."""
    assert str(parse_hop(text)) == expected
