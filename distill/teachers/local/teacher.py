"""`provider: local`: a model of the catalogue, or a file or folder of the user's, as a teacher.

What is hashed into an answer's key is the question put to the weights: messages, every sampling parameter (none is left
to an engine's defaults), the seed, and a fingerprint of the weights. The engine is not in it, on purpose: both engines
run the same weights and draw from the same distribution, so an answer of either is a fair draw, and a run that is
continued where `auto` would choose otherwise finds its answers. The stored body names the engine that wrote it, and the
numbers it multiplied: rounding to 8 bits (`precision`) moves the distribution by less than the 4-bit weights did.

The seed of a request is derived from the request and the sample number, so samples differ, and all can be drawn again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distill import models
from distill.errors import FailureClass, InputError, TeacherError
from distill.io import digest
from distill.io.host import fast_bfloat16, has_gpu
from distill.io.memory import available_memory
from distill.recipe import TeacherConfig
from distill.teachers.base import Message, Reading, Reply, Request, SamplingParams
from distill.teachers.failures import failure_of
from distill.teachers.local.choose import choose
from distill.teachers.local.engine import Engine
from distill.teachers.local.engine_llama import LlamaCppEngine
from distill.teachers.local.engine_transformers import TransformersEngine
from distill.teachers.openai import OpenAITeacher
from distill.teachers.reading import is_chat, read_chat

__all__ = ["LocalTeacher"]

_DEFAULTS: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95, "top_k": 40, "min_p": 0.05}
"""llama.cpp's own. Written into every request, so that they cannot change under a stored answer."""

_PROMPT_TOKENS = 1536
"""Room for a prompt where `context_tokens` is left out."""

_PATIENCE_S = 1800.0
"""Seconds for one request unless the recipe says `timeout_s`. The default is meant for servers elsewhere: here a full
batch on a busy machine takes minutes, and to give up and ask again would only make it longer."""


