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
from distill.train.step import Shape, best_tokens, few_of, loss_of, mixed_precision, one_step

__all__ = ["Sizes", "frozen_model", "measure", "small_model", "trace"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Parameters of a model (numbers, not bytes), and the bytes its step holds."""

    parameters: int
    linear: int
    """Of them in linear layers that 4-bit quantisation takes."""
    trainable: int
    looked_up: int
    """Of them in an input embedding that is not the output head too: of it only the rows of given tokens are read."""
    step: int
    """Bytes at most alive in an update, beyond the parameters themselves and the optimiser's state."""
    teacher: int = 0
    """Parameters of the local teacher."""
    teacher_looked_up: int = 0
    asking: int = 0
    """Bytes at most alive while it is asked before the training, where it is (`top_k`)."""


def trace(
    config: TrainConfig,
    model_config: Any,
    shape: Shape,
    *,
    dtype: str,
    attention: str,
    cpu: bool,
    passes: int = 1,
    teacher_config: Any = None,
) -> Sizes:
    """The sizes of `model_config` trained as `config` says, without allocating any of it.

    Args:
        passes: of an update; from the second one on the gradients are there already.
        teacher_config: of the local teacher of a distillation.
    """
    import torch

    if attention == "sdpa":
        attention = _traced_attention()
    layers = model_config.get_text_config().num_hidden_layers
    with torch.device("meta"):
        model = small_model(config, model_config, layers=layers, dtype=dtype, attention=attention, cpu=cpu)
        teacher = None
        if teacher_config is not None:
            layers = teacher_config.get_text_config().num_hidden_layers
            teacher = frozen_model(teacher_config, layers=layers, dtype=dtype, attention=attention)
    parameters = list(model.parameters())
    linear = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lora_" not in name and "lm_head" not in name
    )
    asked = config.distillation.top_k is not None
    beside = None if asked else teacher
    step = measure(config, model, shape, device="meta", dtype=dtype, passes=min(passes, 2), look=cpu, teacher=beside)
    asking = _asking(config, teacher, shape, look=cpu) if teacher is not None and asked else 0
    count, trained = (sum(p.numel() for p in some) for some in (parameters, [p for p in parameters if p.requires_grad]))
    theirs = 0 if teacher is None else sum(p.numel() for p in teacher.parameters())
    looked_up = _looked_up(model), 0 if teacher is None else _looked_up(teacher)
    del model, parameters, teacher, beside
    gc.collect()
    return Sizes(count, linear, trained, looked_up[0], step, theirs, looked_up[1], asking)


def _looked_up(model: Any) -> int:
    """Numbers of an input embedding that is not the output head too."""
    given, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return 0 if given is head else given.numel()


def small_model(config: TrainConfig, model_config: Any, *, layers: int, dtype: str, attention: str, cpu: bool) -> Any:
    """A model of the same sizes with fewer layers and weights of no meaning, as training would have it."""
    held = "float32" if config.adapter == "full" else dtype
    model = _with_layers(model_config, layers, dtype=held, attention=attention)
    if config.adapter != "full":
        from peft import get_peft_model

        model = get_peft_model(model, student.adapter_config(config.lora, model))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if config.gradient_checkpointing:
        how: dict[str, Any] = {"use_reentrant": False}
        if model.device.type == "meta":  # torch restores its own autocast where layers run again, and not ours
            how["context_fn"] = lambda: (contextlib.nullcontext(), mixed_precision(config, dtype, "meta", again=True))
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
        if config.adapter != "full":
            model.enable_input_require_grads()
    elif cpu and config.adapter != "full":
        fuse_adapters(model)
    return model.train()


def frozen_model(model_config: Any, *, layers: int, dtype: str, attention: str) -> Any:
    """A teacher of these sizes, with weights of no meaning."""
    return _with_layers(model_config, layers, dtype=dtype, attention=attention).eval().requires_grad_(False)


def _with_layers(model_config: Any, layers: int, *, dtype: str, attention: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    small = copy.deepcopy(model_config)
    text = small.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    return AutoModelForCausalLM.from_config(small, dtype=getattr(torch, dtype), attn_implementation=attention)


def measure(
    config: TrainConfig,
    model: Any,
    shape: Shape,
    *,
    device: str,
    dtype: str,
    passes: int,
    look: bool,
    teacher: Any = None,
) -> int:
    """`step` of `Sizes`, for two updates of `model`, whether its tensors have content or not.

    Args:
        look: also what is tried out on the first update.
        teacher: the local teacher that reads every batch too.
    """
    import torch

    counter = _counter()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained)
    for first in (True, False):
        with counter, torch.device(device):
            if first and look:
                _look(config, model.eval(), shape, device=device, dtype=dtype)
                model.train()
                if teacher is not None:
                    _look(config, teacher, shape, device=device, dtype=dtype)
            for _ in range(passes):
                one_step(config, model, shape, device=device, dtype=dtype, teacher=teacher)
        if first:
            optimiser.step()  # its state is there from now on, and is counted elsewhere
        with counter:
            torch.nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
            optimiser.step()
        optimiser.zero_grad()
    return counter.peak


def _look(config: TrainConfig, model: Any, shape: Shape, *, device: str, dtype: str) -> None:
    """What `loss.agrees` computes beside the step's own way."""
    import torch

    with torch.no_grad(), mixed_precision(config, dtype, device):
        loss_of(config, model, few_of(shape), device, whole=True)


def _asking(config: TrainConfig, teacher: Any, shape: Shape, *, look: bool) -> int:
    """Bytes at most alive while the teacher says its best tokens (`targets.ask`)."""
    import torch

    counter = _counter()
    with counter, torch.device("meta"), torch.no_grad():
        if look:
            _look(config, teacher, shape, device="meta", dtype="float32")
        best_tokens(config, teacher, shape, "meta")
    return counter.peak


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
