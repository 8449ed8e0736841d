"""A run's money over all its sessions: the purse, and what the store knows of it.

What is spent and lost is written in the store's own transactions. What is under way is known to the store too, before
it is sent: not call by call, but as one amount that is never less than the real one and seldom more than twice as
much. A process that is killed leaves that amount standing; the next session counts it as lost. So a cap holds even
over kills, for the price of a disk flush whenever more is under way than ever before. Runs without a cap skip it.
"""

from __future__ import annotations

import asyncio

from distill.errors import BudgetReached, RunError
from distill.gateway.budget import Amount, Purse
from distill.gateway.ending import Ending, fresh
from distill.gateway.store import AnswerStore
from distill.recipe import Budget

__all__ = ["Account"]


class Account:
    """Every `reserve` is ended by `settle` and, once the answer is on disk, `stored`; or by `lose`, or `release`."""

    def __init__(self, store: AnswerStore, run: str, budget: Budget, ending: Ending) -> None:
        self._store = store
        self._run = run
        self._ending = ending
        self.recovered = store.recover(run)
        """What a killed session had under way, at most."""
        spent, lost = store.amounts(run)
        self.purse = Purse(budget.usd, budget.tokens, spent=spent, lost=lost)
        self._under_way = Amount()
        self._known = Amount()
        self._raising: asyncio.Future[None] | None = None

    async def reserve(self, worst: Amount) -> None:
        """Set the worst case of one attempt aside; when this returns, it may be sent.

        Raises:
            BudgetReached: it could pass a cap. The run ends.
            RunError: the store cannot be written. The run stops.
        """
        try:
            await self.purse.reserve(worst)
        except BudgetReached as error:
            self._ending.check()  # sent away because the run ends for another reason
            self._ending.end(error)
            raise fresh(error) from None
        try:
            self._ending.check()
            if self.purse.capped:
                await self._announce(worst)
        except BaseException:
            self.purse.release(worst)
            raise

    def settle(self, worst: Amount, real: Amount) -> None:
        """The answer came and cost `real`."""
        self.purse.settle(worst, real)

    def stored(self, worst: Amount) -> None:
        """What the attempt cost is on disk, or will be before anything that is written from now on."""
        if not self.purse.capped:
            return
        self._under_way -= worst
        now = self._under_way
        if self._raising is None and (self._known.pico > 2 * now.pico and self._known.tokens > 2 * now.tokens):
            self._known = Amount(now.pico * 5 // 4, now.tokens * 5 // 4)
            self._store.relax(self._run, self._known)

    def lose(self, worst: Amount) -> None:
        """No answer came, and the provider may have billed it."""
        self.purse.lose(worst)
        self._store.lose(self._run, worst)
        self.stored(worst)

    def release(self, worst: Amount) -> None:
        """Nothing was billed."""
        self.purse.release(worst)
        self.stored(worst)

    def close(self) -> None:
        """Nothing is under way any more but what is still counted."""
        if self._known != Amount():
            self._known = self._under_way
            self._store.relax(self._run, self._known)

    async def _announce(self, worst: Amount) -> None:
        self._under_way += worst
        try:
            while self._known.pico < self._under_way.pico or self._known.tokens < self._under_way.tokens:
                if self._raising is None:
                    await self._raise()
                else:
                    await asyncio.shield(self._raising)
                self._ending.check()
        except BaseException:
            self._under_way -= worst
            raise

    async def _raise(self) -> None:
        goal = Amount(self._under_way.pico * 3 // 2, self._under_way.tokens * 3 // 2)
        self._raising = asyncio.get_running_loop().create_future()
        try:
            await self._store.expose(self._run, goal)
            self._known = goal
        except RunError as error:
            self._ending.stop(error)
            raise
        finally:
            self._raising.set_result(None)
            self._raising = None
