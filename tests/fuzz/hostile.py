"""Hostile requests by the thousand: random and mutated bodies, headers, forms, paths and tokens.

All of it is well-formed HTTP, so that it gets past the server's parser and reaches us. Everything
comes from one seeded generator: a number names a request for ever. Pure.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any, Final

import attrs

BODIES: Final[Mapping[str, Any]] = {
    "/sessions": {"agent": "demo", "model": "opus", "meta": {"a": [1, None]}, "permissions": "ask"},
    "/sessions/{session}/turn": {
        "prompt": "hello",
        "files": ["{file}"],
        "timeout_secs": 5,
        "events": "none",
    },
    "/sessions/{session}/cancel": {"turn_index": 1},
    "/run": {
        "prompt": "hello",
        "model": "sonnet",
        "system": "Be brief.",
        "system_mode": "append",
        "effort": "low",
        "files": ["{file}"],
        "timeout_secs": 5,
    },
    "/admin/tokens": {"name": "attic", "ip_cidrs": ["10.0.0.0/8", "::1"]},
}
"""A good body for each route that takes one."""

TARGETS: Final = (
    *BODIES,
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/sessions/{session}",
    "/sessions/{session}/turns",
    "/sessions/{session}/permissions",
    "/admin/tokens/attic",
    "/files",
)

ODD_TEXTS: Final = (
    "",
    "\0",
    "\ud800",
    "\u2028",
    "é" * 300,
    "../../etc/passwd",
    "--help",
    "-p",
    "$(id)",
    "' OR 1=1 --",
    "%s%n%x",
    "{session}",
    "x" * 5000,
    "\r\nX: y",
    "demo\n",
    "ff_" + "a" * 43,
    "cf_" + "a" * 43,
)

ODD_VALUES: Final[tuple[Any, ...]] = (
    *ODD_TEXTS,
    None,
    True,
    False,
    0,
    -1,
    4,
    5.0,
    1e308,
    10**30,
    float("nan"),
    float("inf"),
    [],
    {},
    [[[[]]]],
    {"": None},
    ["x"] * 200,
)

ODD_BODIES: Final = (
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"0",
    b"{",
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{\0}\0",
    b'{"a":1,"a":2}',
    b'{"prompt":"\\ud800"}',
    b"[" * 20_000,
    b'{"a":' * 20_000,
    b"9" * 20_000,
    b"[" + b"0," * 20_000 + b"0]",
    b"NaN",
    b"\0" * 100,
)

HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Accept": (
        "*/*",
        "text/event-stream;q=0",
        "application/json;q=x",
        ",,,;;;",
        "\x80\xff",
        "a/b" * 500,
    ),
    "Content-Type": (
        "application/json",
        "application/json; charset=utf-7",
        "text/plain",
        "multipart/form-data",
        "multipart/form-data; boundary=" + "x" * 300,
        "\xff\xfe",
        "a;" * 500,
    ),
    "Content-Encoding": ("gzip", "deflate", "x"),
    "X-Forwarded-For": ("127.0.0.1", "::ffff:10.0.0.1", "nobody, , ,", "[", "1" * 1000),
    "Forwarded": ("for=127.0.0.1", "for=_x;by="),
    "X-Request-ID": ("abc-1", "x" * 500, "\xe9", "a b"),
    "Idempotency-Key": ("k1", "", "x" * 500, "\xe9", "a b"),
    "Last-Event-ID": ("1", "-1", "x", "9" * 400),
    "Cookie": ("a=b", "=" * 1000, "\xff"),
    "Host": ("localhost", "", "[::1", "x" * 500, "\xff"),
    "Range": ("bytes=0-", "bytes=9-1"),
    "If-None-Match": ("*", '"x'),
    "Origin": ("null", "https://example.org"),
    "Expect": ("100-continue",),
    "TE": ("trailers, deflate;q=0.5",),
}

METHODS: Final = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "X")


@attrs.frozen
class Request:
    """One request, as bytes. ``label`` says what it is, for a failure's message."""

    label: str
    method: str
    raw: bytes


