from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from distill.gateway import cost, price_for, tariff_for
from distill.gateway.money import PICO
from distill.recipe import Price, TeacherConfig
from distill.teachers import Usage

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
PRICE = Price(
    input=Decimal("0.15"),
    output=Decimal("0.60"),
    cached_input=Decimal("0.075"),
    cache_write=Decimal("0.1875"),
    reasoning=Decimal("0.9"),
)


def listed(model: str, provider: str = "openai", base_url: str | None = None) -> Price | None:
    return price_for(TeacherConfig.model_validate({"provider": provider, "model": model, "base_url": base_url}), NOW)


def test_every_kind_of_token_has_its_price() -> None:
    usage = Usage(input=1000, output=500, cached=400, cache_write=100, reasoning=300)
    by_hand = (500 * Decimal("0.15") + 400 * Decimal("0.075") + 100 * Decimal("0.1875")) / 10**6
    by_hand += (200 * Decimal("0.60") + 300 * Decimal("0.9")) / 10**6
    assert cost(usage, PRICE) == by_hand


def test_what_a_recipe_leaves_out_costs_as_input_and_output() -> None:
    plain = Price(input=Decimal(3), output=Decimal(15))
    assert cost(Usage(input=10, output=10, cached=5, cache_write=5, reasoning=10), plain) == Decimal("0.00018")


def test_known_models_are_found_in_the_price_list() -> None:
    mini = listed("gpt-4o-mini")
    assert mini is not None
    assert (mini.input, mini.output, mini.cached_input) == (Decimal("0.15"), Decimal("0.6"), Decimal("0.075"))
    haiku = listed("claude-haiku-4-5", "anthropic")
    assert haiku is not None
    assert haiku.cached_input == Decimal("0.1")
    assert haiku.cache_write == Decimal("1.25")


def test_an_endpoint_of_ones_own_has_no_list_price_but_known_resellers_have() -> None:
    assert listed("gpt-4o-mini", base_url="http://127.0.0.1:8000/v1") is None
    assert listed("openai/gpt-4o-mini", base_url="https://openrouter.ai/api/v1") is not None
    assert listed("no-such-model") is None


def test_the_recipe_wins_over_the_list_and_local_teachers_are_free() -> None:
    own = TeacherConfig(model="gpt-4o-mini", price=Price(input=Decimal(7), output=Decimal(8)))
    assert price_for(own, NOW) == own.price
    local = tariff_for(TeacherConfig(provider="local", model="qwen"))
    assert local is not None
    assert local.worst(10**9, 10**9) == 0


def test_long_prompts_pay_the_dearer_tier_for_all_tokens() -> None:
    tariff = tariff_for(TeacherConfig(provider="anthropic", model="claude-sonnet-4-5"), NOW)
    assert tariff is not None
    assert cost(Usage(input=200_000), tariff) == Decimal("0.6")
    assert cost(Usage(input=200_001), tariff) == 200_001 * Decimal(6) / 10**6


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**5),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["recipe", "gpt-5", "claude-sonnet-4-5", "gpt-4o-mini"]),
)
def test_the_worst_case_is_never_passed(
    given_tokens: int, made: int, cached: float, written: float, reasoned: float, model: str
) -> None:
    provider = "anthropic" if model.startswith("claude") else "openai"
    price = PRICE if model == "recipe" else None
    tariff = tariff_for(TeacherConfig(provider=provider, model=model, price=price), NOW)
    assert tariff is not None
    from_cache = int(given_tokens * cached)
    usage = Usage(
        input=given_tokens,
        output=made,
        cached=from_cache,
        cache_write=int((given_tokens - from_cache) * written),
        reasoning=int(made * reasoned),
    )
    assert 0 <= tariff.cost(usage) <= tariff.worst(given_tokens, made)
    assert cost(usage, tariff) * PICO == tariff.cost(usage)
