"""Conditions on measured figures: `kl <= 0.05`, `exact_match >= 0.9`. Written as the gates of an evaluation are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distill.evaluate.scorecard import GateResult, gate_metric, parse_gate

__all__ = ["Gated", "check_values"]

Gated = GateResult


def check_values(gates: Sequence[str], values: Mapping[str, float]) -> list[GateResult]:
    """What each gate says of `values`.

    Raises:
        InputError: not a gate, or it names a figure that is not there.
    """
    results: list[GateResult] = []
    for gate in map(parse_gate, gates):
        value = values[gate_metric(gate, list(values))]
        holds = {
            ">=": value >= gate.bound,
            "<=": value <= gate.bound,
            ">": value > gate.bound,
            "<": value < gate.bound,
            "==": abs(value - gate.bound) < 1e-9,
        }[gate.operator]
        results.append(GateResult(gate.text, float(value), holds))
    return results
