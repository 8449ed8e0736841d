"""What a gate may name besides metrics and latency, and its value for one system.

forgetting           score of the first system less the subject's, on the general set
parity               share of answers that are those of an earlier evaluation
retention(METRIC)    the subject's score over the reference's
cost_ratio           the subject's cost over the reference's
unsafe               share of the subject's answers that are unsafe
"""

from __future__ import annotations

from collections.abc import Sequence

from distill.evaluate.forgetting import Forgetting
from distill.evaluate.parity import Parity
from distill.evaluate.retention import CostRatio, Retention

__all__ = ["figure_names", "figures"]


def figure_names(metrics: Sequence[str], *, general: bool, earlier: bool, reference: bool) -> list[str]:
    """The names that there will be.

    Args:
        metrics: the names of what is counted.
        general: whether a general set is asked; earlier: whether there are earlier predictions; reference: whether
            there is a system beside the subject whose score is to be kept.
    """
    names = ["unsafe", *(["forgetting"] if general else [])]
    names += ["parity"] if earlier else []
    return names + (["cost_ratio", *(f"retention({metric})" for metric in metrics)] if reference else [])


def figures(
    names: Sequence[str],
    subject: str,
    *,
    unsafe: float,
    forgetting: Forgetting | None,
    parity: Parity | None,
    kept: Sequence[Retention],
    ratios: Sequence[CostRatio],
) -> dict[str, float]:
    """The values of `names`; not a number, which passes no gate, where one cannot be said."""
    values = {"unsafe": unsafe}
    values |= {f"retention({each.metric})": each.value for each in kept if each.system == subject}
    values.update(("cost_ratio", each.value) for each in ratios if each.system == subject)
    if forgetting is not None:
        values["forgetting"] = forgetting.drop
    if parity is not None:
        values["parity"] = parity.equal
    return {name: values.get(name, float("nan")) for name in names}
