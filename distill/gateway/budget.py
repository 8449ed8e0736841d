"""The purse: worst cases are reserved before a request is sent, and settled when its answer is known.

    committed = spent + lost + reserved  <=  cap        at every moment, in USD and in tokens

`lost` is what calls may have cost that brought no answer: a timeout, a connection broken after sending, a body that
was cut short. The provider may have billed them, so their worst case counts toward the cap until the end of the run;
reports show it apart from what was paid for answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from decimal import Decimal

from distill.errors import BudgetReached
from distill.gateway.money import PICO, usd

__all__ = ["Amount", "Purse"]


@dataclass(frozen=True, slots=True)
class Amount:
    """Money (pico-USD) and tokens."""

    pico: int = 0
    tokens: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.pico + other.pico, self.tokens + other.tokens)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.pico - other.pico, self.tokens - other.tokens)

    @property
    def usd(self) -> Decimal:
        return usd(self.pico)


class Purse:
    """Holds the caps of one run. Requests wait in line when only other requests' reservations stand in their way."""

    def __init__(self, cap_usd: Decimal | None, cap_tokens: int | None, *, spent: Amount, lost: Amount) -> None:
        self._cap_pico = None if cap_usd is None else int(cap_usd * PICO)
        self._cap_tokens = cap_tokens
        self.spent = spent
        self.lost = lost
        self.reserved = Amount()
        self._reservations = 0
        self._waiting: deque[tuple[Amount, asyncio.Future[bool]]] = deque()

    @property
    def capped(self) -> bool:
        return self._cap_pico is not None or self._cap_tokens is not None

    async def reserve(self, worst: Amount) -> None:
        """Set `worst` aside; every reservation is ended by `settle`, `lose` or `release`.

        Raises:
            BudgetReached: it does not fit, and nothing in flight could make room for it.
        """
        if not self._waiting and self._fits(worst):
            self._take(worst)
            return
        if not self._reservations:
            raise self.reached(worst)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((worst, future))
        try:
            granted = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result():
                self.release(worst)
            raise
        if not granted:
            raise self.reached(worst)

    def hold(self, worst: Amount) -> None:
        """Set aside what an earlier session has sent and nobody has answered yet, whatever the caps say."""
        self._take(worst)

    def settle(self, worst: Amount, real: Amount) -> None:
        """The answer came and cost `real`."""
        self.spent += real
        self.release(worst)

    def lose(self, worst: Amount) -> None:
        """No answer came, and the provider may have billed it."""
        self.lost += worst
        self.release(worst)

    def release(self, worst: Amount) -> None:
        """Nothing was billed."""
        self.reserved -= worst
        self._reservations -= 1
        self._serve()

    def dismiss(self) -> None:
        """Send everybody who waits away (`reserve` raises): the run is stopping."""
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_result(False)

    def reached(self, worst: Amount) -> BudgetReached:
        """The error that states the figures."""
        caps: list[str] = []
        if self._cap_pico is not None:
            caps.append(
                f"cap {_money(self._cap_pico)}, spent {_money(self.spent.pico)}"
                f"{f', at risk in lost calls {_money(self.lost.pico)}' if self.lost.pico else ''}"
                f", the next request could cost {_money(worst.pico)}"
            )
        if self._cap_tokens is not None:
            caps.append(
                f"cap {self._cap_tokens:,} tokens, used {self.spent.tokens:,}"
                f"{f', at risk in lost calls {self.lost.tokens:,}' if self.lost.tokens else ''}"
                f", the next request could use {worst.tokens:,}"
            )
        return BudgetReached(
            "the budget is reached: " + "; ".join(caps),
            hint="Everything paid so far is kept. Raise `budget` in the recipe and run the same command to go on.",
        )

    def _fits(self, worst: Amount) -> bool:
        committed = self.spent + self.lost + self.reserved + worst
        # What costs nothing passes no cap, even one that was lowered below what is already spent.
        if self._cap_pico is not None and committed.pico > self._cap_pico and worst.pico > 0:
            return False
        return self._cap_tokens is None or committed.tokens <= self._cap_tokens

    def _take(self, worst: Amount) -> None:
        self.reserved += worst
        self._reservations += 1

    def _serve(self) -> None:
        while self._waiting:
            worst, future = self._waiting[0]
            if future.done():
                self._waiting.popleft()
            elif self._fits(worst):
                self._waiting.popleft()
                self._take(worst)
                future.set_result(True)
            elif not self._reservations:
                self._waiting.popleft()
                future.set_result(False)
            else:
                return


def _money(pico: int) -> str:
    amount = usd(pico)
    return f"{amount:.2f} USD" if amount >= 1 or amount == 0 else f"{float(amount):.4g} USD"
