# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch and transformers are only partly typed.
"""What a training will need, before any weight is loaded: memory by part, time, and what to change if it does not fit.

The rows are rendered and put into their batches as training would (`job.py`), so the largest batch is known, not
assumed. Its step is traced without content (`tracing.py`); the libraries' own share is what this process holds once
they are imported. For the time, a part of the work is done on this machine (`timing.py`).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distill.errors import InputError
from distill.io.memory import available_memory, resident_memory
from distill.recipe import TrainConfig
from distill.train import distill, preferences, student, timing
from distill.train.data import TrainData
from distill.train.job import Job, encoded, micro_batches, sequences_of
from distill.train.marked import MarkedData
from distill.train.pace import Duration
from distill.train.pairs import PairData
from distill.train.ready import attention_of
from distill.train.template import Encoded, use_template
from distill.train.tracing import Sizes, trace

__all__ = ["Plan", "plan", "rows_that_fit"]

_HOLES = {"cpu": 0.25, "mapped": 0.10, "cuda": 0.05}
"""What the allocator holds beyond the tensors of a step that are alive, of their size: holes between them. `mapped`: on
a CPU, with `map_large_blocks`."""

_MOST_HOLES = 400_000_000
"""Bytes of holes at most, on a CPU. Both were fitted to the embedded student (`benchmarks/train_memory.py`); larger
tensors are mapped by themselves, which leaves fewer holes but does not explain the figure."""

_KERNELS = {"cpu": 100_000_000, "cuda": 0}
"""Code that the first step loads or compiles, and scratch space of its products; seen with the embedded student."""

_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes a 4-bit weight: the number, the scale of 64 of them in 8 bits, the scale of 256 of those scales."""