@attrs.frozen
class Known:
    """What a hostile caller may know: names that are good on the server under attack."""

    token: str
    admin: str
    session: str
    file: str

    def fill(self, text: str) -> str:
        """Good names in place of their placeholders."""
        return text.replace("{session}", self.session).replace("{file}", self.file)


def make_request(number: int, known: Known) -> Request:
    """The hostile request of that number."""
    rng = random.Random(number)
    kind = ("body", "bytes", "headers", "form", "path", "token")[number % 6]
    return {
        "body": _mutated_body,
        "bytes": _odd_bytes,
        "headers": _odd_headers,
        "form": _mutated_form,
        "path": _odd_path,
        "token": _odd_token,
    }[kind](rng, known)


def _mutated_body(rng: random.Random, known: Known) -> Request:
    """A good JSON body, with values and keys changed."""
    target = rng.choice([*BODIES])
    body = json.loads(known.fill(json.dumps(BODIES[target])))
    for _ in range(rng.randint(1, 3)):
        key = rng.choice([*body, "extra", "__proto__", rng.choice(ODD_TEXTS)])
        if rng.random() < 0.3:
            body.pop(key, None)
        else:
            body[key] = rng.choice(ODD_VALUES)
    return _post(rng, known, target, json.dumps(body).encode(), "application/json")


def _odd_bytes(rng: random.Random, known: Known) -> Request:
    """No body, or a good one with bytes changed."""
    target = rng.choice([*BODIES])
    raw = known.fill(json.dumps(BODIES[target])).encode()
    body = rng.choice(ODD_BODIES) if rng.random() < 0.3 else mutate(rng, raw)
    return _post(rng, known, target, body, "application/json")


def _mutated_form(rng: random.Random, known: Known) -> Request:
    """A good form, with bytes changed and sometimes the boundary."""
    boundary = rng.choice(["b", "----x", "a b", "'()+_,-./:=?"])
    name = rng.choice(["a.txt", "", '"', "../x", "\xff", "x" * 3000])
    disposition = f'Content-Disposition: form-data; name="file"; filename="{name}"'
    parts = [
        disposition + "\r\nContent-Type: text/plain\r\n\r\n" + "m" * rng.choice([0, 5, 70_000]),
        'Content-Disposition: form-data; name="ttl_secs"\r\n\r\n' + rng.choice(["60", "x", "-1"]),
        rng.choice(
            [
                "Content-Disposition: form-data; name*=utf-9''x\r\n\r\ny",
                "Content-Disposition: form-data; filename*=x'y'%ff%00\r\n\r\ny",
                "\r\n\r\n",
                ": \r\n\r\n",
                "Content-Disposition: " + "a=b;" * 1000 + "\r\n\r\ny",
            ]
        ),
    ]
    rng.shuffle(parts)
    whole = "".join(f"--{boundary}\r\n{part}\r\n" for part in parts[: rng.randint(1, 3)])
    body = (whole + f"--{boundary}--\r\n").encode("latin-1")
    body = body if rng.random() < 0.4 else mutate(rng, body)
    kind = f'multipart/form-data; boundary="{boundary}"'
    return _post(rng, known, "/files", body, kind)


def _odd_headers(rng: random.Random, known: Known) -> Request:
    """A good request, with headers that nobody asked for."""
    chosen = [(name, rng.choice(HEADERS[name])) for name in rng.choices([*HEADERS], k=3)]
    chosen.append(("X-" + "".join(rng.choices("abcXYZ09-_!#$%&'*+.^`|~", k=20)), _noise(rng)))
    target = rng.choice(TARGETS)
    if target in BODIES:
        body = known.fill(json.dumps(BODIES[target])).encode()
        chosen = [("Content-Type", "application/json"), *chosen]
        return _build(known, "POST", target, body, chosen, bearer=_right(known, target))
    return _build(known, "GET", target, None, chosen, bearer=_right(known, target))


