# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch, transformers and peft are only partly typed.
"""Releases that answer: several adapters over one base, whole models, GGUF files in llama.cpp.

A release is run as it was measured: the base held as in training, the template of the release, answers that end at the
token that ended the trained ones. Questions for the same adapter that wait together are answered together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from distill.errors import InputError, RunError
from distill.evaluate.generation import more_stops, read_answer
from distill.io import loads
from distill.release.llama import LlamaClient, running
from distill.release.registry import Listed
from distill.train import student
from distill.train.saying import say
from distill.train.template import Encoder, stop_tokens, use_template

__all__ = ["Answer", "Backend", "Sampling", "TooLong", "open_backends"]

_TOGETHER = 8


class TooLong(InputError):
    """The prompt and the longest answer pass what the model can see."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn. Temperature 0 is greedy, as the scores were measured."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    finish: str
    """`stop` or `length`."""
    prompt_tokens: int
    completion_tokens: int
    reasoning: str = ""
    """What the model thought before it, where it did."""


class Backend(Protocol):
    """One model by name."""

    @property
    def listed(self) -> Listed: ...

    async def answer(self, messages: Sequence[dict[str, str]], sampling: Sampling) -> Answer: ...


@contextlib.asynccontextmanager
async def open_backends(
    releases: Sequence[Listed], *, base: str | None = None, context: int = 4096
) -> AsyncGenerator[dict[str, Backend]]:
    """Load every release; adapters of one base share it.

    Args:
        base: where the adapters' base lies, if its name is not in the catalogue.
        context: tokens of prompt and answer, for GGUF files.

    Raises:
        InputError: a base is not here, or is not the one that an adapter was trained on.
    """
    async with contextlib.AsyncExitStack() as stack:
        backends: dict[str, Backend] = {}
        shared: dict[tuple[str, str, bool], _Engine] = {}
        for listed in releases:
            release = listed.release
            if release.kind == "gguf":
                client = await stack.enter_async_context(
                    running(listed.folder / release.weights, context=context, slots=4)
                )
                made: Backend = _Llama(listed, client, _tokenizer(listed, base), context)
            else:
                place = _base(listed, base)
                key = (str(place), release.dtype, release.four_bit)
                if key not in shared:
                    shared[key] = _Engine(place, dtype=release.dtype, four_bit=release.four_bit)
                made = _Local(listed, shared[key], shared[key].add(listed), _tokenizer(listed, base))
            backends[release.name if release.name not in backends else release.title] = made
        for engine in shared.values():
            await asyncio.to_thread(engine.load)
            worker = asyncio.create_task(engine.work())
            stack.push_async_callback(_end, worker)
        yield backends


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@dataclass
class _Local:
    """A model or an adapter in transformers."""

    listed: Listed
    engine: _Engine
    adapter: str | None
    tokenizer: Any

    async def answer(self, messages: Sequence[dict[str, str]], sampling: Sampling) -> Answer:
        prompt = Encoder(self.tokenizer).prompt(list(messages))
        if self.engine.room is not None and len(prompt) + sampling.max_tokens > self.engine.room:
            raise TooLong(f"{len(prompt)} tokens and {sampling.max_tokens} of answer pass {self.engine.room}")
        ids = await self.engine.ask(_Job(self.adapter, tuple(prompt), sampling, self._stops()))
        read = read_answer(ids, self.tokenizer, self._stops())
        return Answer(read.text, read.finish, len(prompt), read.tokens, read.reasoning)

    def _stops(self) -> tuple[int, ...]:
        return stop_tokens(self.tokenizer, self.engine.ends)


@dataclass
class _Llama:
    """A GGUF file in llama.cpp."""

    listed: Listed
    client: LlamaClient
    tokenizer: Any
    context: int

    async def answer(self, messages: Sequence[dict[str, str]], sampling: Sampling) -> Answer:
        prompt = Encoder(self.tokenizer).prompt(list(messages))
        if len(prompt) + sampling.max_tokens > self.context:
            raise TooLong(f"{len(prompt)} tokens and {sampling.max_tokens} of answer pass {self.context}")
        ids = await self.client.complete(
            prompt,
            sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            cache=True,
        )
        read = read_answer(ids, self.tokenizer, stop_tokens(self.tokenizer))
        return Answer(read.text, read.finish, len(prompt), read.tokens, read.reasoning)


@dataclass(frozen=True)
class _Job:
    adapter: str | None
    prompt: tuple[int, ...]
    sampling: Sampling
    stops: tuple[int, ...]

    def joins(self, other: _Job) -> bool:
        """Whether both can be answered in one batch."""
        same = self.adapter == other.adapter and self.stops == other.stops
        return same and self.sampling.temperature == other.sampling.temperature == 0


