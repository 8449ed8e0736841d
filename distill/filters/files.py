"""Filter anybody's file, from disk to disk.

Rows are read, judged and written batch by batch; memory holds one batch, one row group a file and what the filters
remember. Every row ends in exactly one place: kept, rejected, or counted as invalid with its line.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import orjson
import pyarrow as pa
import xxhash

from distill.dataset import RowWriter
from distill.dataset.schema import FATE_FIELDS
from distill.errors import InputError
from distill.filters.building import FilterContext, build_chain
from distill.filters.chain import Chain
from distill.filters.cost import cost_notes
from distill.filters.reading import Batch, Source, as_rewritten, open_source
from distill.filters.sampling import sample
from distill.filters.near.survivors import declared, judge_in_order, whole
from distill.filters.text import present
from distill.io import atomic_path, write_bytes
from distill.io.memory import peak_memory
from distill.recipe import DecontaminateStep, DiversityStep, FilterStep

__all__ = ["FilterReport", "filter_file"]

_SHOWN = 20  # invalid rows that a report lists


@dataclass(slots=True)
class FilterReport:
    """What became of the rows. `read == kept + rejected_total + invalid`, always."""

    source: Path
    kept_path: Path
    rejected_path: Path
    read: int = 0
    kept: int = 0
    rejected: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    """By filter and reason."""
    invalid: int = 0
    problems: list[str] = field(default_factory=list[str])
    """The first invalid rows: file, line, why."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    steps: dict[str, float] = field(default_factory=dict[str, float])
    """CPU seconds by filter."""
    peak_mb: float = 0.0
    """Most memory the process has held."""
    notes: list[str] = field(default_factory=list[str])
    calibrated: dict[str, Any] = field(default_factory=dict[str, Any])
    """Thresholds that were set by the rows or by clean ones, by filter."""
    decontamination: dict[str, Any] = field(default_factory=dict[str, Any])
    """What each decontaminating filter found, by eval set; written beside the rows."""
    masked: dict[str, int] = field(default_factory=dict[str, int])
    """Values that filters replaced in kept and rejected rows, by kind."""
    self_test: dict[str, Any] = field(default_factory=dict[str, Any])
    """What decontaminating filters find of planted copies, by filter; empty unless asked for."""
    diversity: dict[str, Any] = field(default_factory=dict[str, Any])
    """Measures of the rows before and after a choice among them, and of a random choice."""
    more_files: dict[str, Path] = field(default_factory=dict[str, Path])

    @property
    def rejected_total(self) -> int:
        return sum(sum(reasons.values()) for reasons in self.rejected.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "in": self.read,
            "kept": self.kept,
            "rejected": self.rejected,
            "rejected_total": self.rejected_total,
            "invalid": self.invalid,
            "problems": self.problems,
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "steps_cpu_seconds": {name: round(seconds, 3) for name, seconds in self.steps.items()},
            "peak_mb": round(self.peak_mb, 1),
            "calibrated": self.calibrated,
            **({"self_test": self.self_test} if self.self_test else {}),
            "masked": self.masked,
            **({"diversity": self.diversity} if self.diversity else {}),
            "files": {
                "kept": str(self.kept_path),
                "rejected": str(self.rejected_path),
                **{name: str(path) for name, path in self.more_files.items()},
            },
        }


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

    Raises:
        InputError: the input, a step or (with `fail`) a row is wrong; names file, line and field.
    """
    if steps and isinstance(steps[-1], DiversityStep):
        from distill.filters.selection.choosing import filter_and_choose

        return filter_and_choose(
            source,
            steps[:-1],
            steps[-1],
            out,
            format=format,
            on_error=on_error,
            context=context,
            progress=progress,
            self_test=self_test,
        )
    started, cpu_started = time.monotonic(), time.process_time()
    report = FilterReport(source, out / f"kept.{format}", out / f"rejected.{format}")
    skip = on_error == "skip"
    counting = True

    def invalid(place: int, why: str) -> None:
        if not counting:
            return
        if not skip:
            hint = "use --on-error skip to go on without such rows; they are counted"
            raise InputError(why, path=source, line=place, hint=hint)
        report.read += 1
        report.invalid += 1
        if len(report.problems) < _SHOWN:
            report.problems.append(f"{source.name}:{place}: {why}")

    if out.exists() and not out.is_dir():
        raise InputError("is not a folder", path=out)
    if source.resolve() in (report.kept_path.resolve(), report.rejected_path.resolve()):
        raise InputError("would be replaced by its own result", path=source, hint="name another folder with --out")
    required = _required(steps)
    opened = open_source(source, invalid, text=frozenset(name for fields in required for name in fields))
    if not opened.schema.names and not report.invalid and not skip:
        raise InputError("the file holds no rows", path=source)
    context, ranking = context or FilterContext(folder=source.parent.resolve()), declared(steps)
    chain = build_chain(steps, replace(context, whole=True))
    report.notes += cost_notes(steps)
    verdict_names = _verdict_names(opened, skip, report)
    if chain.needs_sample or self_test:
        # One more pass over the file, in which nothing is judged and nothing counted.
        counting = False
        some = sample(opened.batches(), opened.schema)
        counting = True
        chain.calibrate(some)
        if self_test:
            report.self_test = _self_test(steps, context, some)
    report.calibrated = chain.calibrated
    report.notes += [f"{name}: {set_by['warning']}" for name, set_by in chain.calibrated.items() if "warning" in set_by]
    if report.notes and progress is not None:
        progress(report)  # what a threshold would do is said before it does it
    guard = _Guard(opened, required, invalid)
    schema = opened.schema if "id" in opened.schema.names else opened.schema.append(pa.field("id", pa.string()))
    fates = pa.schema([*schema, *(kind.with_name(name) for name, kind in zip(verdict_names, FATE_FIELDS, strict=True))])
    inputs = opened.schema.names
    with (
        _writer(report.kept_path, schema, format, inputs) as kept,
        _writer(report.rejected_path, fates, format, inputs) as rejected,
    ):
        for batch in whole(opened.batches()) if ranking else opened.batches():
            usable, judged = guard.check(batch)
            report.read += usable.table.num_rows
            if usable.table.num_rows:
                verdicts = judge_in_order(chain, judged, ranking) if ranking else chain.judge(judged)
                keep, table = verdicts.keep, verdicts.rewritten(usable.table)
                originals = as_rewritten(usable.originals, verdicts.columns)
                kept.write(table.filter(pa.array(keep)), _some(originals, keep))
                rejected.write(verdicts.rejected_table(table, names=verdict_names), _some(originals, ~keep))
                report.kept += int(keep.sum())
            _account(report, chain, started, cpu_started)
            if progress is not None:
                progress(report)
    chain.save()
    report.calibrated = chain.calibrated
    report.decontamination = chain.reports()
    if report.decontamination:
        path = report.more_files["decontamination"] = out / "decontamination.json"
        write_bytes(path, orjson.dumps(report.decontamination, option=orjson.OPT_INDENT_2))
    _account(report, chain, started, cpu_started)
    return report


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


class _Writer(Protocol):
    def write(self, table: pa.Table, originals: list[dict[str, Any]] | None) -> None: ...


@dataclass(frozen=True, slots=True)
class _Parquet:
    writer: RowWriter

    def write(self, table: pa.Table, originals: list[dict[str, Any]] | None) -> None:
        self.writer.write(table)


@dataclass(frozen=True, slots=True)
class _Lines:
    """JSON Lines. Rows that came as JSON go out as they came: their absent keys stay absent."""

    file: Any
    path: Path
    added: list[str]
    """Columns that the input does not have."""

    def write(self, table: pa.Table, originals: list[dict[str, Any]] | None) -> None:
        if originals is None:
            rows = table.to_pylist(maps_as_pydicts="strict")
        else:
            rows = [{**row, **more} for row, more in zip(originals, table.select(self.added).to_pylist(), strict=True)]
            for row, id_ in zip(rows, table.column("id").to_pylist(), strict=True):
                row["id"] = id_ if row.get("id") is None else row["id"]
        for row in rows:
            try:
                self.file.write(orjson.dumps(row, default=_plain, option=orjson.OPT_APPEND_NEWLINE))
            except TypeError as error:
                raise InputError(f"cannot be written as JSON: {error}", path=self.path, hint="use Parquet") from None


@contextlib.contextmanager
def _writer(path: Path, schema: pa.Schema, format: str, inputs: list[str]) -> Generator[_Writer]:
    if format == "parquet":
        with RowWriter(path, schema) as writer:
            yield _Parquet(writer)
    else:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            yield _Lines(file, path, [name for name in schema.names if name not in inputs])
            file.flush()


class _Guard:
    """Takes the rows out of a batch that no chain can judge: without a field that a step names, or with an id that
    came before. Rows without an id get one."""

    def __init__(self, source: Source, required: list[tuple[str, ...]], invalid: Callable[[int, str], None]) -> None:
        self._unit = source.unit
        self._required = required
        self._invalid = invalid
        self._seen: set[int] = set()
        self._has_id = "id" in source.schema.names

    def check(self, batch: Batch) -> tuple[Batch, pa.Table]:
        """The usable rows, and the table for the chain: the same with ids as text."""
        usable = np.ones(batch.table.num_rows, bool)
        for fields in self._required:
            there = present(batch.table, fields)
            for row in np.flatnonzero(usable & ~there).tolist():
                absent = [name for name in fields if not present(batch.table.slice(row, 1), (name,))[0]]
                self._invalid(batch.places[row], f"no {' and no '.join(absent) or 'text'}")
            usable &= there
        names = self._names(batch, usable)
        if not usable.all():
            chosen = np.flatnonzero(usable).tolist()
            originals = batch.originals and [batch.originals[row] for row in chosen]
            batch = Batch(batch.table.take(chosen), [batch.places[row] for row in chosen], originals)
            names = [names[row] for row in chosen]
        table, text_ids = batch.table, pa.array(names, pa.string())
        if not self._has_id:
            if "id" in table.column_names:  # rows without any column
                table = table.drop_columns("id")
            table = table.append_column("id", text_ids)
        elif pa.types.is_string(table.schema.field("id").type):
            table = table.set_column(table.column_names.index("id"), "id", text_ids)
        judged = table.set_column(table.column_names.index("id"), "id", text_ids)
        return Batch(table, batch.places, batch.originals), judged

    def _names(self, batch: Batch, usable: np.ndarray) -> list[str]:
        given = batch.table.column("id").to_pylist() if self._has_id else [None] * batch.table.num_rows
        names = [
            f"{self._unit}-{place}" if value is None or value == "" else str(value)
            for value, place in zip(given, batch.places, strict=True)
        ]
        if self._has_id:
            for row in np.flatnonzero(usable).tolist():
                key = xxhash.xxh3_64_intdigest(names[row].encode("utf-8"))
                if key in self._seen and given[row] in (None, ""):
                    names[row] += "_"  # another row has the name that this one was given
                elif key in self._seen:
                    self._invalid(batch.places[row], f"the id {names[row]!r} came before")
                    usable[row] = False
                self._seen.add(key)
        return names


def _verdict_names(source: Source, skip: bool, report: FilterReport) -> list[str]:
    names = [kind.name for kind in FATE_FIELDS]
    clash = [name for name in names if name in source.schema.names]
    if not clash:
        return names
    if not skip:
        raise InputError(
            f"columns {', '.join(clash)} have the names of the verdict's columns",
            path=source.path,
            line=1,
            hint="rename them, or use --on-error skip: the verdict's columns are then called distill_filter and so on",
        )
    prefix = "distill_"
    while any(f"{prefix}{name}" in source.schema.names for name in names):
        prefix = f"distill_{prefix}"
    report.notes.append(f"the input has columns {', '.join(clash)}: the verdict's columns begin with {prefix}")
    return [f"{prefix}{name}" for name in names]


def _required(steps: Sequence[FilterStep]) -> list[tuple[str, ...]]:
    """The fields that steps name; a schema is about an answer even when it names none. Masking takes what is there."""
    named: list[tuple[str, ...]] = []
    for step in steps:
        fields: tuple[str, ...] = getattr(step, "fields", ())
        if step.kind != "pii" and (fields or step.kind == "schema"):
            named.append(fields or ("response",))
    return list(dict.fromkeys(named))


def _some(originals: list[dict[str, Any]] | None, keep: np.ndarray) -> list[dict[str, Any]] | None:
    return originals and [originals[row] for row in np.flatnonzero(keep)]


def _account(report: FilterReport, chain: Chain, started: float, cpu_started: float) -> None:
    report.rejected = {name: dict(sorted(reasons.items())) for name, reasons in chain.counts.items() if reasons}
    report.seconds, report.cpu_seconds = time.monotonic() - started, time.process_time() - cpu_started
    report.steps = dict(chain.cpu_seconds)
    report.masked = chain.masked
    report.peak_mb = peak_memory() / (1 << 20)


def _plain(value: Any) -> Any:
    from decimal import Decimal

    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")