class LocalTeacher:
    """One embedded model. Nothing is loaded before `start`.

    Raises:
        InputError: the recipe sets what an embedded model has not (an API key).
    """

    provider = "local"

    def __init__(self, config: TeacherConfig) -> None:
        self.model = config.model
        self._config = config
        self._weights: str | None = None
        self._engine: Engine | None = None
        # Writes the body: the local dialect is the OpenAI-compatible one.
        self._speaker = OpenAITeacher(
            config.model_copy(update={"provider": "openai", "base_url": "http://127.0.0.1/v1", "headers": {}})
        )

    @property
    def engine(self) -> str | None:
        """Name of the engine that runs; None before `start`."""
        return self._engine.name if self._engine is not None else None

    def wire(self, request: Request, sample: int) -> dict[str, Any]:
        wire = self._speaker.wire(request, sample)
        for name, value in _DEFAULTS.items():
            wire.setdefault(name, value)
        if self._weights is None:
            self._weights = _fingerprint(self.model)
        wire["weights"] = self._weights
        wire["model"] = Path(self.model).name  # where a file lies on this machine is no part of the question
        wire["seed"] = int(digest({"request": wire, "sample": sample}, size=4), 16) & 0x7FFF_FFFF
        return wire

    async def send(self, wire: Mapping[str, Any], *, timeout: float) -> Reply:  # noqa: ASYNC109 - part of the contract
        engine = self._engine
        if engine is None:
            raise TeacherError(FailureClass.CONNECTION, "the embedded model is not started")
        if "timeout_s" not in self._config.model_fields_set:
            timeout = max(timeout, _PATIENCE_S)
        return await engine.send(wire, timeout=timeout)

    def failure(self, reply: Reply) -> TeacherError | None:
        return failure_of(reply, is_answer=is_chat)

    def read(self, body: bytes) -> Reading:
        return read_chat(body, self.model)

    async def start(self) -> None:
        """Load the weights into the configured engine, or into the faster one.

        Raises:
            InputError: the model is not here, or no engine can run it.
            RunError: the engine did not start.
        """
        if self._engine is not None:
            return
        if self._config.engine == "auto":
            self._engine = await choose(
                self._candidates(),
                host_key=f"{_fingerprint(self.model)} x{min(self._config.max_concurrency, 64)}",
                concurrency=self._config.max_concurrency,
                load=self._load,
            )
            return
        engine: Engine = self._candidates()[self._config.engine]()
        try:
            await engine.start()
        except BaseException:
            await engine.close()
            raise
        self._engine = engine

    async def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()

    def _candidates(self) -> dict[str, Callable[[], Engine]]:
        """Engine name -> how to make it; called only for the one that is wanted."""
        config, context = self._config, self._context()
        weights = models.path(config.model)

        def llama() -> Engine:
            if weights.is_dir():
                raise InputError(
                    "engine llama.cpp needs a GGUF file, and this is a folder",
                    path=weights,
                    hint="use engine: transformers",
                )
            return LlamaCppEngine(config, weights, context=context)

        def transformers() -> Engine:
            if config.sampling.top_logprobs is not None:
                raise InputError("engine transformers gives no log-probabilities", field="sampling.top_logprobs")
            if config.engine == "auto":
                self._worth_trying()
            return TransformersEngine(
                lambda: models.folder(config.model),
                concurrency=config.max_concurrency,
                context=context,
                int8=config.precision == "auto",
            )

        return {"llama.cpp": llama, "transformers": transformers}

    def _worth_trying(self) -> None:
        """Refuse the transformers engine where it would lose or not fit: its folder takes a minute to make."""
        if not (has_gpu() or fast_bfloat16()):
            raise InputError("this processor has no fast bfloat16, so llama.cpp is faster")
        catalogue = models.catalogue()
        if self.model not in catalogue or has_gpu():
            return
        # Weights in 16 bits, and as much as a third of them for keys, values and buffers.
        need, free = 2 * catalogue[self.model].parameters * 4 // 3, available_memory()
        if free < need:
            raise InputError(f"it needs {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")

    def _context(self) -> int:
        """Tokens of one request, prompt and answer; a multiple of 256, never more than the model was made for."""
        catalogue = models.catalogue()
        most = catalogue[self.model].context if self.model in catalogue else 131_072
        # Twice max_tokens: a method may ask once more with double when an answer was cut.
        wanted = self._config.context_tokens or 2 * self._config.sampling.max_tokens + _PROMPT_TOKENS
        return min(most, -(-wanted // 256) * 256)

    def _load(self, count: int) -> list[dict[str, Any]]:
        """A small realistic load: `count` requests that share their instructions and differ in their end."""
        system = Message(
            "system",
            "You write realistic short messages that customers send to the service desk of a shop. Every message is one"
            " or two sentences long, in plain words, without a greeting and without a name. Write only what was asked.",
        )
        params = SamplingParams(max_tokens=16, temperature=0.9)
        subjects = ("a late parcel", "a broken lamp", "a wrong invoice", "a lost password", "a return", "a price")
        return [
            self.wire(
                Request("load", (system, Message("user", f"Write four messages about {subjects[i % 6]}.")), params), i
            )
            for i in range(count)
        ]


def _fingerprint(model: str) -> str:
    """What identifies the weights: the catalogue's hash, else a digest of the file's size, head and tail."""
    catalogue = models.catalogue()
    if model in catalogue:
        return "sha256:" + catalogue[model].files[-1].sha256[:16] if len(catalogue[model].files) == 1 else model
    place = models.path(model)
    files = [place] if place.is_file() else sorted([*place.glob("*.safetensors"), place / "config.json"])
    state = hashlib.blake2b(digest_size=8)
    for file in files:
        if file.is_file():
            state.update(_ends_of(file))
    return f"blake2b:{state.hexdigest()}"


def _ends_of(file: Path, size: int = 1 << 20) -> bytes:
    with file.open("rb") as stream:
        length = stream.seek(0, 2)
        stream.seek(0)
        head = stream.read(size)
        stream.seek(max(0, length - size))
        return b"%d:" % length + head + stream.read(size)
