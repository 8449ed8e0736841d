"""The llama.cpp engine: a server process, spoken to through the same client as every other endpoint.

It reads the 4-bit file as it is, so it needs a third of the memory of the transformers engine, answers single requests
sooner, and holds an answer to a JSON Schema by grammar.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from distill.errors import DistillError, FailureClass, TeacherError
from distill.io.host import cores
from distill.recipe import TeacherConfig
from distill.teachers.base import Reply
from distill.teachers.local.server import LlamaServer
from distill.teachers.openai import OpenAITeacher

__all__ = ["LlamaCppEngine"]

_SLOTS = 16
"""More requests at once than this bring nothing on a CPU: its matrix units are full."""

_NOTICE_S = 1.0
"""A broken connection may be noticed a moment before the process is gone."""


class LlamaCppEngine:
    """`restarts`: how often a crashed server is started again in one run; `commands`: as for `LlamaServer`."""

    name = "llama.cpp"

    def __init__(
        self,
        config: TeacherConfig,
        model: Path,
        *,
        context: int,
        restarts: int = 3,
        commands: Sequence[Sequence[str]] | None = None,
    ) -> None:
        self.slots = min(config.max_concurrency, _SLOTS)
        self._config = config
        self._restarts = restarts
        self._server = LlamaServer(self._arguments(model, context), commands=commands)
        self._client: OpenAITeacher | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    @property
    def server(self) -> LlamaServer:
        return self._server

    async def start(self) -> None:
        await self._server.start()
        endpoint = self._config.model_copy(
            update={
                "provider": "openai",
                "base_url": self._server.base_url,
                "api_key": SecretStr(self._server.key),
                "headers": {},
            }
        )
        self._client = OpenAITeacher(endpoint, api_key=self._server.key)
        await self._client.start()

    async def send(self, wire: Mapping[str, Any], *, timeout: float) -> Reply:  # noqa: ASYNC109 - part of the contract
        client = await self._running()
        try:
            return await client.send(wire, timeout=timeout)
        except TeacherError as error:
            if error.failure is FailureClass.CONNECTION and await self._is_gone():
                raise TeacherError(
                    FailureClass.CRASHED, f"the llama.cpp server crashed; it {self._server.last_words()}"
                ) from None
            raise

    async def close(self) -> None:
        self._closed = True
        if self._client is not None:
            await self._client.close()
            self._client = None
        await asyncio.to_thread(self._server.stop)

    async def _running(self) -> OpenAITeacher:
        async with self._starting:  # one restart, however many requests find it dead
            if self._closed:
                raise TeacherError(FailureClass.CONNECTION, "the engine is closed")
            if self._client is None or not self._server.alive:
                words = self._server.last_words()
                if self._restarts <= 0:
                    raise TeacherError(FailureClass.CRASHED, f"the llama.cpp server keeps crashing; it {words}")
                self._restarts -= 1
                try:
                    if self._client is not None:
                        await self._client.close()
                    await self.start()
                except DistillError as error:
                    raise TeacherError(FailureClass.CRASHED, error.message) from None
            if self._client is None:
                raise TeacherError(FailureClass.CRASHED, "the llama.cpp server is not started")
            return self._client

    async def _is_gone(self) -> bool:
        for _ in range(10):
            if not self._server.alive:
                return True
            await asyncio.sleep(_NOTICE_S / 10)
        return False

    def _arguments(self, model: Path, context: int) -> list[str]:
        threads = str(cores())
        return [
            *("--model", str(model), "--alias", Path(self._config.model).name),
            *("--parallel", str(self.slots), "--ctx-size", str(self.slots * context)),
            *("--threads", threads, "--threads-batch", threads),
            # Each slot keeps the prefix of its last prompt; a cache of whole prompts besides would take up to 8 GB.
            *("--cache-prompt", "--cache-ram", "0"),
            # Fitting loads the model once more to estimate its memory, and crashes on some tokenizers (SmolLM2's).
            *("--fit", "off"),
            *("--no-webui", "--no-slots", "--offline", "--log-verbosity", "2"),
        ]
