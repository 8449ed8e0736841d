"""Log-probabilities that stand in training rows, as a provider gave them with the answer.

A row has them in the column `logprobs`, in the shape of the chat completions API: one object for each token of the
answer, in order.

    {"token": " lost", "logprob": -0.02, "top_logprobs": [{"token": " lost", "logprob": -0.02}, …]}

A token that is no whole character is written as `bytes:\\xe2\\x80`, or carries `bytes`, a list of numbers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from distill.errors import InputError
from distill.train.data import read_table, split_files

__all__ = ["Position", "positions", "read_stored"]

_BYTES = re.compile(r"bytes:((?:\\x[0-9a-f]{2})+)")


@dataclass(frozen=True, slots=True)
class Position:
    """One token of an answer as its teacher saw it: its text, its log-probability, and the best ones."""

    piece: bytes
    log: float
    best: tuple[tuple[bytes, float], ...] = ()


def read_stored(train: Path, validation: Path | None = None) -> dict[str, tuple[Position, ...]]:
    """The stored log-probabilities of a file's rows (of both splits, where `train` is a folder), by `file:line`.

    Raises:
        InputError: a file cannot be read, or a row's `logprobs` are not what they should be.
    """
    found: dict[str, tuple[Position, ...]] = {}
    for path in split_files(train, validation):
        if path is None:
            continue
        for line, row in read_table(path):
            if row.get("logprobs"):
                found[f"{path.name}:{line}"] = positions(row["logprobs"], path=path, line=line)
    return found


def positions(value: Any, *, path: Path | None = None, line: int | None = None) -> tuple[Position, ...]:
    """The tokens of one row's `logprobs`."""

    def wrong(message: str, field: str) -> InputError:
        return InputError(message, path=path, line=line, field=field)

    if not isinstance(value, list):
        raise wrong("should be a list of tokens", "logprobs")
    made: list[Position] = []
    for number, item in enumerate(cast("list[Any]", value)):
        here = f"logprobs.{number}"
        piece, log = _token(item, here, wrong)
        best: Any = cast("dict[str, Any]", item).get("top_logprobs") or []
        if not isinstance(best, list):
            raise wrong("should be a list of tokens", f"{here}.top_logprobs")
        others = tuple(
            _token(other, f"{here}.top_logprobs.{n}", wrong) for n, other in enumerate(cast("Sequence[Any]", best))
        )
        made.append(Position(piece, log, others))
    return tuple(made)


def _token(item: Any, field: str, wrong: Any) -> tuple[bytes, float]:
    if not isinstance(item, Mapping):
        raise wrong("should be an object with `token` and `logprob`", field)
    token = cast("Mapping[str, Any]", item)
    text, log, raw = token.get("token"), token.get("logprob"), token.get("bytes")
    if isinstance(log, bool) or not isinstance(log, (int, float)) or math.isnan(log) or log > 1e-3:
        raise wrong(f"should be a logarithm of a probability, not {log!r}", f"{field}.logprob")
    if isinstance(raw, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in cast("list[Any]", raw)):
        return bytes(cast("list[int]", raw)), float(log)
    if not isinstance(text, str):
        raise wrong("should be text", f"{field}.token")
    match = _BYTES.fullmatch(text)
    return bytes.fromhex(match.group(1).replace("\\x", "")) if match else text.encode(), float(log)
