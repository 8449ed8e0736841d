# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# torch and transformers are only partly typed.
"""One step as each method computes it, on rows of no meaning: what is traced for its memory and tried for its time.

It follows `loss.py`, `answers.py` and `distilling.py`, with everything known beforehand that they find out from a
batch: how long its rows are, what they share, how many of their tokens are trained.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from distill.recipe import TrainConfig
from distill.train.divergence import CHUNK, TopK, between, between_top, mixed
from distill.train.loss import inner, logits_of

__all__ = ["Shape", "best_tokens", "few_of", "loss_of", "mixed_precision", "one_step"]

_STORED = 20
"""Tokens of a position whose log-probabilities come with the rows: providers tell no more."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One micro-batch: rows (sequences), padded tokens of each, tokens all rows share, trained tokens of all rows."""

    rows: int
    tokens: int
    shared: int
    trained: int


def few_of(shape: Shape) -> Shape:
    """The two rows that `loss.agrees` tries."""
    rows = min(2, shape.rows)
    return Shape(rows, shape.tokens, 0, shape.trained * rows // shape.rows)


def one_step(
    config: TrainConfig,
    model: Any,
    shape: Shape,
    *,
    device: str,
    dtype: str = "float32",
    backward: bool = True,
    teacher: Any = None,
) -> None:
    """Forward and backward pass of one micro-batch.

    Args:
        device: `cpu`, `cuda`, or `meta`, which computes nothing.
        dtype: of the training: full fine-tunes multiply in bfloat16 what they hold in float32.
        backward: False: the forward pass alone.
        teacher: the local teacher, where it reads the batch too.
    """
    import torch

    with contextlib.nullcontext() if backward else torch.no_grad():
        with mixed_precision(config, dtype, device):
            loss = loss_of(config, model, shape, device, teacher=teacher)
        if backward:
            loss.backward()


def loss_of(
    config: TrainConfig, model: Any, shape: Shape, device: str, *, teacher: Any = None, whole: bool = False
) -> Any:
    """The loss of a micro-batch by `config.method`.

    Args:
        teacher: as in `one_step`.
        whole: the plain loss instead, with the output head on every position, as models compute it by themselves.
    """
    import torch

    if config.method in ("dpo", "kto", "orpo") and not whole:
        return _of_answers(config, model, shape, device)
    causal = inner(model)
    if whole:
        logits = _at_trained(logits_of(causal, _hidden(model, shape, device)), shape)
        rows = torch.ones(len(logits), dtype=torch.long, device=device)
        return torch.nn.functional.cross_entropy(logits.float(), rows, reduction="sum")
    states = _states(model, shape, device)
    rows = torch.ones(len(states), dtype=torch.long, device=device)
    if config.method == "sft":
        return torch.nn.functional.cross_entropy(logits_of(causal, states).float(), rows, reduction="sum")
    if config.method == "on-policy" and teacher is not None:
        return _tiled(causal, states, teacher, shape, device)
    head = list(causal.get_output_embeddings().parameters())
    target = _target(config, rows, device) if teacher is None else _taught(config, teacher, shape, device)
    share = config.distillation.cross_entropy
    return mixed(states, lambda some: logits_of(causal, some), head, rows, target, cross_entropy=share)[0]


def best_tokens(config: TrainConfig, teacher: Any, shape: Shape, device: str) -> None:
    """A teacher's best tokens of every trained position, as `targets.ask` finds them before the training."""
    import torch

    causal = inner(teacher)
    with torch.no_grad():
        states = _states(teacher, shape, device)
        for start in range(0, len(states), CHUNK):
            logits = logits_of(causal, states[start : start + CHUNK])
            torch.log_softmax(logits.float() / config.distillation.temperature, -1).topk(
                min(config.distillation.top_k or _STORED, logits.size(-1))
            )


def _of_answers(config: TrainConfig, model: Any, shape: Shape, device: str) -> Any:
    """Whole answers are compared with what a reference says of them, KTO's also with answers that are not theirs."""
    import torch

    def apart(times: int) -> None:
        with torch.no_grad():
            for _ in range(times):
                _log_probabilities(model, shape, device)

    apart(1 if config.method == "kto" else 0)
    loss = _log_probabilities(model, shape, device)
    apart({"dpo": 1, "kto": 2, "orpo": 0}[config.method])
    return loss.sum()


def _log_probabilities(model: Any, shape: Shape, device: str) -> Any:
    """As `answers.py` has them, with the entropy beside them that TRL logs."""
    import torch

    causal = inner(model)
    states = _states(model, shape, device)
    rows = torch.ones(len(states), dtype=torch.long, device=device)
    logits = logits_of(causal, states).float()
    logs = torch.log_softmax(logits, -1)
    with torch.no_grad():
        (logs.exp() * logs).sum(-1)
    return logs.gather(-1, rows.unsqueeze(-1))


def _taught(config: TrainConfig, teacher: Any, shape: Shape, device: str) -> Any:
    """A teacher that reads the same batch, and is compared over the tokens that both have."""
    import torch

    causal = inner(teacher)
    with torch.no_grad():
        states = _states(teacher, shape, device)

    def target(place: slice, logits: Any) -> Any:
        with torch.no_grad():
            said = logits_of(causal, states[place])
        width = min(said.size(-1), logits.size(-1))
        return between(logits[..., :width], said[..., :width], **_how(config))

    return target


def _tiled(causal: Any, states: Any, teacher: Any, shape: Shape, device: str) -> Any:
    """What TRL's own loss holds: the teacher's states, and tiles of 4,096 positions by 32,768 tokens of the vocabulary,
    ten of them at once where it runs without Triton."""
    import torch

    with torch.no_grad():
        theirs = _states(teacher, shape, device)
        weight = causal.get_output_embeddings().weight
        size = (min(len(states), 4096), min(len(weight), 32_768))
        tiles = [torch.empty(size, dtype=torch.float32, device=device) for _ in range(10)]
        del tiles, theirs
    return states.float().sum()


def _target(config: TrainConfig, rows: Any, device: str) -> Any:
    """A teacher that is known by its best tokens."""
    import torch

    count = config.distillation.top_k or _STORED
    told = TopK(
        torch.zeros(len(rows), count, dtype=torch.long, device=device), torch.zeros(len(rows), count, device=device)
    )

    def target(place: slice, logits: Any) -> Any:
        return between_top(logits, told[place], **_how(config))

    return target


def _how(config: TrainConfig) -> dict[str, Any]:
    return {"kind": config.distillation.divergence, "temperature": config.distillation.temperature}


def _hidden(model: Any, shape: Shape, device: str) -> Any:
    """Hidden states of all positions that have a next one, [rows, tokens that are not shared - 1, width]."""
    import torch

    causal = inner(model)
    ids = torch.ones(shape.rows, shape.tokens - shape.shared, dtype=torch.long, device=device)
    # Four dimensions: a finished mask, so that nobody looks into it to find out whether it can be left out.
    size = (shape.rows, 1, shape.tokens - shape.shared, shape.tokens)
    eager = causal.config._attn_implementation == "eager"
    mask = torch.zeros(size, dtype=causal.dtype if eager else torch.bool, device=device)
    cache = None
    if shape.shared:
        first = torch.ones(1, shape.shared, dtype=torch.long, device=device)
        upto = mask[:1, :, :1, : shape.shared].expand(1, 1, shape.shared, shape.shared)
        cache = causal.base_model(input_ids=first, attention_mask=upto, use_cache=True).past_key_values
        cache.batch_repeat_interleave(shape.rows)
    output = causal.base_model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=cache is not None)
    return output.last_hidden_state[:, :-1]


