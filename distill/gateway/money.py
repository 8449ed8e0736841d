"""What an answer costs, exactly: tokens times the recipe's price, else the price list's.

Amounts are integers of pico-USD (1e-12 USD): prices are quoted per million tokens with at most six decimals nearly
everywhere, so a token's price is a whole number of them, and sums never round. The price list is `genai-prices` with
the data it was installed with; nothing is looked up over the network.

A list price may rise with the length of the prompt (tiers: the dearer price holds for all tokens) or with the hour of
the day; where it depends on the hour, the dearest is counted, because a cap must hold at any hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING

from distill.recipe import Price, TeacherConfig
from distill.teachers import Usage

if TYPE_CHECKING:
    from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice, TieredPrices

__all__ = ["FREE", "PICO", "Rates", "Tariff", "cost", "listed", "price_for", "tariff_for", "usd"]

PICO = Decimal(1_000_000_000_000)
_PER_TOKEN = Decimal(1_000_000)  # USD per million tokens -> pico-USD per token


@dataclass(frozen=True, slots=True)
class Rates:
    """Pico-USD per token, above `above` input tokens."""

    above: int
    input: Decimal
    output: Decimal
    cached: Decimal
    cache_write: Decimal
    reasoning: Decimal


@dataclass(frozen=True, slots=True)
class Tariff:
    """A model's price: one or more tiers, in ascending order, and what a request costs besides its tokens."""

    tiers: tuple[Rates, ...]
    request: Decimal = Decimal(0)

    def cost(self, usage: Usage) -> int:
        """Pico-USD of an answer."""
        rates = self._at(usage.input)
        total = (
            (usage.input - usage.cached - usage.cache_write) * rates.input
            + usage.cached * rates.cached
            + usage.cache_write * rates.cache_write
            + (usage.output - usage.reasoning) * rates.output
            + usage.reasoning * rates.reasoning
            + self.request
        )
        return int(total.to_integral_value(ROUND_HALF_EVEN))

    def worst(self, input_tokens: int, output_tokens: int) -> int:
        """The most pico-USD that an answer can cost with at most these tokens, however they are billed."""
        tiers = [rates for rates in self.tiers if rates.above <= input_tokens]
        dearest_input = max(max(r.input, r.cached, r.cache_write) for r in tiers)
        dearest_output = max(max(r.output, r.reasoning) for r in tiers)
        total = input_tokens * dearest_input + output_tokens * dearest_output + self.request
        return int(total.to_integral_value(ROUND_CEILING))

    def _at(self, input_tokens: int) -> Rates:
        found = self.tiers[0]
        for rates in self.tiers[1:]:
            if input_tokens > rates.above:
                found = rates
        return found


FREE = Tariff((Rates(0, Decimal(0), Decimal(0), Decimal(0), Decimal(0), Decimal(0)),))
"""What the local engine and the simulation cost."""


def usd(pico: int) -> Decimal:
    """Pico-USD as USD."""
    return Decimal(pico).scaleb(-12)


def cost(usage: Usage, price: Price | Tariff) -> Decimal:
    """USD of an answer."""
    tariff = _of_recipe(price) if isinstance(price, Price) else price
    return usd(tariff.cost(usage))


def price_for(config: TeacherConfig, now: datetime | None = None) -> Price | None:
    """The price per million tokens to show to a person (the first tier), or None when it is not known."""
    if config.price is not None:
        return config.price
    tariff = tariff_for(config, now)
    if tariff is None:
        return None
    first = tariff.tiers[0]
    return Price(
        input=first.input / _PER_TOKEN,
        output=first.output / _PER_TOKEN,
        cached_input=first.cached / _PER_TOKEN,
        cache_write=first.cache_write / _PER_TOKEN,
        reasoning=first.reasoning / _PER_TOKEN,
    )


def tariff_for(config: TeacherConfig, now: datetime | None = None) -> Tariff | None:
    """What `config`'s answers are billed by: the recipe's own price, nothing (local, simulated), or the list's.

    An endpoint that the list does not know has no list price, whatever its models are called: a model served by
    oneself does not cost what its namesake does.
    """
    if config.price is not None:
        return _of_recipe(config.price)
    if config.provider in ("local", "simulated"):
        return FREE
    model = _find(config)
    return None if model is None else _of_list(model, now or datetime.now(tz=UTC))


