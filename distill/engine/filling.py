"""The rounds of one session: slots through the method and the filters, until the quota is full or nothing helps.

What ends them early is a halt: a cap, an interruption, a teacher that is gone, filters that cannot ask. The first
reason is the one that is told; those after it are its echo.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from distill.dataset import Row
from distill.engine.accounting import Account
from distill.engine.decide import Decider, Outcome
from distill.engine.futile import Futility
from distill.engine.ledger import Ledger
from distill.engine.log import RunLog
from distill.engine.prepare import Prepared
from distill.engine.pump import Pump
from distill.engine.rounds import plan_round
from distill.engine.session import SlotAsk, width
from distill.engine.shards import first_round
from distill.errors import AnswerError, DistillError, Halted, RunError, TeacherError
from distill.filters.near.survivors import declared
from distill.gateway import Gateway
from distill.methods import Method
from distill.planning import Planner, Shard, Slot

__all__ = ["Emit", "Filling"]

Emit = Callable[[list[Row]], Awaitable[None]]

_BATCH = 256  # outcomes judged together: filters are vectorised, and the loop gets its turn in between
_WINDOW = 4096  # outcomes a fast worker may be ahead of the slowest


class Filling:
    """Fills the quota of an account, round by round. `run` once; `stop` from anywhere.

    Args:
        planner: of the whole plan or of the shard.
        sealed: slots whose answers are not stored stay pending, and the rest goes on.
        decided: called whenever rows were decided.
    """

    def __init__(
        self,
        prepared: Prepared,
        planner: Planner,
        account: Account,
        *,
        ledger: Ledger,
        log: RunLog,
        shard: Shard | None = None,
        sealed: bool = False,
        decided: Callable[[], None] = lambda: None,
    ) -> None:
        self.halt: DistillError | None = None
        """Why it ended before its target, if it did."""
        self._prepared = prepared
        self._planner = planner
        self._account = account
        self._ledger = ledger
        self._log = log
        self._shard = shard
        self._sealed = sealed
        self._decided = decided
        self._pump: Pump[Slot, Outcome] | None = None
        self._futility = Futility()
        self._whole_rounds = declared(prepared.steps) is not None
        self._deciding = True
        self._missing = 0  # slots of a sealed run whose answers are not stored

    def stop(self, error: DistillError) -> None:
        """Pull no more slots; what is under way is decided. The first reason is kept."""
        if self.halt is None:
            self.halt = error
            self._log.write("halt", error=type(error).__name__, message=str(error))
        if self._pump is not None:
            self._pump.stop()

    async def run(self, gateway: Gateway, decider: Decider, method: Method, emit: Emit | None) -> None:
        """Fill the quota. Kept rows are handed to `emit` as soon as they are decided."""
        account, plan = self._account, self._prepared.recipe.plan
        first = first_round(self._prepared, self._shard, rows_per_slot=method.rows_per_slot) if self._shard else {}
        while account.kept < account.target and account.rounds < plan.max_rounds and self.halt is None:
            wanted = plan_round(account, rows_per_slot=method.rows_per_slot, expected_yield=plan.expected_yield)
            wanted, first = first or wanted, {}
            if not wanted:
                break
            account.rounds += 1
            before, missing = {leaf: account.leaves[leaf].kept for leaf in wanted}, self._missing
            self._log.write("round", round=account.rounds, slots=sum(wanted.values()), leaves=len(wanted))
            await self._round(wanted, gateway, decider, method, emit)
            for leaf, kept in before.items():
                count = account.leaves[leaf]
                count.slots += wanted[leaf]
                count.barren_rounds = 0 if count.kept > kept else count.barren_rounds + 1
            self._log.write("round_end", round=account.rounds, **account.as_json())
            if self._missing - missing == sum(wanted.values()):
                break  # a sealed run: nothing more is stored
        if self._missing and account.kept < account.target:
            self.stop(Halted(f"{self._missing:,} slots of the plan have no stored answer"))

    async def _round(
        self,
        wanted: dict[tuple[str, ...], int],
        gateway: Gateway,
        decider: Decider,
        method: Method,
        emit: Emit | None,
    ) -> None:
        slots = sum(wanted.values())
        undecided = slots + self._missing
        self._account.pending = round(undecided * method.rows_per_slot)
        held: list[Outcome] = []

        async def consume(outcomes: list[Outcome]) -> None:
            if self._whole_rounds:  # which row of a group stays is open until the round's last has come
                held.extend(outcomes)
            else:
                await decide(outcomes)
            futile = self._futility.watch(outcomes)
            if futile is not None:
                self.stop(futile)
                gateway.drain()

        async def decide(outcomes: list[Outcome]) -> None:
            nonlocal undecided
            if not self._deciding:
                return
            try:
                kept = await decider.decide([(leaf, self._ledger.settle(items)) for leaf, items in outcomes])
            except (Halted, RunError) as error:
                # A filter could not ask. Rows after these would be judged without them: they all stay pending.
                self._deciding = False
                self.stop(error)
                return
            undecided -= len(outcomes)
            self._decided()
            self._account.pending = round(undecided * method.rows_per_slot)
            if kept and emit is not None:
                await emit(kept)

        async def work(slot: Slot) -> Outcome | None:
            return await self._finish(slot, gateway, method)

        workers = min(slots, width(self._prepared.recipe))
        self._pump = Pump(self._planner.take(wanted), work, workers=workers, window=_WINDOW)
        await self._pump.run(consume, batch=_BATCH)
        if held:
            await decide(held)

    async def _finish(self, slot: Slot, gateway: Gateway, method: Method) -> Outcome | None:
        """What the slot made; None where everything is stopping."""
        ask = SlotAsk(gateway, slot, self._ledger)
        try:
            return slot.leaf, await method(slot, ask)
        except (AnswerError, TeacherError) as error:
            return slot.leaf, [ask.failure(error)]
        except (Halted, RunError) as error:
            if self._sealed and isinstance(error, Halted) and self.halt is None:
                self._missing += 1
            else:
                self.stop(error)
            return None
