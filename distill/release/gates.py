"""Conditions on measured figures: `kl <= 0.05`, `exact_match >= 0.9`. Written as the gates of an evaluation are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distill.errors import InputError
from distill.evaluate.gates import GateResult, gate_metric, parse_gate

__all__ = ["Gated", "check_values"]

Gated = GateResult


def check_values(gates: Sequence[str], values: Mapping[str, float]) -> list[GateResult]:
    """What each gate says of `values`.

    Raises:
        InputError: not a gate, or it names a figure that is not there.
    """
    results: list[GateResult] = []
    for gate in map(parse_gate, gates):
        name = gate_metric(gate, list(values))
        if name not in values or gate.drop is not None:
            raise InputError(f"gate {gate.text!r}: not measured here", hint=f"measured are: {', '.join(values)}")
        value = float(values[name])
        results.append(GateResult(gate.text, value, gate.holds(value)))
    return results
