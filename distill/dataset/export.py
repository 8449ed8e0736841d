"""From `rows.parquet` to the folder that trains a student: splits in a training layout, and the card.

Two passes, a batch at a time: the first finds groups and leaves, the second writes. The same rows, seed and
configuration give the same bytes.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill.dataset.card import CardFacts, render_card
from distill.dataset.formats import Format, to_training
from distill.dataset.splits import Splitter
from distill.errors import InputError, UnreadableText
from distill.io import atomic_path, write_text
from distill.recipe import DatasetConfig

__all__ = ["DatasetReport", "write_dataset"]

pc: Any = pyarrow.compute
_BATCH = 1024
_COLUMNS = ("id", "messages", "chosen", "rejected", "reasoning", "answer")
_LATER = ("logprobs",)
"""Columns that runs of earlier versions lack."""


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """What was written."""

    path: Path
    format: Format
    rows: dict[str, int] = field(default_factory=dict[str, int])
    """By split."""
    groups: int = 0
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "format": self.format,
            "rows": self.rows,
            "groups": self.groups,
            "notes": list(self.notes),
        }


def write_dataset(
    rows_parquet: Path,
    out: Path,
    config: DatasetConfig,
    *,
    seed: int,
    card: CardFacts,
    extra: Callable[[int], Sequence[dict[str, Any]]] | None = None,
    stays: NDArray[np.bool_] | None = None,
) -> DatasetReport:
    """Write `out/train.jsonl`, `out/validation.jsonl` and `out/README.md`, in the order of the rows.

    Without rows for it there is no validation file: an empty one could not be loaded.

    Args:
        stays: of every row, whether it is written; left out, all are.
        extra: given the number of training rows, conversations (`id`, `messages`) of another set that follow them.

    Raises:
        InputError: the file cannot be read, or a row does not fit the layout.
        UnreadableText: a text could not be written and read back exactly.
    """
    splitter = Splitter(share=config.validation, seed=seed)
    leaves: Counter[str] = Counter()
    for batch in _read(rows_parquet, ("slot", "seeds", "leaf"), stays):
        for slot, seeds, leaf in zip(*(batch.column(i).to_pylist() for i in range(3)), strict=True):
            splitter.add(slot, seeds or (), leaf or ())
            leaves["/".join(leaf or ())] += 1
    total = leaves.total()
    layout, notes = _layout(rows_parquet, config, stays)
    held_back = splitter.choose() if config.validation else 0
    if config.validation and not held_back and total:
        notes.append(
            f"no validation split: the rows form {splitter.groups} group(s) of related rows, too few to divide"
        )
    added = extra(total - held_back) if extra is not None else ()
    rows = {"train": total - held_back + len(added), **({"validation": held_back} if held_back else {})}
    with contextlib.ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        said = hashlib.sha256()

        def write(split: str, item: dict[str, Any]) -> None:
            line = _line(item)
            said.update(split.encode() + line)
            files[split].write(line)

        for split in rows:
            temporary = stack.enter_context(atomic_path(out / f"{split}.jsonl"))
            files[split] = stack.enter_context(temporary.open("wb"))
        for batch in _read(rows_parquet, ("slot", "seeds", *_COLUMNS), stays, also=_LATER):
            for record in batch.to_pylist():
                side = "validation" if splitter.is_validation(record["slot"], record["seeds"] or ()) else "train"
                item = to_training(record, layout, template=config.reasoning_template)
                write(side, {"id": record["id"], **item})
        for record in added:  # without a chain of thought; as messages both layouts are the same
            item = to_training(record, "messages" if layout == "reasoning" else layout)
            write("train", {"id": record["id"], **item})
    if not held_back:
        (out / "validation.jsonl").unlink(missing_ok=True)
    if config.mix is not None:
        card = replace(card, mixed={Path(config.mix.path).name: len(added)})
    text = render_card(
        card,
        format=layout,
        license=config.license,
        rows=rows,
        leaves=leaves,
        groups=splitter.groups,
        digest=said.hexdigest()[:16],
    )
    write_text(out / "README.md", text)
    return DatasetReport(out, layout, rows, splitter.groups, tuple(notes))


def _layout(rows_parquet: Path, config: DatasetConfig, stays: NDArray[np.bool_] | None) -> tuple[Format, list[str]]:
    """The layout that is asked for; for `auto` the one that every row fits, with a remark where that is the lesser."""
    if config.format != "auto":
        return config.format, []
    total = pairs = chains = 0
    for batch in _read(rows_parquet, ("chosen", "rejected", "reasoning"), stays):
        total += batch.num_rows
        pairs += pc.and_(batch["chosen"].is_valid(), batch["rejected"].is_valid()).true_count
        chains += pc.greater(pc.binary_length(batch["reasoning"]), 0).true_count
    if total and pairs == total:
        return "preference", []
    if total and chains == total:
        return "reasoning", []
    without = f"written as messages: {total - chains} of {total} rows have no chain of thought"
    return "messages", [without] if chains else []


def _read(
    path: Path, columns: tuple[str, ...], stays: NDArray[np.bool_] | None, *, also: tuple[str, ...] = ()
) -> Iterator[pa.RecordBatch]:
    """Batches of these columns, and of those of `also` that are there; of the rows that stay."""
    first = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise InputError(f"not the rows of a run: no column {', '.join(missing)}", path=path)
            wanted = [*columns, *(name for name in also if name in file.schema_arrow.names)]
            for batch in file.iter_batches(batch_size=_BATCH, columns=wanted):
                batch, first = batch.select(wanted), first + batch.num_rows
                yield batch if stays is None else batch.filter(pa.array(stays[first - batch.num_rows : first]))
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot be read: {str(error).splitlines()[0]}", path=path) from None


def _line(item: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE)
    except (TypeError, ValueError) as error:
        raise UnreadableText(f"row {item['id']}: {error}") from None
