# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch is only partly typed.
"""What a teacher said of every trained position, where only its best tokens are kept.

Two ways lead here: a local teacher is asked once before the training (`ask`), or the answers were stored with the
log-probabilities that a provider gave along (`align`). The second needs the teacher's tokens to be the student's: that
is seen row by row, on the pieces of text the tokens stand for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.errors import InputError
from distill.train.divergence import CHUNK, TopK
from distill.train.stored import Position
from distill.train.teacher import LocalTeacher
from distill.train.template import IGNORE, Encoded
from distill.train.trainer import collate

__all__ = ["Aligned", "align", "ask", "batch_of", "joined", "nothing_said", "pieces"]

_ALIGNED = 0.9
"""Share of rows whose tokens must be the student's. Below it the vocabulary is another one; above it single rows were
drawn in an unusual split of the same text, which no tokenizer would make again."""


_UNKNOWN = -100.0
"""Providers write -9999 for a token whose log-probability they do not tell."""


@dataclass(frozen=True)
class Aligned:
    """The teacher's tokens of each example, and how many examples have none."""

    targets: list[TopK]
    without: int
    """Examples that came without log-probabilities, general data for one: they learn by cross-entropy alone."""
    apart: int
    """Examples whose tokens are not the student's: the same."""


def ask(
    teacher: LocalTeacher, examples: Sequence[Encoded], *, top_k: int, temperature: float, pad: int, rows: int
) -> list[TopK]:
    """The teacher's best tokens at the trained positions of each example, on the CPU.

    Args:
        temperature: of the log-probabilities.
        rows: examples asked about at once.
    """
    import torch

    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].input_ids))
    found: dict[int, TopK] = {}
    count = min(top_k, teacher.width)
    for chosen in _batched(order, rows):
        states = teacher.states(batch_of([examples[i] for i in chosen], pad, teacher.model.device))
        parts: list[TopK] = []
        for start in range(0, len(states), CHUNK):
            logs = torch.log_softmax(teacher.logits(states[start : start + CHUNK]).float() / temperature, -1)
            best = logs.topk(count)
            parts.append(TopK(best.indices.cpu(), best.values.cpu()))
        whole = joined(parts)
        at = 0
        for i in chosen:
            found[i] = whole[at : at + _positions(examples[i])]
            at += _positions(examples[i])
    return [found[i] for i in range(len(examples))]


def align(examples: Sequence[Encoded], said: Mapping[str, Sequence[Position]], tokenizer: Any, *, head: int) -> Aligned:
    """The stored log-probabilities of each example's last answer, on the student's tokens.

    Args:
        said: the teacher's tokens by the row's place (`file:line`).
        head: tokens of the student's output head.

    Raises:
        InputError: no row has any, or more than a tenth of those that have are split into other tokens.
    """
    known = pieces(tokenizer)
    ids = {piece: number for number, piece in reversed(list(enumerate(known))) if piece is not None and number < head}
    targets: list[TopK] = []
    without, apart, problem = 0, 0, ""
    for example in examples:
        answer = said.get(example.where)
        labels = example.labels[1:]
        trained = [i for i, label in enumerate(labels) if label != IGNORE]
        if answer is None:
            without += 1
            targets.append(_none(len(trained)))
            continue
        start = next((i for i in reversed(trained) if labels[i - 1] == IGNORE or i == 0), 0)
        mine = [known[label] for label in labels[start : trained[-1] + 1]]
        shift, wrong = _agree(mine, answer)
        if wrong is not None:
            apart += 1
            problem = problem or f"{example.where}: {wrong}"
            targets.append(_none(len(trained)))
            continue
        earlier = trained.index(start)
        told = list(answer[shift:][: len(mine)])
        if len(told) == len(mine) and told[-1].piece != mine[-1]:
            told.pop()  # white space after the answer, where the student ends its turn
        targets.append(_target(len(trained), earlier, told, ids))
    asked = len(examples) - without
    if not asked:
        raise nothing_said()
    if asked - apart < _ALIGNED * asked:
        raise InputError(
            f"the teacher's tokens are not the student's in {apart} of {asked} rows; {problem}",
            hint="stored log-probabilities need a teacher of the student's vocabulary; learn from the answers with sft",
        )
    return Aligned(targets, without, apart)


