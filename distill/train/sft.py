# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# transformers and peft are only partly typed.
"""Supervised fine-tuning of a student, from rows to an adapter.

OUT/adapter/              weights (safetensors) and PEFT's settings; OUT/model/ for a full fine-tune
    chat_template.jinja   the template the rows were rendered with: evaluation and serving use this one
OUT/train.json            settings, data digest, counts, one example with its mask, losses, seconds, memory
OUT/log.jsonl             one line an update
OUT/checkpoints/          while training; the same call goes on from there after an interruption
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import orjson

from distill.errors import Halted, InputError
from distill.io import digest, loads, write_bytes
from distill.recipe import TrainConfig
from distill.train import student
from distill.train.data import TrainData
from distill.train.examples import Prepared, prepare
from distill.train.memory import peak_memory
from distill.train.template import use_template
from distill.train.trainer import Progress, Watch, build, settings

__all__ = ["TrainResult", "train"]

_ATTENTION_BYTES = 512 << 20


@dataclass(frozen=True)
class TrainResult:
    """What a finished training left, as it stands in `train.json`."""

    out: Path
    facts: dict[str, Any]

    @property
    def adapter(self) -> Path | None:
        """The adapter's folder; None for a full fine-tune."""
        return self.out / "adapter" if self.facts["adapter"] != "full" else None

    @property
    def model(self) -> Path | None:
        """The trained model's folder, for a full fine-tune."""
        return self.out / "model" if self.facts["adapter"] == "full" else None

    def as_json(self) -> dict[str, Any]:
        """Paths and figures, without the example and the curve."""
        left_out = ("example", "losses", "config", "versions")
        shown = {key: value for key, value in self.facts.items() if key not in left_out}
        weights = self.adapter or self.model
        paths = {"out": str(self.out), "weights": str(weights), "train_json": str(self.out / "train.json")}
        return {**paths, "log": str(self.out / "log.jsonl"), **shown}


