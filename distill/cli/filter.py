"""`distill filter`: a chain over anybody's file."""

from __future__ import annotations

import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from distill.cli.console import err, print_json, safe
from distill.errors import InputError

if TYPE_CHECKING:
    from distill.filters import FilterReport

__all__ = ["filter_"]

_EVERY = 15.0  # seconds between two lines where no terminal shows what moves


class Format(StrEnum):
    parquet = "parquet"
    jsonl = "jsonl"


class Engine(StrEnum):
    local = "local"
    ray = "ray"


class OnError(StrEnum):
    fail = "fail"
    skip = "skip"


def filter_(
    source: Annotated[Path, typer.Argument(metavar="IN", help="JSONL, Parquet or CSV file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for kept and rejected rows.")],
    chain: Annotated[str, typer.Option("--chain", "-c", help="Name of a chain in filters/, or a file.")] = "default",
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="Eval set for decontaminate steps that name none; may be given several times.",
        ),
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="Format of the files written.")] = Format.parquet,
    on_error: Annotated[
        OnError, typer.Option("--on-error", help="At a row that cannot be used: stop, or count it and go on.")
    ] = OnError.fail,
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test",
            help="Plant edited copies of eval items among the rows and tell which kinds are found, and how many clean "
            "rows are lost.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Processes that read, and judge what a row says by itself; the results are the same for any number. "
            "Left out: one a core where that pays, which depends on the rows and on the chain; else one.",
        ),
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(
            "--engine",
            help="Where rows are judged: here, or on the Ray cluster that RAY_ADDRESS names (without one: of this "
            "machine), with the same results.",
        ),
    ] = Engine.local,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, last.")] = False,
) -> None:
    """Filter any dataset.

    Duplicates, near-duplicates, leaks from eval sets, refusals, cut answers. Writes OUT/kept.parquet and
    OUT/rejected.parquet; every rejected row says which filter rejected it, why, and what shows it.

    What is found out is kept on the way: a run that was stopped or killed goes on when the same command is given again.

    Memory holds a few batches, and of every row that it keeps what the steps must remember that compare rows with each
    other: exact 28 bytes and its id, minhash its text and about 290 bytes, semantic two bytes for each number of an
    embedding (mapped from disk beyond 262,144 rows). The summary tells what they held.
    """
    from distill.filters import FilterContext, filter_file
    from distill.filters.decontamination.desk import VerdictDesk
    from distill.filters.parallel.choice import fitting
    from distill.io.conversion import without_pandas
    from distill.recipe import EvalSet, load_chain

    if source.is_dir():
        raise InputError(
            "is a folder", path=source, hint="name one file; several files of one kind can be joined first"
        )
    if not source.is_file():
        raise InputError("no such file", path=source)
    steps = load_chain(chain, Path.cwd())
    if all(step.kind != "custom" for step in steps):  # what others make of rows is theirs to say
        without_pandas()
    folder = Path(chain).resolve().parent if Path(chain).is_file() else Path.cwd()
    context = FilterContext(
        folder=folder, eval_sets=[EvalSet(path=str(path.expanduser().resolve())) for path in against or ()]
    )
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with (
        VerdictDesk(folder) as desk,
        Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress,
    ):
        task = progress.add_task(f"reading {source.name}")
        said, shown = 0, time.monotonic()

        def show(report: FilterReport) -> None:
            nonlocal said, shown
            for text in report.notes[said:]:
                err.print(safe(text), style="yellow")
            said = len(report.notes)
            progress.update(task, description=_line(report))
            if not err.is_terminal and time.monotonic() - shown > _EVERY:
                shown = time.monotonic()
                err.print(safe(_line(report)))

        def note(text: str) -> None:
            progress.update(task, description=text)

        context = replace(context, note=note, opinion=desk.opinion)

        try:
            report = filter_file(
                source,
                steps,
                out,
                format=format.value,
                on_error=on_error.value,
                context=context,
                progress=show,
                self_test=self_test,
                workers=workers or fitting(source, steps, context.eval_sets),
                journal=out / ".unfinished",
                engine=engine.value,
            )
        except KeyboardInterrupt:
            err.print("stopped; the same command goes on from here")
            raise typer.Exit(130) from None
    _summary(report, said)
    if json:
        print_json(report.as_json())