def nothing_said() -> InputError:
    """The error of a distillation that has no teacher."""
    return InputError(
        "no row holds log-probabilities",
        field="train.distillation.teacher",
        hint="name a local teacher, or generate with sampling.top_logprobs",
    )


def batch_of(examples: Sequence[Encoded], pad: int, device: Any = None) -> dict[str, Any]:
    """The examples as one batch."""
    batch = collate([{"input_ids": row.input_ids, "labels": row.labels} for row in examples], pad)
    return batch if device is None else {name: value.to(device) for name, value in batch.items()}


def joined(parts: Sequence[TopK]) -> TopK:
    """One after the other, as wide as the widest."""
    import torch

    width = max(part.ids.shape[1] for part in parts)

    def wide(values: Any, filler: float) -> Any:
        return torch.nn.functional.pad(values, (0, width - values.shape[1]), value=filler)

    return TopK(
        torch.cat([wide(part.ids, 0) for part in parts]),
        torch.cat([wide(part.logs, float("-inf")) for part in parts]),
    )


def pieces(tokenizer: Any) -> list[bytes | None]:
    """The text that each token stands for, as bytes; None for numbers without a token.

    Byte-level vocabularies write every byte as one printable character; sentencepiece writes a space as `▁` and bytes
    outside its vocabulary as `<0xE2>`.
    """
    added = {number: token.content.encode() for number, token in tokenizer.added_tokens_decoder.items()}
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    found: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
    characters = _byte_characters()
    # Every byte stands in a byte-level vocabulary, the space among them, under a character of its own.
    byte_level = "Ġ" in vocabulary
    for token, number in vocabulary.items():
        if number in added:
            found[number] = added[number]
        elif byte_level:
            found[number] = bytes(characters[char] for char in token) if all(c in characters for c in token) else None
        elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            found[number] = bytes([int(token[3:5], 16)])
        else:
            found[number] = token.replace("▁", " ").encode()
    return found


def _positions(example: Encoded) -> int:
    return sum(label != IGNORE for label in example.labels[1:])


def _agree(mine: Sequence[bytes | None], answer: Sequence[Position]) -> tuple[int, str | None]:
    """(the teacher's token that stands at the first of `mine`, what is wrong).

    The end of the turn may be missing on the teacher's side, and so may be white space around the answer on the
    student's.
    """
    said = [position.piece for position in answer]
    shift = 0
    while shift < len(said) and not said[shift].strip() and said[shift] != mine[0]:
        shift += 1
    said = said[shift:]
    for number, (ours, theirs) in enumerate(zip(mine[:-1], said, strict=False)):
        if ours != theirs:
            return shift, f"token {number + 1} of the answer is {_shown(ours)}, the teacher's {_shown(theirs)}"
    if len(said) < len(mine) - 1:
        return shift, f"the teacher said {len(said)} tokens, the answer has {len(mine) - 1}"
    rest = said[len(mine) - 1 :]
    if any(piece.strip() for piece in rest[1:]) or (rest and rest[0].strip() and rest[0] != mine[-1]):
        return shift, f"the teacher said more: {_shown(rest[0])}"
    return shift, None


def _target(count: int, start: int, answer: Sequence[Position], ids: Mapping[bytes, int]) -> TopK:
    import torch

    rows: list[dict[int, float]] = [{} for _ in range(count)]
    for place, position in enumerate(answer, start):
        for piece, log in ((position.piece, position.log), *position.best):
            if piece in ids and place < count and log > _UNKNOWN:
                rows[place].setdefault(ids[piece], min(log, 0.0))
    width = max(1, *(len(row) for row in rows))
    number = torch.zeros(count, width, dtype=torch.long)
    logs = torch.full((count, width), float("-inf"))
    for place, row in enumerate(rows):
        number[place, : len(row)] = torch.tensor(list(row), dtype=torch.long)
        logs[place, : len(row)] = torch.tensor(list(row.values()))
    return TopK(number, logs)


def _none(count: int) -> TopK:
    return _target(count, 0, (), {})


def _shown(piece: bytes | None) -> str:
    return repr(piece.decode("utf-8", "backslashreplace")) if piece is not None else "no text"


def _batched(order: Sequence[int], size: int) -> list[list[int]]:
    return [list(order[start : start + size]) for start in range(0, len(order), size)]


def _byte_characters() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (as GPT-2 chose them)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
