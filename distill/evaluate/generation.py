# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch, transformers and peft are only partly typed.
"""A student answers: greedy, in batches, with the prompt it was trained on.

The chat template is the one saved beside the adapter, the base is held as it was in training (number type, 4-bit),
and an answer ends at the token that ended the trained answers. Batches are made of prompts of similar length, padded
on the left. Latency is a separate measurement: single prompts, one after the other, from prompt to whole answer.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distill.errors import Halted, InputError
from distill.evaluate.holdout import Item
from distill.evaluate.scorecard import Latency
from distill.io import digest, loads
from distill.io.memory import hand_back
from distill.train.bases import require_base
from distill.train.saying import read, say
from distill.train.student import (
    choose_dtype,
    load_adapter,
    load_model,
    load_tokenizer,
    locate,
    offline,
    weights_digest,
)
from distill.train.template import Encoder, stop_tokens, use_template

__all__ = ["Generated", "Prediction", "Speech", "Student", "adapter_folder", "latency_of", "more_stops", "read_answer"]

_LATENCY_SECONDS = 15.0
"""The latency measurement ends early after this long; `n` says how many items it saw."""


@dataclass(frozen=True, slots=True)
class Prediction:
    text: str
    """The answer, without what was thought before it."""
    tokens: int = 0
    finish: str = "stop"
    """`stop`, `length` (cut at the limit), or for a teacher the class of its failure."""
    prompt_tokens: int = 0
    usd: float | None = None
    """What the answer cost, where it has a price."""
    reasoning: str = ""
    """What stood between `<think>` and `</think>`, or was told apart by a provider."""


@dataclass(frozen=True)
class Generated:
    """One prediction an item, in the items' order, and what it took."""

    predictions: list[Prediction]
    seconds: float
    latency: Latency | None = None
    timed: bool = True
    """False: some answers were stored ones, so that `seconds` says nothing."""


@dataclass(frozen=True)
class Speech:
    """How a student is spoken to."""

    encoder: Encoder
    stops: tuple[int, ...]
    """Ids that end its answers."""

    def prompt(self, turns: Sequence[dict[str, str]]) -> str:
        """The text it is shown."""
        return self.encoder.prompt_text(turns)

    @property
    def endings(self) -> tuple[str, ...]:
        """What ends an answer, as text."""
        return tuple(str(self.encoder.tokenizer.decode([token])) for token in self.stops)


