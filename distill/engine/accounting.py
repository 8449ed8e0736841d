"""Every row has one fate, and the sums hold: planned = kept + rejected + failed + pending."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

__all__ = ["Account", "LeafCount"]

Leaf = tuple[str, ...]


@dataclass(slots=True)
class LeafCount:
    """What became of one leaf: rows by fate, the slots tried for it, and its cost in USD."""

    target: int = 0
    slots: int = 0
    kept: int = 0
    rejected: int = 0
    failed: int = 0
    cost: Decimal = Decimal(0)
    barren_rounds: int = 0
    """Rounds in a row that tried slots of the leaf and kept nothing."""

    @property
    def missing(self) -> int:
        return max(0, self.target - self.kept)

    def rows_per_slot(self, usual: float) -> float:
        """Kept rows a slot, with one more slot that yields as leaves usually do: one that was unlucky does not make a
        leaf look dry."""
        return (self.kept + usual) / (self.slots + 1)


@dataclass(slots=True)
class Account:
    """The books of one run. `pending` counts the rows of planned slots that are not decided yet."""

    leaves: dict[Leaf, LeafCount] = field(default_factory=dict[Leaf, LeafCount])
    rejected: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    failed: Counter[str] = field(default_factory=Counter[str])
    kept: int = 0
    pending: int = 0
    rounds: int = 0
    cost_kept: Decimal = Decimal(0)
    cost_rejected: Decimal = Decimal(0)
    cost_failed: Decimal = Decimal(0)

    @classmethod
    def open(cls, quota: Mapping[Leaf, int]) -> Account:
        """Books with a target for every leaf."""
        return cls(leaves={leaf: LeafCount(target=target) for leaf, target in quota.items()})

    @property
    def target(self) -> int:
        """Rows wanted in all."""
        return sum(count.target for count in self.leaves.values())

    @property
    def rows_per_slot(self) -> float:
        """Kept rows a slot, over all leaves; not quite nothing where nothing was kept yet."""
        return (self.kept + 0.5) / (sum(count.slots for count in self.leaves.values()) + 1)

    @property
    def rejected_total(self) -> int:
        return sum(sum(reasons.values()) for reasons in self.rejected.values())

    @property
    def failed_total(self) -> int:
        return sum(self.failed.values())

    @property
    def planned(self) -> int:
        return self.kept + self.rejected_total + self.failed_total + self.pending

    def keep(self, leaf: Leaf, cost: Decimal) -> None:
        count = self.leaves[leaf]
        count.kept += 1
        count.cost += cost
        self.kept += 1
        self.cost_kept += cost

    def reject(self, leaf: Leaf, filter_name: str, reason: str, cost: Decimal) -> None:
        count = self.leaves[leaf]
        count.rejected += 1
        count.cost += cost
        self.rejected.setdefault(filter_name, Counter())[reason] += 1
        self.cost_rejected += cost

    def fail(self, leaf: Leaf, failure: str, cost: Decimal) -> None:
        count = self.leaves[leaf]
        count.failed += 1
        count.cost += cost
        self.failed[failure] += 1
        self.cost_failed += cost

    def short(self) -> dict[str, int]:
        """Leaves that miss rows, and how many."""
        return {"/".join(leaf): count.missing for leaf, count in self.leaves.items() if count.missing}

    def as_json(self) -> dict[str, Any]:
        return {
            "planned": self.planned,
            "kept": self.kept,
            "rejected": {name: dict(sorted(reasons.items())) for name, reasons in sorted(self.rejected.items())},
            "failed": dict(sorted(self.failed.items())),
            "pending": self.pending,
            "rounds": self.rounds,
        }

    def leaves_as_json(self) -> dict[str, dict[str, Any]]:
        return {
            "/".join(leaf): {
                "target": count.target,
                "slots": count.slots,
                "kept": count.kept,
                "rejected": count.rejected,
                "failed": count.failed,
                "cost_usd": float(count.cost),
            }
            for leaf, count in self.leaves.items()
        }
