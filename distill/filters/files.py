"""Filter anybody's file, from disk to disk.

Rows are read, judged and written batch by batch, by one process or several (see `parallel`); memory holds a few
batches, one row group a file and what the filters remember. Every row ends in exactly one place: kept, rejected, or
counted as invalid with its line.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from distill.dataset.schema import FATE_FIELDS
from distill.errors import InputError
from distill.filters.building import FilterContext, build_chain, choice_of
from distill.filters.chain import Chain
from distill.filters.cost import cost_notes
from distill.filters.guard import Guard, required, some, verdict_names
from distill.filters.json_lines import ARRAY
from distill.filters.near.survivors import declared, judge_in_order, whole
from distill.filters.parallel.copies import Orders
from distill.filters.parallel.journal import Journal, open_journal
from distill.filters.parallel.key import key_of
from distill.filters.parallel.pool import Pool, open_pool
from distill.filters.parallel.stream import Item, Stream
from distill.filters.reading import Batch, Readers, Source, as_rewritten, open_source
from distill.filters.report import SHOWN, FilterReport
from distill.filters.sampling import sample
from distill.filters.writing import open_writer
from distill.io import write_bytes
from distill.io.memory import peak_memory
from distill.recipe import DecontaminateStep, FilterStep

__all__ = ["FilterReport", "Unsaved", "filter_file"]


def filter_file(
    source: Path,
    steps: Sequence[FilterStep],
    out: Path,
    *,
    format: Literal["parquet", "jsonl"] = "parquet",
    on_error: Literal["fail", "skip"] = "fail",
    context: FilterContext | None = None,
    progress: Callable[[FilterReport], None] | None = None,
    self_test: bool = False,
    workers: int = 1,
    journal: Path | None = None,
    engine: Literal["local", "ray"] = "local",
    unsaved: Unsaved | None = None,
) -> FilterReport:
    """Filter a JSONL, Parquet or CSV file into `out/kept.*` and `out/rejected.*`.

    Both files have all columns of the input in its order; rejected rows have filter, reason, evidence, matched_id and
    score besides. A file without an `id` column gets one (`line-N`, or `row-N` of a Parquet file). Both files appear
    when all is done.

    Args:
        on_error: `fail` ends at the first row that cannot be used, and writes nothing. `skip` counts such rows and
            goes on; a column of the input that has the name of a verdict's column is then left as it is, and the
            verdict's columns are called `distill_filter` and so on.
        progress: called after every batch with the books so far.
        self_test: say what decontaminating filters find of copies of eval items, planted among a sample of the rows.
        workers: processes that read, and judge what each row says by itself; the results are the same for any number.
            A script that asks for several keeps its own code under `if __name__ == "__main__":`, as any pool wants it.
        journal: a folder for what is found out on the way. A run that was broken off goes on from there when it is
            called again with the same rows and steps; at a clean end the folder is removed.
        engine: `ray` judges on the cluster that RAY_ADDRESS names, or on one of this machine, with the same results; it
            has no use for `workers` and `journal`.
        unsaved: takes what steps would hand on to later runs (`index`), for a caller that drops further rows.

    Raises:
        InputError: the input, a step or (with `fail`) a row is wrong; names file, line and field.
        RunError: a worker process was lost, or there is no cluster.
    """
    judging, choice = choice_of(steps)
    if choice is not None:
        from distill.filters.selection.choosing import filter_and_choose

        return filter_and_choose(
            source,
            judging,
            choice,
            out,
            format=format,
            on_error=on_error,
            context=context,
            progress=progress,
            self_test=self_test,
            workers=workers,
            journal=journal,
            engine=engine,
        )
    if out.exists() and not out.is_dir():
        raise InputError("is not a folder", path=out)
    if engine == "ray":
        from distill.filters.cluster.engine import connect

        connect()
        workers, journal = 1, None
    report = FilterReport(source, out / f"kept.{format}", out / f"rejected.{format}", workers=workers)
    if source.resolve() in (report.kept_path.resolve(), report.rejected_path.resolve()):
        raise InputError("would be replaced by its own result", path=source, hint="name another folder with --out")
    context = context or FilterContext(folder=source.parent.resolve())
    skip = on_error == "skip"
    run = _Run(steps, context, report, format, skip, progress or _unseen, self_test, engine, unsaved)
    with contextlib.ExitStack() as held:
        if journal is not None:
            options = {"skip": skip}
            run.journal = held.enter_context(
                open_journal(journal, lambda: key_of(source, steps, context, options), report.notes.append)
            )
        if workers > 1:
            run.pool = held.enter_context(open_pool(workers, Orders.early(steps, context)))
        try:
            run.all()
        except InputError as error:
            if error.path is not None or not run.opened:
                raise
            raise type(error)(error.message, path=source, hint=error.hint) from None
    if run.pool is not None:
        report.cpu_seconds += run.pool.cpu_seconds
        report.worker_peak_mb = run.pool.peak / (1 << 20)
    return report


@dataclass(slots=True)
class Unsaved:
    """What steps would hand on to later runs, while it is open which of the kept rows stay."""

    chain: Chain | None = None
    numbers: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict[str, list[NDArray[np.int64]]])
    """Of every kept row, the number under which a step remembers it, by step."""

    def keep(self, numbers: dict[str, NDArray[np.int64]]) -> None:
        """The kept rows of a batch."""
        for name, part in numbers.items():
            self.numbers.setdefault(name, []).append(part)

    def save(self, stays: NDArray[np.bool_]) -> None:
        """Hand on what stays of the kept rows."""
        if self.chain is not None:
            self.chain.forget({name: np.concatenate(parts)[~stays] for name, parts in self.numbers.items()})
            self.chain.save()


@dataclass(slots=True)
class _Run:
    """One way from a file to its results."""

    steps: Sequence[FilterStep]
    context: FilterContext
    report: FilterReport
    format: Literal["parquet", "jsonl"]
    skip: bool
    progress: Callable[[FilterReport], None]
    self_test: bool
    engine: Literal["local", "ray"]
    unsaved: Unsaved | None = None
    pool: Pool | None = None
    journal: Journal | None = None
    counting: bool = True
    opened: bool = False
    """Whether what is wrong now is wrong with the rows, not with the chain."""
    started: tuple[float, float] = field(default_factory=lambda: (time.monotonic(), time.process_time()))

    def all(self) -> None:
        report, steps = self.report, self.steps
        needed = required(steps)
        ranking = declared(steps)
        # Other processes take a while to start, in which this one has something to do.
        chain = None if self.pool is None else build_chain(steps, self.context)
        opened = self._open(frozenset(name for fields in needed for name in fields))
        if chain is None:
            chain = build_chain(steps, self.context)
        report.notes += [*cost_notes(steps), *self._unused()]
        names = verdict_names(opened, self.skip, report.notes)
        self._calibrate(opened, chain)
        self.opened = True
        guard = Guard(opened, needed, self._invalid)
        schema = opened.schema if "id" in opened.schema.names else opened.schema.append(pa.field("id", pa.string()))
        fates = pa.schema([*schema, *(kind.with_name(name) for name, kind in zip(names, FATE_FIELDS, strict=True))])
        inputs = opened.schema.names
        with (
            open_writer(report.kept_path, schema, self.format, inputs) as kept,
            open_writer(report.rejected_path, fates, self.format, inputs) as rejected,
        ):
            batches = (guard.check(batch) for batch in (whole(opened.batches()) if ranking else opened.batches()))
            for item in self._judged(chain, ((usable, rows) for usable, rows in batches if rows.num_rows)):
                usable, verdicts = item.of, item.verdicts
                keep, table = verdicts.keep, verdicts.rewritten(usable.table)
                originals = as_rewritten(usable.originals, verdicts.columns)
                kept.write(table.filter(pa.array(keep)), some(originals, keep))
                rejected.write(verdicts.rejected_table(table, names=names), some(originals, ~keep))
                report.enter(verdicts.filter, verdicts.reason)
                chain.settle(verdicts)
                if self.unsaved is not None:
                    self.unsaved.keep({name: numbers[keep] for name, numbers in verdicts.numbers.items()})
                self._account(chain)
            if not report.read and not self.skip:
                raise InputError("the file holds no rows", path=report.source)
        if self.unsaved is None:
            chain.save()
        else:
            self.unsaved.chain = chain
        report.calibrated = chain.calibrated
        report.decontamination = chain.reports()
        if report.decontamination:
            path = report.more_files["decontamination"] = report.kept_path.parent / "decontamination.json"
            write_bytes(path, orjson.dumps(report.decontamination, option=orjson.OPT_INDENT_2))
        self._account(chain)

    def _unused(self) -> list[str]:
        """What the user may take for done and is not: comparing with eval sets."""
        steps = [step for step in self.steps if isinstance(step, DecontaminateStep)]
        given = self.context.eval_sets
        if given and all(step.against for step in steps):
            named = ", ".join(each.name or each.path for each in given)
            hint = "add `- kind: decontaminate` without `against` to the chain"
            raise InputError(f"no step compares rows with the eval sets that are given ({named})", hint=hint)
        if any(not step.against for step in steps) and not given:
            return ["decontaminate: no eval set is named, so nothing was compared (--against FILE, or `against`)"]
        return []

    def _open(self, text: frozenset[str]) -> Source:
        """The file, after its first reading."""
        report, journal = self.report, self.journal
        readers = Readers(originals=self.format == "jsonl")
        if self.pool is not None:
            readers = replace(readers, over=self.pool.over)
        if journal is not None:
            readers = replace(readers, once=partial(journal.fact, "scan"))
        opened = open_source(report.source, self._invalid, text=text, readers=readers)
        report.rows_expected = opened.expected
        if not opened.schema.names and not report.invalid and not self.skip:
            raise InputError("the file holds no rows", path=report.source)
        return opened

    def _calibrate(self, opened: Source, chain: Chain) -> None:
        report = self.report
        if chain.needs_sample or self.self_test:
            # One more pass over the file, in which nothing is judged and nothing counted.
            self.counting = False
            some = sample(opened.batches(), opened.schema)
            self.counting = True
            chain.calibrate(some)
            if self.self_test:
                report.self_test = _self_test(self.steps, self.context, some)
        report.calibrated = chain.calibrated
        warned = {name: set_by["warning"] for name, set_by in chain.calibrated.items() if "warning" in set_by}
        report.notes += [f"{name}: {warning}" for name, warning in warned.items()]
        if report.notes:
            self.progress(report)  # what a threshold would do is said before it does it

    def _judged(self, chain: Chain, batches: Iterator[tuple[Batch, pa.Table]]) -> Iterator[Item[Batch]]:
        ranking = declared(self.steps)
        if ranking is not None:  # all rows at once, in another order
            return (Item(usable, rows, judge_in_order(chain, rows, ranking)) for usable, rows in batches)
        orders = Orders.of(self.steps, chain, self.context)
        if self.engine == "ray":
            from distill.filters.cluster.engine import Cluster

            return Cluster(chain, self.steps, orders).judge(batches)
        return Stream(chain, self.steps, orders, pool=self.pool, journal=self.journal).judge(batches)

    def _invalid(self, place: int, why: str) -> None:
        report = self.report
        if not self.counting:
            return
        if not self.skip:
            hint = "use --on-error skip to go on without such rows; they are counted"
            if why == ARRAY:
                hint = f"write one object a line: jq -c '.[]' {report.source.name} > rows.jsonl"
            raise InputError(why, path=report.source, line=place, hint=hint)
        report.read += 1
        report.invalid += 1
        if len(report.problems) < SHOWN:
            report.problems.append(f"{report.source.name}:{place}: {why}")

    def _account(self, chain: Chain) -> None:
        report, (started, cpu_started) = self.report, self.started
        report.seconds, report.cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
        rejected = report.rejected
        report.rejected = {name: dict(sorted(rejected[name].items())) for name in chain.names if name in rejected}
        report.steps = dict(chain.cpu_seconds)
        report.masked = chain.masked
        report.peak_mb = peak_memory() / (1 << 20)
        report.remembered = chain.remembered
        self.progress(report)


def _unseen(report: FilterReport) -> None:
    """Progress that nobody looks at."""


def _self_test(steps: Sequence[FilterStep], context: FilterContext, rows: pa.Table) -> dict[str, Any]:
    from distill.filters.decontamination.decontaminate import DecontaminateFilter
    from distill.filters.decontamination.selftest import self_test

    found: dict[str, Any] = {}
    for number, step in enumerate(step for step in steps if isinstance(step, DecontaminateStep)):
        filter_ = build_chain([step], context).steps[0]
        if isinstance(filter_, DecontaminateFilter) and filter_.reports:
            name = filter_.name if number == 0 or step.name else f"{filter_.name}_{number + 1}"
            found[name] = self_test(filter_, step, rows)
    if not found:
        hint = "add a step of the kind decontaminate, and name its eval sets there or with --against"
        raise InputError("nothing to test: no step compares rows with an eval set", field="self-test", hint=hint)
    return found