@dataclass
class _Engine:
    """One base in memory, and the adapters over it."""

    place: Path
    dtype: str
    four_bit: bool
    adapters: dict[str, Path] = field(default_factory=dict[str, Path])
    room: int | None = None
    ends: list[int] = field(default_factory=list[int])
    _model: Any = None
    _waiting: list[tuple[_Job, asyncio.Future[list[int]]]] = field(
        default_factory=list[tuple[_Job, "asyncio.Future[list[int]]"]]
    )
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, listed: Listed) -> str | None:
        """Take an adapter in; returns the name it has in here."""
        if listed.release.kind != "adapter":
            return None
        name = f"a{len(self.adapters)}"
        self.adapters[name] = listed.folder / listed.release.weights
        return name

    def load(self) -> None:
        import torch

        student.offline()
        dtype = student.choose_dtype(self.dtype)[0]
        model = student.load_model(self.place, dtype=dtype, four_bit=self.four_bit)
        self.room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.ends = more_stops(self.place)
        for number, (name, folder) in enumerate(self.adapters.items()):
            if number == 0:
                model = student.load_adapter(model, folder, name=name)
            else:
                model.load_adapter(folder, adapter_name=name, local_files_only=True)
        if self.adapters and not torch.cuda.is_available() and all(map(_is_plain, self.adapters.values())):
            from distill.io.memory import available_memory
            from distill.train.kernels import fuse_adapters

            model.set_adapter(next(iter(self.adapters)))
            fuse_adapters(model, dequantise_bytes=available_memory() // 4)
            for name, parameter in model.named_parameters():
                if "lora_" in name:  # as the evaluation does
                    parameter.data = parameter.data.to(getattr(torch, dtype))
        self._model = model.eval()

    async def ask(self, job: _Job) -> list[int]:
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        self._wake.set()
        return await future

    async def work(self) -> None:
        """Answer what waits, until cancelled."""
        while True:
            self._waiting = [(job, future) for job, future in self._waiting if not future.done()]
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            first = self._waiting[0]
            batch = [first, *(entry for entry in self._waiting[1:] if entry[0].joins(first[0]))][:_TOGETHER]
            self._waiting = [entry for entry in self._waiting if not any(entry is taken for taken in batch)]
            try:
                answers = await asyncio.to_thread(self._generate, [job for job, _ in batch])
            except Exception as error:  # whatever the model library raises: the requests fail, the server goes on
                for _, future in batch:
                    if not future.done():
                        future.set_exception(RunError(f"the model failed: {type(error).__name__}"))
                continue
            for (_, future), ids in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(ids)

    def _generate(self, jobs: Sequence[_Job]) -> list[list[int]]:
        import torch

        first = jobs[0]
        if first.adapter is not None:
            self._model.set_adapter(first.adapter)
        sampling = first.sampling
        with torch.inference_mode(), torch.random.fork_rng():
            if sampling.temperature > 0:
                torch.manual_seed(sampling.seed) if sampling.seed is not None else torch.seed()
            rows = say(
                self._model,
                [job.prompt for job in jobs],
                first.stops,
                max_tokens=max(job.sampling.max_tokens for job in jobs),
                temperature=sampling.temperature,
                top_p=sampling.top_p,
            )
        return [row[: job.sampling.max_tokens] for row, job in zip(rows, jobs, strict=True)]


def _base(listed: Listed, given: str | None) -> Path:
    """The folder whose weights are loaded."""
    release = listed.release
    if release.kind == "model":
        return listed.folder / release.weights
    try:
        place = student.locate(given or release.base)
    except InputError as error:
        raise InputError(
            f"{release.title} needs its base {release.base}: {error.message}", hint="name its folder with --base"
        ) from None
    if release.base_digest is not None and student.weights_digest(place.folder) != release.base_digest:
        raise InputError(f"is not the base that {release.title} was trained on", path=given or release.base)
    return place.folder


def _tokenizer(listed: Listed, given: str | None) -> Any:
    """The tokenizer, with the release's template."""
    student.offline()
    release = listed.release
    weights = listed.folder / release.weights
    if release.kind == "gguf":
        folder = listed.folder / "tokenizer"
    else:
        folder = weights if release.kind == "model" else student.locate(given or release.base).folder
    tokenizer = student.load_tokenizer(folder)
    use_template(tokenizer, listed.folder)
    return tokenizer


def _is_plain(adapter: Path) -> bool:
    """Whether the fused layers compute what this adapter is."""
    config = loads((adapter / "adapter_config.json").read_bytes())
    return not config.get("use_dora") and not config.get("lora_bias") and config.get("bias", "none") == "none"
