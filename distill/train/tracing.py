# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false, reportUntypedBaseClass=false
# torch, transformers and peft are only partly typed.
"""The memory of one training step, found by running the step on tensors that have shapes and no content.

Torch's `meta` device computes shapes only, and every new tensor passes a dispatch hook that counts the bytes alive and
their peak. So what a layer keeps for its backward pass, which temporaries exist at once, and when they are freed, is
not a formula to be kept in step with the code: it is the code.
"""

from __future__ import annotations

import contextlib
import copy
import gc
from dataclasses import dataclass
from typing import Any

from distill.recipe import TrainConfig
from distill.train import student
from distill.train.kernels import fuse_adapters
from distill.train.loss import logits_of

__all__ = ["Shape", "Sizes", "few_of", "measure", "one_step", "small_model", "trace"]


@dataclass(frozen=True, slots=True)
class Shape:
    """One micro-batch: rows (sequences), padded tokens of each, tokens all rows share, trained tokens of all rows."""

    rows: int
    tokens: int
    shared: int
    trained: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Parameters of a model (numbers, not bytes), and the bytes its step holds."""

    parameters: int
    linear: int
    """Of them in linear layers that 4-bit quantisation takes."""
    trainable: int
    step: int
    """Bytes at most alive in an update, beyond the parameters themselves and the optimiser's state."""


def trace(
    config: TrainConfig, model_config: Any, shape: Shape, *, dtype: str, attention: str, cpu: bool, passes: int = 1
) -> Sizes:
    """The sizes of `model_config` trained as `config` says, without allocating any of it.

    Args:
        passes: of an update; from the second one on the gradients are there already.
    """
    import torch

    if attention == "sdpa":
        attention = _traced_attention()
    layers = model_config.get_text_config().num_hidden_layers
    with torch.device("meta"):
        model = small_model(config, model_config, layers=layers, dtype=dtype, attention=attention, cpu=cpu)
    parameters = list(model.parameters())
    linear = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lora_" not in name and "lm_head" not in name
    )
    step = measure(config, model, shape, device="meta", dtype=dtype, passes=min(passes, 2), look=cpu)
    count, trained = (sum(p.numel() for p in some) for some in (parameters, [p for p in parameters if p.requires_grad]))
    del model, parameters
    gc.collect()
    return Sizes(count, linear, trained, step)


def small_model(config: TrainConfig, model_config: Any, *, layers: int, dtype: str, attention: str, cpu: bool) -> Any:
    """A model of the same sizes with fewer layers and weights of no meaning, as training would have it."""
    import torch
    from transformers import AutoModelForCausalLM

    small = copy.deepcopy(model_config)
    text = small.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    held = "float32" if config.adapter == "full" else dtype
    model: Any = AutoModelForCausalLM.from_config(small, dtype=getattr(torch, held), attn_implementation=attention)
    if config.adapter != "full":
        from peft import get_peft_model

        model = get_peft_model(model, student.adapter_config(config.lora, model))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if config.gradient_checkpointing:
        how: dict[str, Any] = {"use_reentrant": False}
        if model.device.type == "meta":  # torch restores its own autocast where layers run again, and not ours
            how["context_fn"] = lambda: (contextlib.nullcontext(), _mixed(config, dtype, "meta", again=True))
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
        if config.adapter != "full":
            model.enable_input_require_grads()
    elif cpu and config.adapter != "full":
        fuse_adapters(model)
    return model.train()


def one_step(
    config: TrainConfig, model: Any, shape: Shape, *, device: str, dtype: str = "float32", backward: bool = True
) -> None:
    """Forward and backward pass of one micro-batch, as `loss.py` computes it.

    Args:
        device: `cpu`, `cuda`, or `meta`, which computes nothing.
        dtype: of the training: full fine-tunes multiply in bfloat16 what they hold in float32.
        backward: False: the forward pass alone.
    """
    import torch

    with contextlib.nullcontext() if backward else torch.no_grad():
        with _mixed(config, dtype, device):
            loss = _loss(config, model, shape, device)
        if backward:
            loss.backward()