def _odd_path(rng: random.Random, known: Known) -> Request:
    """A path, a query and a method that may not go together."""
    target = known.fill(rng.choice(TARGETS))
    if rng.random() < 0.7:
        target = "/" + "/".join(_odd_segment(rng, part) for part in target[1:].split("/"))
    if rng.random() < 0.5:
        target += "?" + rng.choice(
            [
                "include_closed=0",
                "include_closed=2",
                "a",
                "&&=&",
                "a=%ff%00",
                "limit=-1",
                "x=" * 300,
            ]
        )
    method = rng.choice(METHODS)
    body = b"{}" if method in {"POST", "PUT", "PATCH"} else None
    return _build(known, method, target, body, [], bearer=known.token)


def _odd_token(rng: random.Random, known: Known) -> Request:
    """A bearer that is nearly right, or not at all."""
    good = rng.choice([known.token, known.admin, known.file])
    bearer = rng.choice(
        [
            good,
            good[:-1],
            good + "x",
            good.swapcase(),
            f" {good}",
            f"{good} {good}",
            f"{good}\x80",
            "cf_" + "".join(rng.choices("abc-_", k=43)),
            "cf_",
            "\xff" * 40,
            "x" * 5000,
            "",
        ]
    )
    scheme = rng.choice(["Bearer", "bearer", "Basic", "Bearer Bearer", "", "Digest"])
    target = rng.choice(TARGETS)
    headers = [("Authorization", f"{scheme} {bearer}")] * rng.choice([1, 1, 1, 2])
    return _build(known, "GET", target, None, headers, bearer=None)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """The bytes with some of them changed, dropped, doubled or cut off."""
    made = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(made) + 1)
        match rng.randrange(5):
            case 0:
                made[at:at] = rng.randbytes(rng.randint(1, 9))
            case 1:
                del made[at : at + rng.randint(1, 20)]
            case 2 if at < len(made):
                made[at] ^= 1 << rng.randrange(8)
            case 3:
                made[at:at] = made[at : at + 50]
            case _:
                if rng.random() < 0.2:
                    del made[at:]
    return bytes(made)


def _odd_segment(rng: random.Random, segment: str) -> str:
    """A part of a path, sometimes another."""
    if rng.random() < 0.6:
        return segment
    return rng.choice(
        [
            "",
            ".",
            "..",
            "%2e%2e",
            "%00",
            "%ff%fe",
            "%2F",
            "a" * 300,
            segment + "x",
            segment[:-1],
            "*",
            "~",
            "%C3%A9",
        ]
    )


def _noise(rng: random.Random) -> str:
    """A header's value of any characters that may stand in one."""
    allowed = [chr(code) for code in (*range(0x20, 0x7F), *range(0x80, 0x100))]
    return "".join(rng.choices(allowed, k=rng.randint(0, 200))).strip()


def _right(known: Known, target: str) -> str:
    """The bearer that a route is for."""
    return known.admin if target.startswith("/admin") else known.token


def _post(rng: random.Random, known: Known, target: str, body: bytes, kind: str) -> Request:
    bearer = _right(known, target) if rng.random() < 0.95 else "cf_nobody"
    headers = [] if rng.random() < 0.05 else [("Content-Type", kind)]
    return _build(known, "POST", target, body, headers, bearer=bearer)


def _build(
    known: Known,
    method: str,
    target: str,
    body: bytes | None,
    headers: list[tuple[str, str]],
    *,
    bearer: str | None,
) -> Request:
    """The request's bytes: its length is always right."""
    lines = [f"{method} {known.fill(target)} HTTP/1.1"]
    if not any(name == "Host" for name, _ in headers):
        lines.append("Host: localhost")
    if bearer is not None:
        lines.append(f"Authorization: Bearer {bearer}")
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines).encode("latin-1", "replace")
    return Request(f"{method} {target}", method, head + b"\r\n\r\n" + (body or b""))
