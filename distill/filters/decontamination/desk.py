"""A gateway for `distill filter`: where a chain's own section names the teacher that is asked for verdicts.

A chain is no run, so the gateway lives in a thread of its own for as long as the rows are filtered. Answers are kept in
the workspace's store like all others: the same file filtered again asks nothing.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from distill.assets import workspace_of
from distill.errors import InputError
from distill.filters.decontamination.doubts import Opinion, Pair
from distill.recipe import Budget, TeacherConfig, VerdictConfig

if TYPE_CHECKING:
    from distill.gateway import Gateway

__all__ = ["VerdictDesk"]

_NAME = "verdict"


class VerdictDesk:
    """Use it as `with VerdictDesk(folder) as desk:` and pass `desk.opinion` to the chain's context. A gateway is opened
    when the first verdict is asked for.

    Raises:
        InputError: the chain names a teacher without its section.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: list[_Line] = []

    def __enter__(self) -> VerdictDesk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for line in self._open:
            line.close()

    def opinion(self, config: VerdictConfig) -> Opinion:
        """Whoever answers for a step with this section."""
        if isinstance(config.teacher, str):
            raise InputError(
                f"there is no recipe here that says who {config.teacher!r} is",
                field="verdict.teacher",
                hint="give provider, model, base_url and api_key in the chain: verdict: {teacher: {provider: …}}",
            )
        line = _Line(config.teacher, Budget(usd=config.usd), self._folder)
        self._open.append(line)
        return line.ask


class _Line:
    """One teacher's gateway, in a thread with a loop of its own."""

    def __init__(self, config: TeacherConfig, budget: Budget, folder: Path) -> None:
        self._config, self._budget, self._folder = config, budget, folder
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._gateway: Gateway | None = None
        self._leave: asyncio.Event | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None

    def ask(self, pairs: Sequence[Pair]) -> list[bool | None]:
        """Verdicts on the pairs.

        Raises:
            DistillError: the teacher cannot be asked at all (no key, no price under a cap, the cap is reached).
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="verdicts", daemon=True)
            self._thread.start()
            self._ready.wait()
        if self._error is not None or self._loop is None or self._gateway is None:
            raise self._error or RuntimeError("the verdict's gateway has ended")
        from distill.filters.decontamination.verdict import opinions

        answering = opinions(self._gateway.ask, _NAME, pairs, window=self._config.max_concurrency)
        return asyncio.run_coroutine_threadsafe(answering, self._loop).result()

    def close(self) -> None:
        if self._thread is not None:
            if self._loop is not None and self._leave is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._leave.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # whoever asks is told
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        # The teachers' libraries take a second to load, which only a chain that asks has to wait.
        from distill.gateway import Gateway, open_store, store_address
        from distill.teachers import make_teacher

        self._loop, self._leave = asyncio.get_running_loop(), asyncio.Event()
        store = open_store(workspace_of(self._folder), store_address())
        try:
            teacher = make_teacher(_NAME, self._config)
            run = f"filter-{uuid.uuid4().hex}"
            async with Gateway({_NAME: teacher}, {_NAME: self._config}, store, run=run, budget=self._budget) as gateway:
                self._gateway = gateway
                self._ready.set()
                await self._leave.wait()
        finally:
            store.close()
