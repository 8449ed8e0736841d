"""What a prediction must know of a training: its rows as tokens, its models' configurations, and its batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distill.recipe import TrainConfig
from distill.train import marking, pairing
from distill.train.data import TrainData
from distill.train.examples import prepare
from distill.train.marked import MarkedData
from distill.train.order import batches
from distill.train.pairs import PairData
from distill.train.passes import cut
from distill.train.step import Shape
from distill.train.template import IGNORE, Encoded, Encoder

__all__ = ["Job", "encoded", "micro_batches", "sequences_of"]


@dataclass(frozen=True)
class Job:
    """All that prediction needs to know of a training."""

    sequences: tuple[tuple[tuple[list[int], int, int], ...], ...]
    """A row's sequences (two of a pair): ids, tokens before the first trained one, trained tokens."""
    dropped: int
    model: Any
    """The model's configuration."""
    dtype: str
    cpu: bool
    seed: int
    libraries: int
    teacher: Any = None
    """The configuration of the local teacher of a distillation."""


def sequences_of(examples: Sequence[Encoded]) -> tuple[tuple[tuple[list[int], int, int], ...], ...]:
    """Rows of supervised training as `Job.sequences` has them."""
    rows: list[tuple[tuple[list[int], int, int], ...]] = []
    for example in examples:
        before = next(i for i, label in enumerate(example.labels) if label != IGNORE)
        rows.append(((example.input_ids, before, example.trained),))
    return tuple(rows)


def encoded(
    config: TrainConfig, data: TrainData | PairData | MarkedData, tokenizer: Any
) -> tuple[tuple[tuple[tuple[list[int], int, int], ...], ...], int]:
    """(the sequences of every row that is trained, how many rows are too long)."""
    if isinstance(data, PairData):
        pairs, dropped = pairing.encode(data.train, tokenizer, max_length=config.max_length)
        two = (((p.prompt_ids, p.chosen_ids), (p.prompt_ids, p.rejected_ids)) for p in pairs)
        return tuple(tuple(_answered(*side) for side in sides) for sides in two), dropped
    if isinstance(data, MarkedData):
        marked, dropped = marking.encode(data.train, tokenizer, max_length=config.max_length)
        return tuple((_answered(row.prompt_ids, row.completion_ids),) for row in marked), dropped
    if config.method == "on-policy":
        encoder, answer = Encoder(tokenizer), [0] * config.distillation.max_tokens
        prompts = [encoder.prompt(row.prompt) for row in data.train]
        fit = [ids for ids in prompts if len(ids) + len(answer) <= config.max_length]
        return tuple((_answered(ids, answer),) for ids in fit), len(prompts) - len(fit)
    prepared = prepare(
        data, tokenizer, max_length=config.max_length, thinking=config.thinking, long_rows=config.long_rows
    )
    return sequences_of(prepared.train), prepared.dropped


def _answered(prompt: list[int], answer: list[int]) -> tuple[list[int], int, int]:
    return prompt + answer, len(prompt), len(answer)


def micro_batches(config: TrainConfig, job: Job) -> Iterator[Shape]:
    """The shapes of the first epoch's micro-batches, in their order."""
    lengths = [max(len(ids) for ids, _, _ in row) for row in job.sequences]
    packed = config.packing == "bfd"
    share = job.cpu and not config.gradient_checkpointing and config.neftune is None and not packed
    share = share and config.method != "on-policy"
    for batch in batches(lengths, config.batch_size, seed=job.seed, epoch=0):
        room = config.max_length if packed else None
        for part in cut([lengths[i] for i in batch], config.rows_at_once, room=room):
            sides = [side for rows in part for row in rows for side in job.sequences[batch[row]]]
            if packed:
                longest = max(sum(lengths[batch[row]] for row in rows) for rows in part)
                yield Shape(len(part), longest, 0, sum(count for _, _, count in sides))
                continue
            shared = _shared([ids for ids, _, _ in sides], min(before for _, before, _ in sides)) if share else 0
            yield Shape(len(sides), max(len(ids) for ids, _, _ in sides), shared, sum(count for _, _, count in sides))


def _shared(rows: Sequence[list[int]], before: int) -> int:
    """As `loss.shared_prefix` finds it; what is too short to pay is not shared."""
    if len(rows) < 2:
        return 0
    same = 0
    while same < before and all(row[same] == rows[0][same] for row in rows):
        same += 1
    return same - 1 if same - 1 >= 16 else 0
