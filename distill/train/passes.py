# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch is only partly typed.
"""One update is cut into forward passes: so many rows at once, or rows packed into sequences.

The rows of an update are given by `batch_size` and the seed alone. How they are cut decides memory and speed and
nothing else: the loss of an update is the mean over its trained tokens, and every pass adds its part of that mean.
So when memory does not suffice the cut becomes finer while the update stays the same.

Packed rows stand one behind the other in a sequence, filled best fit first, longest row first. Positions count from
zero in every row; from them transformers derives a mask that lets no token see another row
(`find_packed_sequence_indices`), so the logits are those of the row alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distill.train.template import IGNORE

__all__ = ["cut", "flat", "fuller", "gather", "keeps_apart", "pack"]

Pass = list[list[int]]
"""Sequences of one forward pass, each with the rows in it."""


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Rows in bins of `room` tokens, best fit decreasing: each row into the fullest bin that still takes it.

    A row longer than `room` has a bin of its own. Uses at most 11/9 of the fewest bins possible, plus one.
    """
    bins: list[list[int]] = []
    left: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [place for place, free in enumerate(left) if free >= lengths[row]]
        if fitting:
            place = min(fitting, key=lambda p: (left[p], p))
            bins[place].append(row)
            left[place] -= lengths[row]
        else:
            bins.append([row])
            left.append(room - lengths[row])
    return bins


def cut(lengths: Sequence[int], at_once: int, *, room: int | None = None) -> list[Pass]:
    """The passes of an update with rows of these lengths.

    Args:
        at_once: sequences in a pass.
        room: tokens of a sequence that rows are packed into; None: every row is a sequence of its own.
    """
    sequences = [[row] for row in range(len(lengths))] if room is None else pack(lengths, room)
    return [sequences[start : start + at_once] for start in range(0, len(sequences), at_once)]


def fuller(passes: list[Pass], count: int) -> list[Pass]:
    """The same rows in `count` passes: processes that share a model have to make equally many."""
    passes = list(passes)
    while len(passes) < count:
        place = max(range(len(passes)), key=lambda i: sum(len(rows) for rows in passes[i]))
        chosen = passes[place]
        if len(chosen) > 1:
            parts: list[Pass] = [chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :]]
        elif len(chosen[0]) > 1:
            rows = chosen[0]
            parts = [[rows[: len(rows) // 2]], [rows[len(rows) // 2 :]]]
        else:
            break  # one row a pass
        passes[place : place + 1] = parts
    return passes


def gather(inputs: dict[str, Any], sequences: Pass, *, packed: bool, pad: int) -> dict[str, Any]:
    """The tensors of one pass.

    Args:
        inputs: the whole update: `input_ids`, `labels`, `attention_mask`, padded on the right, shape [rows, tokens].
        packed: with `position_ids` that begin anew in every row, in place of `attention_mask`.
        pad: the id that fills shorter sequences.
    """
    import torch

    lengths: list[int] = inputs["attention_mask"].sum(1).tolist()
    if not packed:
        rows = [row for sequence in sequences for row in sequence]
        longest = max(lengths[row] for row in rows)
        if len(rows) == len(lengths) and longest == inputs["input_ids"].size(1):
            return inputs
        return {name: values[rows, :longest] for name, values in inputs.items()}
    ids, labels = inputs["input_ids"], inputs["labels"]
    longest = max(sum(lengths[row] for row in sequence) for sequence in sequences)
    shape = (len(sequences), longest)
    out = {
        "input_ids": torch.full(shape, pad, dtype=ids.dtype, device=ids.device),
        "labels": torch.full(shape, IGNORE, dtype=ids.dtype, device=ids.device),
        "position_ids": torch.zeros(shape, dtype=ids.dtype, device=ids.device),
    }
    for place, sequence in enumerate(sequences):
        at = 0
        for row in sequence:
            end = at + lengths[row]
            out["input_ids"][place, at:end] = ids[row, : lengths[row]]
            # The first token of a row follows nothing: no other row may be trained to predict it.
            out["labels"][place, at + 1 : end] = labels[row, 1 : lengths[row]]
            out["position_ids"][place, at:end] = torch.arange(lengths[row], device=ids.device)
            at = end
        out["position_ids"][place, at:] = torch.arange(longest - at, device=ids.device)
    return out


def flat(batch: dict[str, Any]) -> dict[str, Any]:
    """All sequences of a packed batch in one: kernels that read the borders from `position_ids` want one sequence."""
    return {name: values.reshape(1, -1) for name, values in batch.items()}


def keeps_apart(model: Any, inputs: dict[str, Any], *, tolerance: float) -> bool:
    """True if the two shortest rows of this update give the same logits packed into one sequence as alone.

    A model that mixes tokens by other means than attention may not know the borders of packed rows. Below float32 the
    rounding of all layers can be more than `tolerance`: there the difference has to be small beside the one that rows
    make which do see each other, as they do where positions go on.

    Args:
        tolerance: mean difference of the logits, in their standard deviations.
    """
    import torch

    lengths: list[int] = inputs["attention_mask"].sum(1).tolist()
    rows = sorted(range(len(lengths)), key=lambda i: lengths[i])[:2]
    last, size = rows[-1], lengths[rows[-1]]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            packed = gather(inputs, [rows], packed=True, pad=0)
            ours = model(input_ids=packed["input_ids"], position_ids=packed["position_ids"], use_cache=False)
            alone = model(input_ids=inputs["input_ids"][last : last + 1, :size], use_cache=False)
            wanted = alone.logits.float()
            apart = (ours.logits[:, -size:].float() - wanted).abs().mean()
            if apart <= tolerance * wanted.std() or alone.logits.dtype == torch.float32:
                return bool(apart <= tolerance * wanted.std())
            on = torch.arange(packed["input_ids"].size(1), device=packed["input_ids"].device)[None]
            mixed = model(input_ids=packed["input_ids"], position_ids=on, use_cache=False)
            return bool(apart < (mixed.logits[:, -size:].float() - wanted).abs().mean() / 4)
    finally:
        model.train(training)