def listed(config: TeacherConfig) -> ModelInfo | None:
    """What the price list knows of a teacher's model. An endpoint of one's own with a price of one's own is not looked
    up: loading the list takes a fifth of a second."""
    if config.provider in ("local", "simulated") or (config.price is not None and config.base_url is not None):
        return None
    return _find(config)


def _find(config: TeacherConfig) -> ModelInfo | None:
    # Imported here: most recipes name their prices or need none.
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, model = get_snapshot().find_provider_model(
            config.model, None, None if config.base_url else config.provider, config.base_url
        )
    except LookupError:
        return None
    return model


def _of_recipe(price: Price) -> Tariff:
    def or_else(value: Decimal | None, default: Decimal) -> Decimal:
        return (default if value is None else value) * _PER_TOKEN

    return Tariff(
        (
            Rates(
                above=0,
                input=price.input * _PER_TOKEN,
                output=price.output * _PER_TOKEN,
                cached=or_else(price.cached_input, price.input),
                cache_write=or_else(price.cache_write, price.input),
                reasoning=or_else(price.reasoning, price.output),
            ),
        )
    )


def _of_list(model: ModelInfo, now: datetime) -> Tariff | None:
    known = [tariff for price in _candidates(model, now) if (tariff := _tariff(price)) is not None]
    return max(known, key=lambda tariff: tariff.worst(1_000_000, 1_000_000), default=None)


def _candidates(model: ModelInfo, now: datetime) -> Sequence[ModelPrice]:
    """The prices that can hold today: the latest by date, and every one that only the hour decides."""
    from genai_prices.types import ModelPrice, StartDateConstraint

    if isinstance(model.prices, ModelPrice):
        return [model.prices]
    dated = [price for price in model.prices if _starts(price, now)]
    hourly = [p.prices for p in model.prices if not isinstance(p.constraint, StartDateConstraint | None)]
    latest = dated[-1].prices if dated else model.prices[0].prices
    return [latest, *hourly]


def _starts(price: ConditionalPrice, now: datetime) -> bool:
    from genai_prices.types import StartDateConstraint

    constraint = price.constraint
    return constraint is None or (isinstance(constraint, StartDateConstraint) and constraint.active(now))


def _tariff(price: ModelPrice) -> Tariff | None:
    from genai_prices.types import TieredPrices

    if price.input_mtok is None or price.output_mtok is None:
        return None
    parts = {
        "input": price.input_mtok,
        "output": price.output_mtok,
        "cached": price.cache_read_mtok,
        "cache_write": price.cache_write_mtok,
        "reasoning": price.output_reasoning_mtok,
    }
    starts = {0}
    for part in parts.values():
        if isinstance(part, TieredPrices):
            starts.update(tier.start for tier in part.tiers)
    tiers: list[Rates] = []
    for start in sorted(starts):
        at = {name: _tier(part, start) for name, part in parts.items()}
        base_input, base_output = at["input"] or Decimal(0), at["output"] or Decimal(0)
        values = {
            "cached": base_input if at["cached"] is None else at["cached"],
            "cache_write": base_input if at["cache_write"] is None else at["cache_write"],
            "reasoning": base_output if at["reasoning"] is None else at["reasoning"],
        }
        scaled = {name: value * _PER_TOKEN for name, value in values.items()}
        tiers.append(Rates(above=start, input=base_input * _PER_TOKEN, output=base_output * _PER_TOKEN, **scaled))
    per_request = price.requests_kcount
    fee = Decimal(0) if per_request is None else _tier(per_request, 0) or Decimal(0)
    return Tariff(tuple(tiers), request=fee / 1000 * PICO)


def _tier(part: Decimal | TieredPrices | None, start: int) -> Decimal | None:
    from genai_prices.types import TieredPrices

    if not isinstance(part, TieredPrices):
        return part
    price = part.base
    for tier in part.tiers:
        if start >= tier.start:
            price = tier.price
    return price
