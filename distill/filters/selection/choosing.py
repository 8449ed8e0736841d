"""A chain over a file that ends with a choice: the chain first, then the pass that needs all of its rows."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distill.errors import InputError
from distill.filters.building import FilterContext
from distill.filters.selection.passes import ChoicePass
from distill.recipe import DiversityStep, FilterStep

if TYPE_CHECKING:
    from distill.filters.files import FilterReport

__all__ = ["filter_and_choose"]


def filter_and_choose(
    source: Path,
    steps: Sequence[FilterStep],
    last: DiversityStep,
    out: Path,
    *,
    format: Literal["parquet", "jsonl"],
    context: FilterContext | None,
    **options: Any,
) -> FilterReport:
    """`filter_file` with `steps`, then the choice; the files of the result appear when all is done.

    Raises:
        InputError: as `filter_file`, or the rows lack a column that the choice names.
    """
    from distill.filters.files import Unsaved, filter_file

    name = last.name or last.kind
    if name in (step.name or step.kind for step in steps):
        raise InputError(f"two steps have the name {name}", field="filters")
    final = {"kept": out / f"kept.{format}", "rejected": out / f"rejected.{format}"}
    if source.resolve() in [path.resolve() for path in final.values()]:
        raise InputError("would be replaced by its own result", path=source, hint="name another folder with --out")
    if out.exists() and not out.is_dir():
        raise InputError("is not a folder", path=out)
    context = context or FilterContext(folder=source.parent.resolve())
    chooser = ChoicePass(last, name, context.folder, context.note)
    out.mkdir(parents=True, exist_ok=True)
    unsaved = Unsaved()
    with tempfile.TemporaryDirectory(prefix=".choosing-", dir=out) as streamed:
        report = filter_file(source, steps, Path(streamed), format=format, context=context, unsaved=unsaved, **options)
        started, cpu_started = time.monotonic(), time.process_time()
        chosen = chooser.run(Path(streamed), out, format)
        unsaved.save(chosen.stays)
        for kind, path in report.more_files.items():
            os.replace(path, out / path.name)
            report.more_files[kind] = out / path.name
    report.kept_path, report.rejected_path = final["kept"], final["rejected"]
    report.kept = chosen.kept
    if chosen.dropped:
        report.rejected[name] = {"not_chosen": chosen.dropped}
    report.diversity = chosen.figures
    if chosen.figures:
        report.more_files["diversity"] = chosen.page
    report.steps[name] = time.process_time() - cpu_started
    report.cpu_seconds += report.steps[name]
    report.seconds += time.monotonic() - started
    return report
