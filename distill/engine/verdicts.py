"""Filters that ask: the bridge from a chain, which judges in a thread, to the run's gateway on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from distill.engine.ledger import Ledger
from distill.filters.decontamination.doubts import Opinion, Pair
from distill.filters.decontamination.verdict import opinions
from distill.gateway import Gateway
from distill.recipe import VerdictConfig
from distill.teachers import Answer, Request

__all__ = ["verdicts_by"]


def verdicts_by(gateway: Gateway, ledger: Ledger) -> Callable[[VerdictConfig], Opinion]:
    """Verdicts by the run's teachers: stored, limited and paid like every other answer. Call it on the loop."""
    loop = asyncio.get_running_loop()

    async def billed(request: Request, *, sample: int = 0) -> Answer:
        answer = await gateway.ask(request, sample=sample)
        ledger.note_verdict(answer)
        return answer

    def opinion(config: VerdictConfig) -> Opinion:
        def ask(pairs: Sequence[Pair]) -> list[bool | None]:
            answering = opinions(billed, str(config.teacher), pairs)
            return asyncio.run_coroutine_threadsafe(answering, loop).result()

        return ask

    return opinion
