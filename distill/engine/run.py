"""One session of a run: rounds of slots through the method and the filters until the target, a cap, or a halt.

Resuming is replaying: a session starts from nothing but the recipe, asks for everything again in the same order,
and the store answers what was paid before. Files appear when the session ends; a killed session leaves only
temporary files and its answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from distill.engine.accounting import Account
from distill.engine.conclude import conclude
from distill.engine.decide import Decider
from distill.engine.description import begun, check_same
from distill.engine.events import Progress, Summary
from distill.engine.export import export
from distill.engine.filling import Emit, Filling
from distill.engine.hook import Hook, ended
from distill.engine.ledger import Ledger
from distill.engine.log import RunLog
from distill.engine.prepare import Prepared
from distill.engine.rundir import RunDir
from distill.engine.session import batching_of, secrets_of, teachers_used
from distill.engine.shards import SealedTeacher, apart_from, budget_of, teachers_of
from distill.engine.standing import Standing
from distill.engine.verdicts import verdicts_by
from distill.errors import Halted, InputError, RunError, first_of
from distill.filters.near.survivors import declared
from distill.gateway import Event, Gateway
from distill.io.disk import disk_error
from distill.io.redact import Redactor
from distill.planning import Shard
from distill.teachers import make_teacher

__all__ = ["Run"]


class Run:
    """A run of a prepared recipe in a directory. `execute` once; `drain` from a signal handler.

    Args:
        detach: end as soon as everything waits for batches at the providers.
        shard: the part of the plan that this run is.
        sealed: ask nobody: slots whose answers are not stored stay pending (`distill unite`).
        origin: what `run.json` says besides, of a shard or of a merged run.
    """

    def __init__(
        self,
        prepared: Prepared,
        directory: RunDir,
        *,
        detach: bool = False,
        shard: Shard | None = None,
        sealed: bool = False,
        origin: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.prepared = prepared
        self.directory = directory
        self.summary: Summary | None = None
        """How the session ended; also where `execute` raises because the run cannot go on."""
        recipe = prepared.recipe
        self._detach = detach
        self._clock, self._sleep = clock, sleep
        self._shard, self._sealed = shard, sealed
        self._origin = dict(origin or {})
        planner = prepared.planner(shard)
        self._account = Account.open(planner.quota(recipe.plan.target))
        self._standing = Standing(self._account, target=self._account.target, clock=clock)
        keys = (*secrets_of(recipe), *prepared.store_secrets())
        self._hook = Hook(recipe.hook, folder=recipe.folder, secrets=keys) if recipe.hook is not None else None
        self.secrets = (*keys, *(self._hook.secrets if self._hook is not None else ()))
        self._redactor = Redactor(self.secrets)
        self._log = RunLog(directory.log, self._redactor)
        self._gateway: Gateway | None = None
        self._store_bytes = 0
        self._ledger = Ledger()
        self._filling = Filling(
            prepared,
            planner,
            self._account,
            ledger=self._ledger,
            log=self._log,
            shard=shard,
            sealed=sealed,
            decided=self._standing.decided,
        )

    # -- from outside ------------------------------------------------------------------------------------------

    def drain(self, reason: str = "interrupted") -> None:
        """Send nothing more; what is in flight is stored and decided, then `execute` returns."""
        self._filling.stop(Halted(reason, hint="the same command continues the run"))
        if self._gateway is not None:
            self._gateway.drain()

    def progress(self) -> Progress:
        """Where the run stands now."""
        return self._standing.progress()

    def exposition(self) -> str:
        """The same as metrics in Prometheus's text format."""
        return self._standing.exposition(run=self.directory.name)

    async def notify(self, error: Exception | None = None) -> list[str]:
        """Tell the recipe's hook how the session ended, after `execute`; `error` is what it raised. Returns what went
        wrong with telling, for a warning."""
        if self._hook is None:
            return []
        event, told = ended(self.prepared.recipe.name, self.directory.path, self.summary, error)
        warnings = await self._hook.tell(event, told)
        with contextlib.suppress(OSError), self._log:
            self._log.write("hook", told=event, warnings=warnings)
        return warnings

    def finished(self) -> Summary | None:
        """The summary of this run if it is complete already, without running anything.

        Raises:
            InputError: the directory holds a run with other inputs.
        """
        description = self.directory.describe()
        if description is None:
            return None
        check_same(description, self.prepared, self._shard, self.directory.path)
        if description.get("state") != "complete" or not self.directory.whole():
            return None
        if description["recipe"].get("dataset") != self.prepared.recipe.public()["dataset"]:
            return None  # the same rows, other training files: replayed for nothing
        summary = Summary.of_last(self.directory.path, description)
        return replace(summary, already_complete=True) if summary is not None else None

    async def execute(self, emit: Emit | None = None) -> Summary:
        """Run the session. Kept rows are handed to `emit` as soon as they are decided.

        Raises:
            InputError: a teacher's secret or price is missing.
            RunLocked: another process writes this directory.
            RunError: the run cannot go on (a refused key, a full disk); files hold what was decided.
        """
        try:
            with self.directory.lock() as before:
                description = self._describe()
                with self._log:
                    self._log.write("session", run=description["id"], inputs=self.prepared.inputs)
                    if before:
                        self._log.write("taken_over", message=f"{before} ended without a word")
                    try:
                        return await self._session(description, emit)
                    except InputError:
                        self.directory.forget()
                        raise
                    except (OSError, RunError) as error:
                        trouble = disk_error(error, self.directory.path) if isinstance(error, OSError) else error
                        self._note(description, trouble)
                        raise trouble from None
        except OSError as error:
            raise disk_error(error, self.directory.path) from None

    # -- a session ---------------------------------------------------------------------------------------------

    async def _session(self, description: dict[str, Any], emit: Emit | None) -> Summary:
        recipe = self.prepared.recipe
        earlier = Summary.of_last(self.directory.path, description)
        teachers = {
            name: SealedTeacher(name, recipe.teachers[name])
            if self._sealed
            else make_teacher(name, recipe.teachers[name], clock=self._clock, sleep=self._sleep)
            for name in teachers_used(recipe, self.prepared.steps)
        }
        batching = None if self._sealed else batching_of(recipe, self.prepared.workspace, detach=self._detach)
        store = self.prepared.open_store()
        try:
            gateway = Gateway(
                teachers,
                teachers_of(recipe, self._shard),
                store,
                run=description["id"],
                budget=budget_of(recipe.budget, self._shard),
                clock=self._clock,
                sleep=self._sleep,
                on_event=self._tell,
                batching=batching,
                groups=recipe.teacher_groups,
                seed=recipe.seed,
                apart=apart_from(self.prepared.inputs, self._shard),
            )
            self.directory.write(description)
            self._gateway = self._standing.gateway = gateway
            chain = self.prepared.chain(verdicts_by(gateway, self._ledger))
            with Decider(
                chain,
                self._account,
                self.directory.path,
                target=self._account.target,
                by_leaf=recipe.plan.balance == "leaf",
                keep=declared(self.prepared.steps),
            ) as decider:
                await self._ask_and_decide(gateway, decider, emit)
                with contextlib.suppress(RunError):  # a figure for people
                    self._store_bytes = store.size()
                if earlier is not None and self._broke_off_before(earlier):
                    decider.discard()
                else:
                    earlier = None
        except BaseExceptionGroup as group:
            raise first_of(group) from None
        finally:
            store.close()
            if batching is not None:
                batching.ledger.close()
        summary = conclude(
            self.prepared,
            self.directory,
            self._account,
            gateway,
            ledger=self._ledger,
            halt=self._filling.halt,
            seconds=self._standing.seconds,
            redactor=self._redactor,
            store_bytes=self._store_bytes,
        )
        if earlier is None:
            dataset = await asyncio.to_thread(export, self.prepared, self._account, self.directory, chain)
            summary = replace(summary, dataset=dataset)
        else:
            # Replay was broken off: the files of the session before hold more, and stay.
            summary = summary.with_rows_of(earlier)
        self.summary = summary
        self._finish(description, summary)
        if summary.state == "failed" and self._filling.halt is not None:
            raise self._filling.halt
        return summary

    def _broke_off_before(self, earlier: Summary) -> bool:
        """Whether this session ended in the middle of replaying an earlier one, whose rows are still there."""
        return (
            self._filling.halt is not None
            and self._account.kept < earlier.counts["kept"]
            and self.directory.rows.is_file()
        )

    async def _ask_and_decide(self, gateway: Gateway, decider: Decider, emit: Emit | None) -> None:
        try:
            async with gateway:
                if self._filling.halt is not None:  # interrupted while the teachers were starting
                    gateway.drain()
                if self._sealed:
                    gateway.seal()
                await self._filling.run(gateway, decider, self.prepared.method(), emit)
        except* RunError as group:
            # Nothing more can be asked or stored; what was decided is good, and is written.
            error = first_of(group)
            if isinstance(error, RunError):
                self._filling.stop(error)
                self._filling.halt = error  # it also counts the answers that could not be stored

    # -- what is written ---------------------------------------------------------------------------------------

    def _describe(self) -> dict[str, Any]:
        """`run.json` of this directory, continued or begun."""
        existing = self.directory.describe()
        if existing is not None:
            check_same(existing, self.prepared, self._shard, self.directory.path)
            recipe = self.prepared.recipe.public()  # budget, limits and layout may have changed
            session = {"recipe": recipe, "state": "running", "sessions": existing["sessions"] + 1}
            return {**existing, **session, **self._origin}
        self.directory.refuse_foreign()
        return {**begun(self.prepared, self._shard), **self._origin}

    def _tell(self, event: Event) -> None:
        self._standing.heard(event)
        # Answers are counted, not logged: a hundred thousand lines would hide the ten that matter.
        if event.kind != "answered":
            self._log.write(event.kind, teacher=event.teacher, message=event.message, seconds=round(event.seconds, 3))

    def _note(self, description: dict[str, Any], error: RunError) -> None:
        """Write down that the session failed, where that can still be written."""
        self._standing.state = "failed"
        self._log.write("end", state="failed", reason=str(error))
        if self.summary is None and (self.directory.path / "run.json").exists():
            with contextlib.suppress(OSError):
                self.directory.write({**description, "state": "failed", "reason": self._redactor(str(error))})

    def _finish(self, description: dict[str, Any], summary: Summary) -> None:
        value = summary.as_json()
        self._standing.state = summary.state
        self._log.write("end", **value)
        self.directory.write(
            {
                **description,
                "state": summary.state,
                "reason": summary.reason,
                "summary": value,
                "leaves": summary.leaves,
            }
        )
