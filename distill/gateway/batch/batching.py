"""What a run needs for batches, and one question on its way through them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from distill.gateway.batch.ledger import BatchLedger, Member
from distill.gateway.budget import Amount
from distill.gateway.money import Rates, Tariff
from distill.gateway.store import Record
from distill.teachers import BatchTeacher, Reading

__all__ = ["Asked", "Batching", "Outcome", "discounted", "less"]

Outcome = tuple[Record, Reading | None]


@dataclass(frozen=True, slots=True)
class Batching:
    """How a run uses batches.

    Args:
        teachers: batch APIs by the recipe's names, of the teachers that are asked that way.
        detach: end the run as soon as everything waits for batches.
        at: told the name of every step between intent and closed, before the next one begins. A step that never
            returns is a crash at that place.
        settle_s: how long after it was written down a batch may still turn up at the provider.
        tick_s: how often to look whether everything waits.
        wall: Unix time.
    """

    ledger: BatchLedger
    teachers: Mapping[str, BatchTeacher]
    detach: bool = False
    at: Callable[[str], None] = lambda step: None
    settle_s: float = 120.0
    tick_s: float = 0.25
    first_poll_s: float = 2.0
    wall: Callable[[], float] = time.time


@dataclass(slots=True, eq=False)
class Asked:
    """One question that gathers, or that an open batch holds. `future` is there while somebody waits; `wire` when
    anybody did in this session."""

    member: Member
    run: str
    """Who pays."""
    held: bool
    """Its worst case is set aside in this session's purse."""
    wire: Mapping[str, Any] | None = None
    replace: bool = False
    """What stands in the store is no answer."""
    future: asyncio.Future[Outcome] | None = None
    attempts: int = 0


def discounted(tariff: Tariff | None, discount: Decimal) -> Tariff | None:
    """What an answer costs in a batch."""
    if tariff is None:
        return None
    rest = 1 - discount
    tiers = tuple(
        Rates(
            above=rates.above,
            input=rates.input * rest,
            output=rates.output * rest,
            cached=rates.cached * rest,
            cache_write=rates.cache_write * rest,
            reasoning=rates.reasoning * rest,
        )
        for rates in tariff.tiers
    )
    return Tariff(tiers, tariff.request * rest)


def less(worst: Amount, discount: Decimal) -> Amount:
    """The worst case of an attempt, in a batch."""
    return Amount(int((worst.pico * (1 - discount)).to_integral_value(ROUND_CEILING)), worst.tokens)