@dataclass
class Student:
    """A local model with or without an adapter. Weights are loaded when it answers, and dropped afterwards."""

    model: str
    """A folder in transformers format, or a name of the catalogue."""
    adapter: Path | None = None
    """Folder of an adapter, or the output folder of a training that holds one."""
    name: str = "student"
    max_tokens: int = 128
    batch_size: int = 32
    latency_items: int = 8
    dtype: str = "auto"
    temperature: float = 0.0
    """Above 0: answers are drawn instead of the likeliest ones."""
    draw: int = 0
    """Number of the draw; equal numbers draw the same."""
    clock: Callable[[], float] = field(default=time.perf_counter, repr=False)

    def __post_init__(self) -> None:
        self._place = locate(self.model)
        self._adapter = adapter_folder(self.adapter) if self.adapter is not None else None
        if self._adapter is not None:
            require_base(self._adapter, self._place)
        # A full fine-tune keeps its notes in the model's own folder.
        self._trained = _notes(self._adapter or self._place.folder)
        wanted = self._trained.get("dtype", "auto") if self.dtype == "auto" else self.dtype
        self._dtype = choose_dtype(wanted)[0]

    @property
    def four_bit(self) -> bool:
        """Whether the base is held in 4-bit: it is if the adapter was trained so."""
        return self._adapter is not None and bool(self._trained.get("four_bit"))

    def about(self) -> dict[str, Any]:
        """What is scored; predictions are good as long as this does not change."""
        offline()
        template = use_template(load_tokenizer(self._place.folder), self._adapter)
        return {
            "model": self._place.name,
            "model_digest": weights_digest(self._place.folder),
            "adapter_digest": weights_digest(self._adapter) if self._adapter else None,
            "template": digest(template.encode()),
            "dtype": self._dtype,
            "four_bit": self.four_bit,
            "max_tokens": self.max_tokens,
            "decoding": f"temperature {self.temperature:g}, draw {self.draw}" if self.temperature else "greedy",
        }

    @property
    def folder(self) -> Path:
        """Where the model lies."""
        return self._place.folder

    @property
    def adapter_place(self) -> Path | None:
        """The folder of the adapter's weights."""
        return self._adapter

    @property
    def number_type(self) -> str:
        """`bfloat16` or `float32`: as it was trained, or as this machine is fast at."""
        return self._dtype

    def speech(self) -> Speech:
        """Its template and the end of its answers, without loading weights."""
        offline()
        tokenizer = load_tokenizer(self._place.folder)
        use_template(tokenizer, self._adapter)
        return Speech(Encoder(tokenizer), stop_tokens(tokenizer, more_stops(self._place.folder)))

    def drawing(self, number: int, temperature: float) -> Student:
        """The same student, as it makes draw `number` at a temperature."""
        return replace(self, temperature=temperature, draw=number, latency_items=0)

    async def answer(self, items: Sequence[Item], progress: Callable[[int], None]) -> Generated:
        """Answer every item, off the event loop. Cancelled, it ends after the batch under way."""
        leave = threading.Event()

        def tell(done: int) -> None:
            progress(done)
            if leave.is_set():
                raise Halted("stopped between two batches")

        try:
            return await asyncio.to_thread(self.generate, items, tell)
        except asyncio.CancelledError:
            leave.set()
            raise
        finally:
            hand_back()

    def generate(self, items: Sequence[Item], progress: Callable[[int], None] = lambda _: None) -> Generated:
        """Answer every item.

        Raises:
            InputError: a prompt is too long for the model, or its template refuses it.
        """
        import torch

        offline()
        tokenizer = load_tokenizer(self._place.folder)
        use_template(tokenizer, self._adapter)
        model = self._load()
        encoder = Encoder(tokenizer)
        prompts = [encoder.prompt(item.messages) for item in items]
        _fit(prompts, items, model, self.max_tokens)
        stops = stop_tokens(tokenizer, _as_list(model.generation_config.eos_token_id))
        # Longest first: what does not fit into memory fails at once, not after an hour.
        order = sorted(range(len(items)), key=lambda i: -len(prompts[i]))
        found: dict[int, Prediction] = {}
        with torch.inference_mode():
            if self.temperature:
                torch.manual_seed(self.draw)
            started = self.clock()
            for start in range(0, len(order), self.batch_size):
                chosen = order[start : start + self.batch_size]
                answers = self._batch(model, tokenizer, [prompts[i] for i in chosen], stops)
                found.update(zip(chosen, answers, strict=True))
                progress(len(found))
            seconds = self.clock() - started
            latency = self._latency(model, tokenizer, prompts, stops)
        made = [replace(found[i], prompt_tokens=len(prompts[i])) for i in range(len(items))]
        return Generated(made, seconds, latency)

    def _load(self) -> Any:
        import torch

        model = load_model(self._place.folder, dtype=self._dtype, four_bit=self.four_bit)
        if self._adapter is not None:
            from distill.io.memory import available_memory
            from distill.train.kernels import fuse_adapters

            model = load_adapter(model, self._adapter)
            if not torch.cuda.is_available():
                fuse_adapters(model, dequantise_bytes=available_memory() // 4)
                # The fused product is made in the base's number type: cast once here, not at every token.
                for name, parameter in model.named_parameters():
                    if "lora_" in name:
                        parameter.data = parameter.data.to(getattr(torch, self._dtype))
        model.get_output_embeddings().register_forward_pre_hook(_contiguous)
        model.eval()
        return model

    def _batch(self, model: Any, tokenizer: Any, prompts: list[list[int]], stops: tuple[int, ...]) -> list[Prediction]:
        made = say(model, prompts, stops, max_tokens=self.max_tokens, temperature=self.temperature)
        return [read_answer(ids, tokenizer, stops) for ids in made]

    def _latency(self, model: Any, tokenizer: Any, prompts: list[list[int]], stops: tuple[int, ...]) -> Latency | None:
        count = min(self.latency_items, len(prompts))
        if count == 0:
            return None
        times: list[float] = []
        begun = self.clock()
        for k in range(count):
            started = self.clock()
            self._batch(model, tokenizer, [prompts[k * len(prompts) // count]], stops)
            times.append(self.clock() - started)
            if self.clock() - begun > _LATENCY_SECONDS and len(times) >= 3:
                break
        return latency_of(times, "single prompts, one after the other, whole answer")


def adapter_folder(given: Path) -> Path:
    """The folder with `adapter_config.json`: `given` itself, or `adapter/` in it.

    Raises:
        InputError: there is none, or its weights are not safetensors.
    """
    for place in (given, given / "adapter"):
        if (place / "adapter_config.json").is_file():
            if not (place / "adapter_model.safetensors").is_file():
                raise InputError("the adapter has no adapter_model.safetensors", path=place)
            return place
    raise InputError("not an adapter: no adapter_config.json here or in adapter/", path=given)


def more_stops(folder: Path) -> list[int]:
    """Ids that the model's own settings end an answer at."""
    file = folder / "generation_config.json"
    return _as_list(loads(file.read_bytes()).get("eos_token_id")) if file.is_file() else []


def latency_of(times: Sequence[float], how: str) -> Latency | None:
    """Median and 95th percentile (nearest rank) of seconds."""
    if not times:
        return None
    ranked = sorted(times)
    p95 = ranked[max(0, -(-95 * len(ranked) // 100) - 1)]
    middle = len(ranked) // 2
    p50 = ranked[middle] if len(ranked) % 2 else (ranked[middle - 1] + ranked[middle]) / 2
    return Latency(round(p50, 4), round(p95, 4), len(ranked), how)


def read_answer(ids: Sequence[int], tokenizer: Any, stops: Sequence[int]) -> Prediction:
    """What `ids` say up to the first of `stops`."""
    said = read(ids, tokenizer, stops)
    return Prediction(said.text, said.tokens, "stop" if said.ended else "length", reasoning=said.reasoning)


def _contiguous(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """Given the last position of each row as a view, torch multiplies by a frozen head row by row, with a copy of the
    weight for each: as long as the rest of the model, and 0.9 GB for 16 rows of a vocabulary of 49k."""
    return (given[0].contiguous(), *given[1:])


def _fit(prompts: Sequence[list[int]], items: Sequence[Item], model: Any, max_tokens: int) -> None:
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if room is None:
        return
    for prompt, item in zip(prompts, items, strict=True):
        if len(prompt) + max_tokens > room:
            raise InputError(
                f"item {item.id}: {len(prompt)} tokens and {max_tokens} of answer pass the model's {room}",
                hint="shorten the item, or lower max_tokens",
            )


def _notes(folder: Path) -> dict[str, Any]:
    file = folder / "distill.json"
    return loads(file.read_bytes()) if file.is_file() else {}


def _as_list(value: Any) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)