def _line(report: FilterReport) -> str:
    rate = report.read / report.seconds if report.seconds else 0.0
    losses = "".join(f", {name} {sum(reasons.values()):,}" for name, reasons in report.rejected.items())
    of, left = "", ""
    if report.rows_expected and rate:
        of = f" of {report.rows_expected:,}"
        seconds = max(report.rows_expected - report.read, 0) / rate
        left = f", {seconds:.0f} s left" if seconds < 120 else f", {seconds / 60:.0f} min left"
    return f"{report.read:,}{of} rows, {rate:,.0f}/s, kept {report.kept:,}{losses}{left}, {report.peak_mb:,.0f} MB"


def _summary(report: FilterReport, said: int) -> None:
    table = Table(title=f"{report.source.name}: {report.read:,} rows", title_justify="left")
    table.add_column("fate")
    table.add_column("reason")
    table.add_column("rows", justify="right")
    table.add_column("CPU s", justify="right")
    table.add_row("kept", "", f"{report.kept:,}", "")
    for name, seconds in report.steps.items():
        for place, (reason, count) in enumerate(report.rejected.get(name, {"": 0}).items()):
            shown = f"{seconds:.2f}" if place == 0 else ""
            table.add_row(name if place == 0 else "", reason, f"{count:,}" if count else "-", shown)
    if report.invalid:
        table.add_row("invalid", "", f"{report.invalid:,}", "")
    err.print(table)
    _decontamination(report)
    _diversity(report)
    for text in (*report.notes[said:], *report.problems):
        err.print(safe(text), style="yellow")
    rest = report.invalid - len(report.problems)
    if rest > 0:
        err.print(f"and {rest:,} more invalid rows", style="yellow")
    err.print(
        f"{report.read:,} rows in = {report.kept:,} kept + {report.rejected_total:,} rejected"
        f" + {report.invalid:,} invalid"
    )
    if report.masked:
        err.print("masked: " + ", ".join(f"{kind} {count:,}" for kind, count in report.masked.items()))
    if report.remembered and report.kept:
        held = ", ".join(f"{name} {size / (1 << 20):,.0f} MB" for name, size in report.remembered.items())
        each = sum(report.remembered.values()) / report.kept
        err.print(f"held of kept rows: {held}; {each:,.0f} bytes a row, which grows with their number")
    err.print(
        f"{report.seconds:.1f} s, {report.cpu_seconds:.1f} CPU s, {report.peak_mb:,.0f} MB at most; "
        f"{report.kept_path} and {report.rejected_path.name}"
    )


def _diversity(report: FilterReport) -> None:
    """How varied the rows are before and after a choice among them."""
    if not report.diversity:
        return
    table = Table("", *report.diversity, title=f"diversity ({report.more_files['diversity']})", title_justify="left")
    for measure in next(iter(report.diversity.values())):
        values = [found[measure] for found in report.diversity.values()]
        shown = [f"{value['covered']:,}" if isinstance(value, dict) else f"{value:,}" for value in values]
        table.add_row(measure.replace("_", " "), *shown)
    err.print(table)


def _decontamination(report: FilterReport) -> None:
    """What was found of every eval set, and what the self-test found of what it planted."""
    if report.decontamination:
        table = Table(title="eval sets", title_justify="left")
        table.add_column("eval set")
        for name in ("items", "leaked rows", "suspect items", "to watch", "threshold"):
            table.add_column(name, justify="right")
        for name, found in (entry for by_set in report.decontamination.values() for entry in by_set.items()):
            table.add_row(
                safe(name),
                f"{found['items']:,}",
                f"{found['contaminated_rows']:,}",
                f"{found['contaminated_items']:,}",
                f"{len(found['watched_items']):,}",
                ", ".join(f"{field} {value:.3f}" for field, value in found["threshold"].items()),
            )
        err.print(table)
    for filter_, tested in report.self_test.items():
        lost = tested["false_positives"]
        table = Table(title=f"self-test of {filter_}, on {tested['field']}", title_justify="left")
        table.add_column("eval set")
        table.add_column("planted")
        for name in ("copies", "found", "recall"):
            table.add_column(name, justify="right")
        for name, kinds in tested["recall"].items():
            for place, (kind, found) in enumerate(kinds.items()):
                shown = (f"{found['planted']:,}", f"{found['found']:,}", f"{found['recall']:.3f}")
                table.add_row(safe(name) if place == 0 else "", kind, *shown)
        err.print(table)
        err.print(
            f"clean rows lost: about {lost['clean_among_them']:,.0f} of {lost['rows']:,} ({lost['rate']:.2%}); dropped "
            f"in all: {lost['dropped_as_paraphrases']:,} as paraphrases, {lost['dropped_as_copies']:,} as copies"
        )
