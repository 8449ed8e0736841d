# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch's tensors are typed as far as they go; the rest stays inside this file.
"""A batch that is refilled while it runs: continuous batching on a transformers model.

The key-value cache is one block per layer, (slots, heads, capacity, head size). A row owns a slot and is right-padded:
token t of a row stands at position t, so rows of any length run in one forward pass under a mask, a finished row's
slot is handed to the next one, and nothing is copied in between. A new row takes the keys and values of the longest
prompt prefix it shares with a row already in the block (the instructions, usually) instead of computing them again:
on a CPU that is half of the work.

Decoding reads every weight once a step however many rows there are, so rows are nearly free until the matrix units
are full; see docs/benchmarks.md for where that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from distill.teachers.local.sampling import Draw, draw_tokens

__all__ = ["Batch", "BatchRow"]

_GROW = 256
"""Capacity is a multiple of so many tokens."""


@dataclass(slots=True, eq=False)
class BatchRow:
    """One request being generated. `prompt` and `tokens` are token ids."""

    prompt: Sequence[int]
    max_tokens: int
    draw: Draw
    tag: Any = None
    tokens: list[int] = field(default_factory=list)
    slot: int = -1

    @property
    def length(self) -> int:
        """Tokens whose keys stand in the cache once the next forward pass has run."""
        return len(self.prompt) + len(self.tokens)


class Batch:
    """Rows that are decoded together. Not thread-safe: one thread calls it."""

    def __init__(self, model: Any, slots: int) -> None:
        config = model.config
        heads = config.num_attention_heads
        self._device = model.device
        self._body = getattr(model, model.base_model_prefix)
        self._head = model.get_output_embeddings()
        self._cache = _SlotCache(
            layers=config.num_hidden_layers,
            slots=slots,
            heads=getattr(config, "num_key_value_heads", None) or heads,
            size=getattr(config, "head_dim", None) or config.hidden_size // heads,
            dtype=model.dtype,
            device=model.device,
        )
        self._rows: list[BatchRow] = []
        self._free = list(range(slots))
        self._known: dict[int, Sequence[int]] = {}
        """Slot -> the prompt whose keys still stand in it, its row finished or not."""

    @property
    def rows(self) -> list[BatchRow]:
        return self._rows

    @property
    def free(self) -> int:
        """Rows that could be added now."""
        return len(self._free)

    def add(self, rows: Sequence[BatchRow]) -> None:
        """Compute the prompts and draw the first token of every row."""
        import torch

        with torch.inference_mode():
            while rows:
                group, rows = self._group(rows)
                self._prefill(group)

    def step(self) -> None:
        """Draw the next token of every row."""
        import torch

        if not self._rows:
            return
        with torch.inference_mode():
            device = self._device
            slots = torch.tensor([row.slot for row in self._rows], device=device)
            lengths = torch.tensor([row.length for row in self._rows], device=device)
            self._cache.fit(int(lengths.max()))
            positions = (lengths - 1).unsqueeze(-1)
            tokens = torch.tensor([[row.tokens[-1]] for row in self._rows], device=device)
            self._draw(self._rows, self._forward(slots, positions, tokens, lengths - 1)[:, 0])

    def remove(self, row: BatchRow) -> None:
        """Free the row's slot."""
        self._rows.remove(row)
        self._free.append(row.slot)

    def _group(self, rows: Sequence[BatchRow]) -> tuple[list[BatchRow], Sequence[BatchRow]]:
        """The next rows to compute in one pass, and the rest.

        When nothing in the cache shares a row's prefix but its neighbours do, it goes first and alone, so that
        they can take the prefix from it.
        """
        first = rows[0]
        if self._shared(first.prompt)[1] == 0 and len(rows) > 1:
            return [first], rows[1:]
        return list(rows), ()

    def _prefill(self, rows: list[BatchRow]) -> None:
        import torch

        starts: list[int] = []
        for row in rows:
            donor, shared = self._shared(row.prompt)
            row.slot = self._take_slot(donor)
            self._cache.fit(row.length)
            if shared and donor != row.slot:
                self._cache.copy(donor, row.slot, shared)
            starts.append(shared)
        for row in rows:
            self._known[row.slot] = row.prompt
        width = max(len(row.prompt) - start for row, start in zip(rows, starts, strict=True))
        self._cache.fit(max(starts) + width)
        device = self._device
        tokens = torch.zeros((len(rows), width), dtype=torch.long)
        for i, (row, start) in enumerate(zip(rows, starts, strict=True)):
            tokens[i, : len(row.prompt) - start] = torch.tensor(list(row.prompt[start:]))
        slots = torch.tensor([row.slot for row in rows], device=device)
        positions = torch.tensor(starts, device=device).unsqueeze(-1) + torch.arange(width, device=device)
        ends = torch.tensor(
            [len(row.prompt) - start - 1 for row, start in zip(rows, starts, strict=True)], device=device
        )
        logits = self._forward(slots, positions, tokens.to(device), ends=ends)
        self._rows = sorted([*self._rows, *rows], key=lambda row: row.slot)
        self._draw(rows, logits)

    def _forward(self, slots: Any, positions: Any, tokens: Any, last: Any = None, *, ends: Any = None) -> Any:
        """Logits (rows, 1, vocabulary) of single tokens, or with `ends` (rows, vocabulary) at those places."""
        import torch

        cache = self._cache
        reach = int(positions.max()) + 1
        cache.aim(slots, positions, reach)
        # A query sees the keys up to its own position; padding stands behind every real token of its row.
        mask = torch.arange(reach, device=positions.device) <= positions.unsqueeze(-1)
        hidden = self._body(
            input_ids=tokens,
            attention_mask=mask.unsqueeze(1),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        if ends is not None:
            # The head is a sixth of a small model: only the last token of each prompt goes through it.
            hidden = hidden[torch.arange(len(hidden), device=hidden.device), ends]
        return self._head(hidden)

    def _draw(self, rows: Sequence[BatchRow], logits: Any) -> None:
        drawn = draw_tokens(logits, [row.draw for row in rows], [len(row.tokens) for row in rows])
        for row, token in zip(rows, drawn, strict=True):
            row.tokens.append(token)

    def _take_slot(self, donor: int) -> int:
        # The donor's own slot, if free, needs no copy.
        if donor in self._free:
            self._free.remove(donor)
            return donor
        # Slots whose prompt is not known yet go first: old prompts stay useful as donors.
        return self._free.pop(0)

    def _shared(self, prompt: Sequence[int]) -> tuple[int, int]:
        """(slot, tokens) of the longest known prefix of `prompt`; at least one token is left to compute."""
        best, length = -1, 0
        for slot, known in self._known.items():
            limit = min(len(known), len(prompt) - 1)
            if limit <= length:
                continue
            same = next((i for i in range(limit) if known[i] != prompt[i]), limit)
            if same > length:
                best, length = slot, same
        return best, length


class _SlotCache:
    """What the model takes for its cache: it writes keys at (slot, position) and reads the block back."""

    def __init__(self, *, layers: int, slots: int, heads: int, size: int, dtype: Any, device: Any) -> None:
        self._shape = (slots, heads, size)
        self._layers = layers
        self._dtype, self._device = dtype, device
        self._capacity = 0
        self._keys: list[Any] = []
        self._values: list[Any] = []
        self._slots: Any = None
        self._positions: Any = None
        self._reach = 0
        self._plain = False

    def fit(self, tokens: int) -> None:
        """Make room for rows of `tokens`; grows by doubling, never shrinks."""
        import torch

        if tokens <= self._capacity:
            return
        wanted = max(tokens, 2 * self._capacity if self._capacity < 1024 else self._capacity + 1024)
        capacity = -(-wanted // _GROW) * _GROW
        slots, heads, size = self._shape

        def grown(old: Any) -> Any:
            fresh = torch.zeros((slots, heads, capacity, size), dtype=self._dtype, device=self._device)
            if old is not None:
                fresh[:, :, : self._capacity] = old
            return fresh

        for blocks in (self._keys, self._values):
            for layer in range(self._layers):
                if len(blocks) <= layer:
                    blocks.append(grown(None))
                else:
                    blocks[layer] = grown(blocks[layer])
        self._capacity = capacity

    def copy(self, source: int, target: int, tokens: int) -> None:
        for block in (*self._keys, *self._values):
            block[target, :, :tokens] = block[source, :, :tokens]

    def aim(self, slots: Any, positions: Any, reach: int) -> None:
        """Say where the next forward pass writes: slots (rows), positions (rows, width), and how far it reads."""
        self._slots, self._positions, self._reach = slots, positions, reach
        self._plain = slots.tolist() == list(range(len(slots)))

    def update(self, keys: Any, values: Any, layer: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Called by each attention layer with (rows, heads, width, size)."""
        slots, reach = self._slots, self._reach
        for block, fresh in ((self._keys[layer], keys), (self._values[layer], values)):
            block[slots.unsqueeze(-1), :, self._positions] = fresh.transpose(1, 2)
        # A full batch reads the block in place; only rows with gaps between their slots are gathered (copied).
        rows = slice(0, len(slots)) if self._plain else slots
        return self._keys[layer][rows, :, :reach], self._values[layer][rows, :, :reach]

    def get_seq_length(self, layer: int = 0) -> int:
        return 0
