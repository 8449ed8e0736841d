"""Conditions on measured figures: `kl <= 0.05`, `exact_match >= 0.9`. Written as the gates of an evaluation are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distill.errors import InputError
from distill.evaluate.gates import GateResult, gate_metric, parse_gate
from distill.evaluate.scorecard import Scorecard

__all__ = ["Gated", "check_values", "losses"]

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


def losses(card: Scorecard, form: str) -> dict[str, float]:
    """What one form of the student lost against the subject of `card`: `drop`, the largest loss of any metric, and
    `sure_drop`, the bound of its paired 95 % interval that lies nearer to none."""
    found = [difference for difference in card.differences if difference.against == form]
    return {
        "drop": max((loss.value for loss in found), default=0.0),
        "sure_drop": max((max(loss.low, 0.0) for loss in found), default=0.0),
    }
