"""The circuit of an agent profile, as a table and as properties."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clawdforge.domain.circuit import PROBING_SECS, Circuit, CircuitRule, Permit

RULE = CircuitRule(failures=3, span_secs=60)


def failed(*times: float, rule: CircuitRule = RULE) -> Circuit:
    """A circuit after failures at these times, none of them a probe's."""
    circuit = Circuit()
    for now in times:
        circuit = circuit.after_failure(Permit(), now, rule, "no handshake")
    return circuit


@pytest.mark.parametrize(
    ("times", "now", "wait_secs"),
    [
        ((), 0, 0),
        ((1, 2), 2, 0),
        ((1, 2, 3), 3, 60),
        ((1, 2, 3), 13, 50),
        ((1, 2, 3), 63, 0),
        ((1, 2, 61.5), 61.5, 0),  # the first is too long ago
        ((1, 2, 3, 40), 40, 23),  # a straggler's failure does not prolong it
    ],
)
def test_when_starts_are_refused(times: Sequence[float], now: float, wait_secs: float) -> None:
    """Three failures within the span open it for the span; fewer, or slower, do not."""
    assert failed(*times).wait_secs(now, RULE) == wait_secs


def test_one_probe_at_a_time() -> None:
    """After the span one start is let through; the others wait for what it brings."""
    circuit, permit = failed(1, 2, 3).begin()
    assert circuit.wait_secs(64, RULE) == PROBING_SECS
    assert circuit.without_verdict(permit).wait_secs(64, RULE) == 0
    assert circuit.after_success() == Circuit()
    again = circuit.after_failure(permit, 70, RULE, "exit code 3")
    assert (again.wait_secs(70, RULE), again.reason) == (60, "exit code 3")


def test_an_old_probe_has_no_say_in_a_new_opening() -> None:
    """A probe whose circuit was closed and opened again meanwhile does not end the new probe."""
    _, old = failed(1, 2, 3).begin()
    circuit, new = failed(101, 102, 103).begin()
    assert circuit.without_verdict(old) == circuit
    assert circuit.after_failure(old, 170, RULE, "late") == circuit
    assert circuit.without_verdict(new).wait_secs(170, RULE) == 0


def test_a_span_of_nought_turns_it_off() -> None:
    """Nothing is refused, however often it fails."""
    off = CircuitRule(failures=1, span_secs=0)
    assert failed(*range(10), rule=off).wait_secs(9, off) == 0


Steps = st.lists(st.tuples(st.sampled_from(["begin", "ok", "fail", "left"]), st.integers(0, 40)))


@given(steps=Steps, failures=st.integers(1, 4))
def test_whatever_happens(steps: Sequence[tuple[str, int]], failures: int) -> None:
    """Starts begin only when let through, at most one is the probe, and no refusal is for ever."""
    rule = CircuitRule(failures, 60)
    circuit, now = Circuit(), 0.0
    running: list[Permit] = []
    for step, secs in steps:
        now += secs
        if step == "begin":
            if circuit.wait_secs(now, rule) == 0:
                circuit, permit = circuit.begin()
                running.append(permit)
        elif running:
            permit = running.pop(0)
            if step == "ok":
                circuit = circuit.after_success()
            elif step == "left":
                circuit = circuit.without_verdict(permit)
            else:
                circuit = circuit.after_failure(permit, now, rule, "no")
        probes = [one for one in running if one.probes is not None]
        current = [one for one in probes if one.probes == circuit.opened_at]
        assert len(current) == int(circuit.is_probing)
        assert len(circuit.failed_at) < failures
        assert 0 <= circuit.wait_secs(now, rule) <= max(rule.span_secs, PROBING_SECS)
        if not circuit.is_probing:
            assert circuit.wait_secs(now + rule.span_secs, rule) == 0