def _loss(config: TrainConfig, model: Any, shape: Shape, device: str, *, whole: bool = False) -> Any:
    """
    Args:
        whole: the output head runs on every position, as models do by themselves.
    """
    import torch

    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
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
    hidden = output.last_hidden_state[:, :-1]
    rows = torch.ones(min(shape.trained, hidden.size(0) * hidden.size(1)), dtype=torch.long, device=device)
    states = logits_of(causal, hidden) if whole else hidden
    wanted = states.reshape(-1, states.size(-1)).index_select(0, rows)
    logits = wanted if whole else logits_of(causal, wanted)
    if config.method == "sft":
        loss = torch.nn.functional.cross_entropy(logits.float(), rows, reduction="sum")
    else:
        logs = torch.log_softmax(logits.float(), -1)
        with torch.no_grad():
            (logs.exp() * logs).sum(-1)
        loss = logs.gather(-1, rows.unsqueeze(-1)).sum()
    return loss


def _mixed(config: TrainConfig, dtype: str, device: str, *, again: bool = False) -> Any:
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


def measure(config: TrainConfig, model: Any, shape: Shape, *, device: str, dtype: str, passes: int, look: bool) -> int:
    """`step` of `Sizes`, for two updates of `model`, whether its tensors have content or not.

    Args:
        look: also what is tried out on the first update.
    """
    import torch

    counter = _counter()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained)
    for first in (True, False):
        with counter, torch.device(device):
            if first and look and config.method == "sft":
                with torch.no_grad(), _mixed(config, dtype, device):
                    _loss(config, model.eval(), few_of(shape), device, whole=True)
                model.train()
            for _ in range(passes):
                one_step(config, model, shape, device=device, dtype=dtype)
        if first:
            optimiser.step()  # its state is there from now on, and is counted elsewhere
        with counter:
            torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
            optimiser.step()
        optimiser.zero_grad()
    return counter.peak


def few_of(shape: Shape) -> Shape:
    """The two rows that `loss.agrees` tries."""
    rows = min(2, shape.rows)
    return Shape(rows, shape.tokens, 0, shape.trained * rows // shape.rows)


def _traced_attention() -> str:
    """The name of an attention that holds what fused kernels hold: on `meta` torch takes the plain one, which keeps
    all attention weights."""
    import torch
    from transformers import AttentionInterface

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx, query, key, value):
            out = torch.empty_like(query)
            ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
            return out

        @staticmethod
        def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
            query, key, value, _, _ = ctx.saved_tensors
            return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)

    def forward(module, query, key, value, attention_mask, **_):
        query, key = query.to(value.dtype), key.to(value.dtype)  # positions turn them in float32 under autocast
        groups = query.size(1) // key.size(1)
        key, value = (part.repeat_interleave(groups, 1) if groups > 1 else part for part in (key, value))
        return Attention.apply(query, key, value).transpose(1, 2).contiguous(), None

    AttentionInterface.register("traced", forward)
    return "traced"


def _counter() -> Any:
    """A dispatch mode that counts bytes of new tensors: alive now, and at most."""
    import weakref

    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Counter(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.alive = self.peak = 0
            self.known: set[int] = set()
            self.shapes: dict[Any, Any] = {}

        def _gone(self, key: int, size: int) -> None:
            self.known.discard(key)
            self.alive -= size

        def _computed(self, func, args, kwargs, given):
            """What `func` gives. Shapes that were worked out once are known: most layers are alike, and on `meta`
            operations are written in Python."""
            if not given or given[0].device.type != "meta" or func._schema.is_mutable or func.is_view:
                return func(*args, **kwargs)
            leaves = tree_leaves((args, kwargs))
            key = (
                func,
                *((tuple(x.shape), x.stride(), x.dtype) if isinstance(x, torch.Tensor) else x for x in leaves),
            )
            try:
                known = self.shapes.get(key)
            except TypeError:
                return func(*args, **kwargs)
            if known is not None:
                size, stride, kind = known
                return torch.empty_strided(size, stride, dtype=kind, device="meta")
            result = func(*args, **kwargs)
            if isinstance(result, torch.Tensor) and all(
                result.untyped_storage() is not x.untyped_storage() for x in given
            ):
                self.shapes[key] = tuple(result.shape), result.stride(), result.dtype
            return result

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
            # What an operation is given was there before: a view or an in-place result is nothing new.
            before = {id(t.untyped_storage()) for t in given}
            result = self._computed(func, args, kwargs or {}, given)
            for tensor in tree_leaves(result):
                if not isinstance(tensor, torch.Tensor):
                    continue
                storage = tensor.untyped_storage()
                key, size = id(storage), storage.nbytes()
                if key in before or key in self.known or not size:
                    continue
                self.known.add(key)
                self.alive += size
                self.peak = max(self.peak, self.alive)
                weakref.finalize(storage, self._gone, key, size)
            return result

    return Counter()