def _at_trained(values: Any, shape: Shape) -> Any:
    """Those of the trained positions, [trained tokens, width]."""
    import torch

    flat = values.reshape(-1, values.size(-1))
    count = min(shape.trained, len(flat))
    return flat.index_select(0, torch.ones(count, dtype=torch.long, device=values.device))


def _states(model: Any, shape: Shape, device: str) -> Any:
    return _at_trained(_hidden(model, shape, device), shape)


def mixed_precision(config: TrainConfig, dtype: str, device: str, *, again: bool = False) -> Any:
    """Mixed precision where the trainer has it (`trainer.arguments`).

    Args:
        again: for checkpointed layers that run again, one by one.
    """
    import torch

    if dtype != "bfloat16" or config.adapter != "full":
        return contextlib.nullcontext()
    return _casting(keeps=not again) if device == "meta" else torch.autocast(device, dtype=torch.bfloat16)


def _casting(*, keeps: bool) -> Any:
    """Autocast for tensors without content, for which torch has none: products see bfloat16.

    Args:
        keeps: the copy of a weight is kept to the end of the forward pass.
    """
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._pytree import tree_map

    products = {
        *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.nn.functional.linear),
        *(torch.Tensor.matmul, torch.Tensor.mm, torch.Tensor.bmm, torch.Tensor.addmm, torch.Tensor.__matmul__),
    }

    class Casting(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.kept: dict[int, Any] = {}

        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in products:
                args, kwargs = tree_map(self._cast, (args, kwargs))
            return func(*args, **(kwargs or {}))

        def _cast(self, value):
            if not isinstance(value, torch.Tensor) or value.dtype is not torch.float32:
                return value
            if not (keeps and value.is_leaf and value.requires_grad):
                return value.bfloat16()
            if id(value) not in self.kept:
                self.kept[id(value)] = value.bfloat16()
            return self.kept[id(value)]

    return Casting()