def train(
    config: TrainConfig,
    data: TrainData,
    out: Path,
    *,
    seed: int = 0,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    overwrite: bool = False,
) -> TrainResult:
    """Train the student of `config` on `data` and leave the result in `out`.

    The same call again continues an interrupted training, and returns at once when it is complete.

    Args:
        seed: decides the adapter's first weights and the order of rows, unless `config.seed` does.
        progress: called after every update.
        stop: asked after every update; when true the training is saved and `Halted` raised.
        overwrite: discard another training that stands in `out`.

    Raises:
        InputError: the model, the data or the template does not fit; `out` holds another training.
        Halted: stopped on request; the same call continues.
        RunError: the loss is not finite.
    """
    seed = config.seed if config.seed is not None else seed
    started = time.monotonic()
    place = student.locate(config.model)
    identity = digest(
        {
            "config": config.model_dump(mode="json", exclude={"model", "seed"}),
            "model": [place.name, student.weights_digest(place.folder)],
            "data": data.digest,
            "seed": seed,
        }
    )
    finished = _claim(out, identity, overwrite=overwrite)
    if finished is not None:
        return TrainResult(out, finished)
    student.offline()
    from transformers import set_seed

    tokenizer = student.load_tokenizer(place.folder)
    template = use_template(tokenizer)
    prepared = prepare(data, tokenizer, max_length=config.max_length)
    dtype, why = _dtype(out, config)
    set_seed(seed)
    # A full fine-tune keeps its weights in float32 and multiplies in bfloat16: in bfloat16 alone most updates are
    # smaller than the spacing of the numbers, and are lost.
    held = "float32" if config.adapter == "full" else dtype
    model = student.load_model(place.folder, dtype=held, four_bit=config.adapter == "qlora")
    watch = Watch(progress=progress, stop=stop, log=out / "log.jsonl")
    checkpoints = out / "checkpoints"
    arguments = settings(
        config, checkpoints, seed=seed, dtype=dtype, rows=len(prepared.train), watched=len(prepared.validation)
    )
    trainer = build(
        config,
        arguments,
        model,
        tokenizer,
        prepared.train,
        prepared.validation,
        watch,
        peft=None if config.adapter == "full" else student.adapter_config(config.lora, model),
        tolerance=0.02 if dtype == "bfloat16" else 1e-3,
    )
    fused = _ready(trainer.model, config)
    attention = _attention(trainer.model, config, prepared.tokens["longest"])
    resumed = _last_checkpoint(checkpoints)
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if watch.stopped:
        step = trainer.state.global_step
        raise Halted(
            f"stopped at step {step} of {trainer.state.max_steps}; saved in {checkpoints}",
            hint="the same command continues from there",
        )
    _restore(trainer.model)
    weights = student.save(
        trainer.model,
        tokenizer,
        out,
        base=place.name,
        template=template,
        trained={"dtype": dtype, "four_bit": config.adapter == "qlora"},
    )
    facts = _facts(config, data, prepared, trainer, watch)
    facts.update(
        model=place.name,
        seed=seed,
        dtype=dtype,
        dtype_reason=why,
        device=_device(),
        fused_layers=fused,
        attention=attention,
        template=digest(template.encode()),
        weights_digest=student.weights_digest(weights),
        resumed_from=int(resumed.name.split("-")[-1]) if resumed else 0,
        seconds=round(time.monotonic() - started, 1),
        peak_memory_bytes=peak_memory(),
        identity=identity,
    )
    write_bytes(out / "train.json", orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    shutil.rmtree(checkpoints, ignore_errors=True)
    (out / "training.json").unlink(missing_ok=True)
    return TrainResult(out, facts)


def _claim(out: Path, identity: str, *, overwrite: bool) -> dict[str, Any] | None:
    """The finished training in `out`, if it is this one; else `out` is ours to write."""
    for name in ("train.json", "training.json"):
        file = out / name
        if not file.is_file():
            continue
        facts = loads(file.read_bytes())
        if facts.get("identity") == identity and not overwrite:
            return facts if name == "train.json" else None
        if not overwrite:
            raise InputError(
                "holds another training (other data, settings, model or seed)",
                path=out,
                hint="name another folder, or pass --overwrite to discard it",
            )
    if overwrite:
        for name in ("adapter", "model", "checkpoints"):
            shutil.rmtree(out / name, ignore_errors=True)
        for name in ("train.json", "training.json", "log.jsonl", "chat_template.jinja"):
            (out / name).unlink(missing_ok=True)
    write_bytes(out / "training.json", orjson.dumps({"identity": identity}))
    return None


def _dtype(out: Path, config: TrainConfig) -> tuple[str, str]:
    """The number type, measured once: a resumed training keeps it, whatever the machine measures today."""
    file = out / "training.json"
    state = loads(file.read_bytes())
    if "dtype" not in state:
        state["dtype"] = student.choose_dtype(config.dtype)
        write_bytes(file, orjson.dumps(state))
    return cast("tuple[str, str]", tuple(state["dtype"]))


def _ready(model: Any, config: TrainConfig) -> int:
    """Adapter weights in float32, and their layers fused where that pays."""
    import torch

    from distill.train.kernels import fuse_adapters
    from distill.io.memory import available_memory

    if config.adapter == "full":
        return 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            # TRL casts the adapter of a 4-bit base to bfloat16, where an update of 1e-4 on a weight of 0.05 is lost.
            parameter.data = parameter.data.float()
    if torch.cuda.is_available() or config.gradient_checkpointing:
        return 0
    return fuse_adapters(model, dequantise_bytes=available_memory() // 4)


def _attention(model: Any, config: TrainConfig, longest: int) -> str:
    """Use plain matrix products for short rows on a CPU: SDPA's backward pass there takes several times as long.

    The price is the attention weights of every layer, kept for the backward pass; past 512 MB SDPA stays.
    """
    import torch

    if torch.cuda.is_available() or config.gradient_checkpointing:
        return "sdpa"
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    text = causal.config.get_text_config()
    rows = config.micro_batch_size or config.batch_size
    kept = 8 * rows * text.num_attention_heads * longest**2 * text.num_hidden_layers
    if kept > _ATTENTION_BYTES:
        return "sdpa"
    causal.set_attn_implementation("eager")
    return "eager"


def _restore(model: Any) -> None:
    from distill.train.kernels import restore_adapters

    if hasattr(model, "peft_config"):
        restore_adapters(model)


def _last_checkpoint(folder: Path) -> Path | None:
    found = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return max(found, key=lambda path: int(path.name.split("-")[-1]), default=None)


def _facts(config: TrainConfig, data: TrainData, prepared: Prepared, trainer: Any, watch: Watch) -> dict[str, Any]:
    seconds = max(time.monotonic() - watch.started, 1e-9)
    # After an interruption the trainer's own history holds the updates of all sessions.
    losses = [{"step": entry["step"], "loss": entry["loss"]} for entry in trainer.state.log_history if "loss" in entry]
    validation = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    first, last = losses[: max(1, len(losses) // 10)], losses[-max(1, len(losses) // 10) :]
    return {
        "adapter": config.adapter,
        "rows": len(prepared.train),
        "validation_rows": len(prepared.validation),
        "dropped_long": prepared.dropped,
        "split_rows": prepared.split,
        "row_tokens": prepared.tokens,
        "steps": trainer.state.global_step,
        "epochs": round(trainer.state.epoch or 0.0, 3),
        "loss_first": round(sum(p["loss"] for p in first) / max(1, len(first)), 4),
        "loss_last": round(sum(p["loss"] for p in last) / max(1, len(last)), 4),
        "validation_loss": round(validation[-1], 4) if validation else None,
        "tokens": watch.tokens,
        "trained_tokens": watch.trained,
        "tokens_per_second": round(watch.tokens / seconds, 1),
        "seconds_per_step": round(seconds / max(1, trainer.state.global_step - watch.first_step), 3),
        "train_seconds": round(seconds, 1),
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "shared_prefix": bool(trainer._share),
        "own_loss": trainer._plain is False,
        "data_digest": data.digest,
        "sources": list(data.sources),
        "example": prepared.example,
        "losses": losses,
        "validation_losses": validation,
        "config": {**config.model_dump(mode="json"), "model": Path(config.model).name},
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft", "bitsandbytes")},
    }


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"cpu, {torch.get_num_threads()} threads"
