"""`engine: auto`: both engines do the same small load for seconds, and the faster one stays.

Which engine is faster depends on the machine (bfloat16 matrix instructions, a GPU), on the model and on how many
requests come at once, so it is measured with the configured concurrency and remembered in the cache by those three.
Nothing is measured where the answer is known: one engine cannot run here (no fast bfloat16, too little memory), or
requests come by few.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from distill.errors import DistillError, FailureClass, RunError, TeacherError
from distill.io import write_bytes
from distill.io.host import cores, processor
from distill.models import cache_root
from distill.teachers.local.engine import Engine

__all__ = ["choose", "measure", "recall", "remember"]

log = logging.getLogger("distill.teachers.local")

_FEW = 4
"""Up to so many requests at once, llama.cpp is faster everywhere: it reads a third of the bytes for each token."""

_LOAD = 16
"""Most requests of the measuring load."""

_LIMIT_S = 60.0
_LEAST_S = 3.0

Makers = Mapping[str, Callable[[], Engine]]


async def choose(
    makers: Makers,
    *,
    host_key: str,
    concurrency: int,
    load: Callable[[int], list[dict[str, Any]]],
    clock: Callable[[], float] = time.perf_counter,
) -> Engine:
    """The started engine that is to be used.

    Args:
        makers: engine name -> makes it; an `InputError` says that it cannot run the model.
        host_key: what the choice depends on besides the processor: model and concurrency.
        load: makes the request bodies of a load of so many requests.

    Raises:
        DistillError: no engine could be started; the last reason.
    """
    key = f"{processor()} {cores()} cores {host_key}"
    engines: dict[str, Engine] = {}
    refused: DistillError = RunError("no engine was tried")
    for name, make in makers.items():
        try:
            engines[name] = make()
        except DistillError as error:
            log.info("engine %s: %s", name, error.message)
            refused = error
    if not engines:
        raise refused
    if len(engines) == 1:
        return await _started(next(iter(engines.values())), "the only one that can run this model")
    if concurrency <= _FEW:
        return await _first(engines, "llama.cpp", f"max_concurrency is {concurrency}")
    if (known := recall(key)) in engines:
        return await _first(engines, str(known), "it was the faster one when both were measured on this machine")
    rates: dict[str, float] = {}
    best: Engine | None = None
    limit = _LIMIT_S
    # The one that wins where all this is asked goes first: the other then has its time and no more.
    for name, engine in sorted(engines.items(), key=lambda item: item[0] != "transformers"):
        try:
            await engine.start()
            begun = clock()
            rates[name] = await measure(engine, load(min(concurrency, _LOAD)), clock=clock, limit=limit)
            limit = max(_LEAST_S, min(limit, clock() - begun))
        except DistillError as error:
            log.warning("engine %s could not be measured: %s", name, error.message)
            refused = error
            await engine.close()
            continue
        except BaseException:
            await asyncio.shield(engine.close())
            raise
        if best is None or rates[name] > rates[best.name]:
            if best is not None:
                await best.close()
            best = engine
        else:
            await engine.close()
    if best is None:
        raise refused
    if len(rates) == len(engines):  # a failure may pass: what was not compared is not remembered
        remember(key, best.name, rates)
    shown = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
    log.info("engine %s: the faster one (tokens/s: %s)", best.name, shown)
    return best


async def measure(
    engine: Engine, wires: list[dict[str, Any]], *, clock: Callable[[], float], limit: float = _LIMIT_S
) -> float:
    """Tokens written per second over the load, all requests at once; what takes over `limit` seconds does not count.

    Raises:
        TeacherError: the engine failed on the load.
    """
    written = 0
    refusal: TeacherError | None = None

    async def ask(wire: dict[str, Any]) -> None:
        nonlocal written, refusal
        try:
            reply = await engine.send(wire, timeout=limit)
            written += int(orjson.loads(reply.body)["usage"]["completion_tokens"])
        except TeacherError as error:
            if error.failure is not FailureClass.TIMEOUT:  # too slow is a measurement, too
                refusal = error
        except (KeyError, ValueError, TypeError):
            pass

    begun = clock()
    async with asyncio.TaskGroup() as group:
        for wire in wires:
            group.create_task(ask(wire))
    if written == 0 and refusal is not None:
        raise refusal
    return written / max(clock() - begun, 1e-9)


def recall(key: str) -> str | None:
    """The engine remembered for this machine, model and concurrency."""
    try:
        return str(orjson.loads(_memory().read_bytes())[key]["engine"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(key: str, engine: str, rates: Mapping[str, float]) -> None:
    """Keep the choice. A cache that cannot be written is measured again next time, and nothing worse."""
    try:
        known = orjson.loads(_memory().read_bytes())
    except (OSError, ValueError):
        known = {}
    known[key] = {"engine": engine, "tokens_per_second": {name: round(rate, 2) for name, rate in rates.items()}}
    try:
        write_bytes(_memory(), orjson.dumps(known, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    except OSError as error:
        log.warning("the choice of engine could not be kept: %s", error)


def _memory() -> Any:
    return cache_root() / "engines.json"


async def _first(engines: Mapping[str, Engine], name: str, why: str) -> Engine:
    """Start `name`; where that fails, the other."""
    order = sorted(engines.values(), key=lambda engine: engine.name != name)
    try:
        return await _started(order[0], why)
    except DistillError as error:
        log.warning("engine %s: %s", order[0].name, error.message)
        return await _started(order[1], f"{order[0].name} did not start")


async def _started(engine: Engine, why: str) -> Engine:
    try:
        await engine.start()
    except BaseException:
        await asyncio.shield(engine.close())
        raise
    log.info("engine %s: %s", engine.name, why)
    return engine
