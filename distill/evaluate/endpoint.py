"""A model that is served somewhere, behind an OpenAI-compatible endpoint, is scored as it is served.

It is asked through the gateway: limits, retries, a budget, and every answer stored before it is counted. A stored
answer belongs to the model that gave it, and a name does not say which model that is: what the endpoint says of it
(`GET /models`: the digest of a release, a root, a date) is a part of the key under which its answers are kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import httpx
from pydantic import SecretStr

from distill.errors import InputError, RunError
from distill.evaluate.teacher import TeacherSystem
from distill.gateway import Gateway, open_store, store_address
from distill.io import digest, loads
from distill.recipe import Budget, Price, TeacherConfig, literal_secret, parse, resolve_secret
from distill.teachers import make_teacher
from distill.teachers.transport import environment_proxy

__all__ = ["Endpoint", "open_endpoint", "parse_price"]

_PATIENCE_S = 20.0
_MAX_BODY = 4 << 20
_CHANGES = ("created", "permission")
"""Members that say something else at every start of a server, or at every question."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served, and how it may be asked."""

    url: str
    """Up to `/v1`."""
    model: str
    name: str = "endpoint"
    key: SecretStr | None = None
    """`${NAME}`: the variable that holds it."""
    price: Price | None = None
    window: int = 16
    """Requests in flight."""

    def config(self) -> TeacherConfig:
        """The endpoint as a teacher.

        Raises:
            InputError: not an http(s) address, or the key itself is written down.
        """
        if literal_secret(self.key):
            raise InputError("write the name of a variable, not the key itself", field="key", hint="'${NAME}'")
        values: dict[str, Any] = {
            "provider": "openai",
            "model": self.model,
            "base_url": self.url,
            "api_key": self.key,
            "max_concurrency": self.window,
            "price": self.price,
        }
        return parse(TeacherConfig, {key: value for key, value in values.items() if value is not None})


@contextlib.asynccontextmanager
async def open_endpoint(
    endpoint: Endpoint,
    workspace: Path,
    *,
    run: str,
    store: SecretStr | None = None,
    max_tokens: int = 128,
    budget_usd: Decimal | None = None,
) -> AsyncGenerator[TeacherSystem]:
    """The endpoint as a system, while it is open.

    Args:
        workspace: its answer store keeps the answers.
        store: the recipe's own.
        run: who pays; the budget holds over all evaluations with the same name.
        budget_usd: the most that is spent.

    Raises:
        InputError: no such model is served, or the budget needs a price that is not known.
        RunError: the endpoint does not answer.
    """
    config = endpoint.config()
    teacher = make_teacher(endpoint.name, config)
    said = await _described(endpoint, resolve_secret(endpoint.key))
    facts = {"endpoint": endpoint.url, "served": said}
    budget = Budget(usd=budget_usd, unknown_price="tokens_only" if budget_usd is None else "refuse")
    answers = open_store(workspace, store_address(store))
    try:
        asked = {endpoint.name: teacher}
        async with Gateway(asked, {endpoint.name: config}, answers, run=run, budget=budget) as gateway:
            yield TeacherSystem(
                endpoint.name,
                gateway.ask,
                model=endpoint.model,
                max_tokens=max_tokens,
                window=endpoint.window,
                name=endpoint.name,
                priced=gateway.price_known(endpoint.name),
                facts=facts,
                sample=int(digest(facts)[:15], 16),
            )
    finally:
        answers.close()


async def _described(endpoint: Endpoint, key: str | None) -> dict[str, Any]:
    """What the endpoint says of the model; empty where it does not list its models."""
    url = f"{endpoint.url.rstrip('/').removesuffix('/chat/completions')}/models"
    headers = {"Authorization": f"Bearer {key.strip()}"} if key else {}
    try:
        proxy = environment_proxy(endpoint.url)
        async with httpx.AsyncClient(timeout=_PATIENCE_S, proxy=proxy, trust_env=False) as http:
            answer = await http.get(url, headers=headers)
    except httpx.HTTPError as error:
        raise RunError(f"{url} does not answer: {error}", hint="is it running, and is the address right?") from None
    if answer.status_code != 200 or len(answer.content) > _MAX_BODY:
        return {}  # some servers have no list; whether the model answers is seen when it is asked
    try:
        value: Any = loads(answer.content)
    except ValueError:
        return {}
    listed = cast("Mapping[str, Any]", value).get("data") if isinstance(value, Mapping) else None
    entries = [cast("Mapping[str, Any]", e) for e in cast("list[Any]", listed or []) if isinstance(e, Mapping)]
    mine = next((entry for entry in entries if entry.get("id") == endpoint.model), None)
    if mine is None and entries:
        names = ", ".join(str(entry.get("id"))[:80] for entry in entries[:20])
        raise InputError(f"{endpoint.url} serves no model {endpoint.model!r}", hint=f"it serves: {names}")
    return {name: item for name, item in (mine or {}).items() if name not in _CHANGES}


def parse_price(text: str) -> Price:
    """`INPUT/OUTPUT`, in USD per million tokens.

    Raises:
        InputError: it is not that.
    """
    first, slash, second = text.partition("/")
    try:
        if slash:
            return Price(input=Decimal(first), output=Decimal(second))
    except ValueError:
        pass
    except ArithmeticError:
        pass
    raise InputError(f"not a price: {text!r}", hint="write INPUT/OUTPUT in USD per million tokens, such as 0.15/0.60")