@dataclass(frozen=True)
class Plan:
    """Bytes by part, whether they fit, seconds, and what else would fit."""

    parts: dict[str, int]
    """libraries, weights, adapter, optimiser, step (activations, logits, gradients), and the local teacher."""
    available: int
    steps: int
    seconds: Duration | None
    dtype: str
    attention: str
    micro_batch: int
    rows: int
    dropped_long: int
    longest: int
    changes: tuple[tuple[str, int], ...] = field(default=())
    """Settings that need less, and how much they need; where it does not fit."""

    @property
    def bytes(self) -> int:
        """The predicted peak."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.bytes <= self.available

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        return {
            "peak_memory_bytes": self.bytes,
            "available_bytes": self.available,
            "fits": self.fits,
            "parts": self.parts,
            **self._times(),
            "steps": self.steps,
            "dtype": self.dtype,
            "attention": self.attention,
            "micro_batch": self.micro_batch,
            "rows": self.rows,
            "dropped_long": self.dropped_long,
            "longest_row": self.longest,
            "changes": [{"set": name, "peak_memory_bytes": size} for name, size in self.changes],
        }

    def _times(self) -> dict[str, Any]:
        if self.seconds is None:
            return {"seconds": None}
        least, most = round(self.seconds.least, 1), round(self.seconds.most, 1)
        spent = self.seconds.processor
        processor = None if spent is None else round(spent, 1)
        return {"seconds": round(self.seconds.usual, 1), "seconds_between": [least, most], "cpu_seconds": processor}


def plan(config: TrainConfig, data: TrainData | PairData | MarkedData, *, seed: int = 0, timed: bool = True) -> Plan:
    """Predict the training of `config` on `data`.

    `on-policy` is planned with answers of `max_tokens`, which the student need not make; its time is not predicted.

    Args:
        timed: also measure steps of one and of three layers, which takes a few seconds.

    Raises:
        InputError: as training would for the settings, the models' places, the template and the rows.
    """
    job = _job(config, data, seed)
    available = _available(job)
    found = _predicted(config, job, available)
    seconds = timing.seconds(config, job) if timed and config.method != "on-policy" else None
    changes: list[tuple[str, int]] = []
    if found.bytes > available:
        for name, changed in _alternatives(config):
            size = _predicted(changed, job, available).bytes
            changes.append((name, size))
            if size <= available:
                break
    return replace(found, seconds=seconds, changes=tuple(changes))


def rows_that_fit(
    config: TrainConfig, examples: Sequence[Encoded], place: student.Place, dtype: str, *, seed: int
) -> tuple[int, str | None]:
    """(rows of a forward pass for which main memory suffices, why they are fewer than asked).

    A GPU that is out of memory says so, and the trainer takes fewer rows then; a process that is out of main memory is
    killed. So on a CPU the step is predicted first.
    """
    import torch

    asked = config.rows_at_once
    if torch.cuda.is_available():
        return asked, None
    model = student.load_config(place.folder)
    if _plenty(config, examples, model, _weights_bytes(place)):
        return asked, None
    _import_what_training_imports(config)
    job = Job(sequences_of(examples), 0, model, dtype, True, seed, resident_memory())
    available = _available(job)
    rows, needed = asked, 0
    for rows in (count for count in _divisors(config.batch_size) if count <= asked):
        needed = _predicted(config.model_copy(update={"micro_batch_size": rows}), job, available).bytes
        if needed <= available:
            break
    if rows == asked and needed <= available:
        return asked, None
    told = f"of {available / 1e9:.1f} GB the training would take {needed / 1e9:.1f} GB with {rows} rows at once"
    if needed > available:
        return rows, f"{told}, and more with others; it may be killed"
    return rows, f"{told}, and more with {asked}; the updates are the same"


def _plenty(config: TrainConfig, examples: Sequence[Encoded], model: Any, weights_bytes: int) -> bool:
    """True where no training of this size could need what is there: a prediction takes a second or two."""
    text = model.get_text_config()
    longest = max(len(example.input_ids) for example in examples)
    tokens = config.rows_at_once * longest
    wide = 200 * text.hidden_size + 60 * (getattr(text, "intermediate_size", None) or 4 * text.hidden_size)
    layers = text.num_hidden_layers * (wide + 16 * text.num_attention_heads * longest)
    return (1 << 30) + 16 * weights_bytes + tokens * (layers + 20 * text.vocab_size) < available_memory()


def _weights_bytes(place: student.Place) -> int:
    return sum(file.stat().st_size for file in place.folder.glob("*.safetensors"))


def _job(config: TrainConfig, data: TrainData | PairData | MarkedData, seed: int) -> Job:
    if config.method != "sft":
        (distill if isinstance(data, TrainData) else preferences).refuse_unused(config)
    place = student.locate(config.model)
    local = config.method in ("distill", "on-policy") and config.distillation.teacher
    above = student.locate(config.distillation.teacher or "") if local else None
    student.offline()
    import torch

    _import_what_training_imports(config)
    tokenizer = student.load_tokenizer(place.folder)
    use_template(tokenizer)
    sequences, dropped = encoded(config, data, tokenizer)
    cpu = not torch.cuda.is_available()
    return Job(
        sequences,
        dropped,
        student.load_config(place.folder),
        student.choose_dtype(config.dtype)[0],
        cpu,
        config.seed if config.seed is not None else seed,
        resident_memory() if cpu else 0,
        student.load_config(above.folder) if above else None,
    )


def _predicted(config: TrainConfig, job: Job, available: int) -> Plan:
    if not job.sequences:
        raise InputError(f"no row fits into {config.max_length} tokens", field="train.max_length")
    shape = max(micro_batches(config, job), key=lambda s: (s.rows * (s.tokens - s.shared) + s.shared, s.trained))
    longest = max(len(ids) for row in job.sequences for ids, _, _ in row)
    attention = attention_of(config, job.model.get_text_config(), longest, sides=len(job.sequences[0]))
    passes = math.ceil(config.batch_size / config.rows_at_once)
    how: dict[str, Any] = {"dtype": job.dtype, "attention": attention, "cpu": job.cpu, "passes": passes}
    sizes = trace(config, job.model, shape, teacher_config=job.teacher, **how)
    parts = {"libraries": job.libraries, **_parts(config, sizes, job, available)}
    steps = config.max_steps or math.ceil(config.epochs * math.ceil(len(job.sequences) / config.batch_size))
    micro = config.rows_at_once
    return Plan(parts, available, steps, None, job.dtype, attention, micro, len(job.sequences), job.dropped, longest)


def _parts(config: TrainConfig, sizes: Sizes, job: Job, available: int) -> dict[str, int]:
    frozen = sizes.parameters - sizes.trainable
    wide = 4 if job.dtype == "float32" else 2
    if config.adapter == "full":
        weights, adapter = 4 * sizes.parameters, 0
    else:
        copies = 2 if config.method in ("dpo", "kto") else 1  # preference training may hold its reference beside it
        weights, adapter = frozen * wide, 4 * sizes.trainable * copies
        if config.adapter == "qlora":
            packed = round(_NF4_BYTES * sizes.linear)
            plain = (frozen - sizes.linear) * wide
            dequantised = sizes.linear * wide if job.cpu and not config.gradient_checkpointing else 0
            weights = packed + plain + (dequantised if dequantised <= available // 4 else 0)
        weights -= _unread(job.model, sizes.looked_up * wide, job)
    optimiser = 8 * sizes.trainable
    held = _held(sizes.step, config, job)
    if job.teacher is None:
        return {"weights": weights, "adapter": adapter, "optimiser": optimiser, "step": held}
    teacher = sizes.teacher * wide - _unread(job.teacher, sizes.teacher_looked_up * wide, job)
    if config.distillation.top_k is None:
        return {"weights": weights, "teacher": teacher, "adapter": adapter, "optimiser": optimiser, "step": held}
    # It is asked before there is an adapter, and let go: the larger of both times counts.
    asking = _held(sizes.asking, config, job)
    if teacher + asking > adapter + optimiser + held:
        return {"weights": weights, "teacher": teacher, "adapter": 0, "optimiser": 0, "step": asking}
    return {"weights": weights, "teacher": 0, "adapter": adapter, "optimiser": optimiser, "step": held}


def _unread(model: Any, embedding: int, job: Job) -> int:
    """Bytes of weights that stay in their file: it is mapped, and where no number is converted, only what is used is
    read."""
    stored = str(getattr(model, "dtype", None)).removeprefix("torch.")
    return embedding if job.cpu and stored == job.dtype else 0


def _held(alive: int, config: TrainConfig, job: Job) -> int:
    """Bytes that the process holds where so many are alive in tensors."""
    where = "cpu" if job.cpu else "cuda"
    holes = _HOLES["mapped" if job.cpu and config.gradient_checkpointing else where] * alive
    return alive + round(min(holes, _MOST_HOLES) if job.cpu else holes) + _KERNELS[where]


def _alternatives(config: TrainConfig) -> Iterator[tuple[str, TrainConfig]]:
    """Settings that need less memory, the cheapest in time first."""

    def changed(**update: Any) -> TrainConfig:
        return config.model_copy(update=update)

    least = 2 if config.method == "kto" else 1  # it compares the rows of a pass
    for micro in _divisors(config.batch_size):
        if least <= micro < config.rows_at_once:
            yield f"micro_batch_size: {micro}", changed(micro_batch_size=micro)
    smallest = min((micro for micro in _divisors(config.batch_size) if micro >= least), default=least)
    small: dict[str, Any] = {"micro_batch_size": smallest, "gradient_checkpointing": True}
    said = f"micro_batch_size: {smallest}"
    if not config.gradient_checkpointing:
        yield f"{said}, gradient_checkpointing: true", changed(**small)
    if config.adapter == "full":
        yield f"adapter: lora, {said}", changed(adapter="lora", micro_batch_size=smallest)
    if config.adapter != "qlora":
        yield f"adapter: qlora, {said}, gradient_checkpointing: true", changed(adapter="qlora", **small)


def _divisors(size: int) -> list[int]:
    return [count for count in range(size, 0, -1) if size % count == 0]


def _available(job: Job) -> int:
    import torch

    # What this process holds already is counted in the prediction too.
    return available_memory() + resident_memory() if job.cpu else int(torch.cuda.mem_get_info()[0])


def _import_what_training_imports(config: TrainConfig) -> None:
    """The libraries' share is measured in this process, so they have to be here."""
    names = ["datasets", "peft", "trl.trainer.dpo_trainer", "trl.trainer.sft_trainer"]
    for name in [*names, *(["bitsandbytes"] if config.adapter == "qlora" else [])]:
        importlib.import_module(name)
