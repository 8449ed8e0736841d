"""A GGUF file runs in llama.cpp, in a process of its own: it is spoken to over loopback, and may crash alone.

Prompts are sent as token ids, rendered by the tokenizer and the template that the student was trained with. So a score
is that of the weights; whether llama.cpp would have made the same ids from the text is asked apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from distill.errors import RunError
from distill.evaluate import Generated, Item, Prediction
from distill.evaluate.generation import latency_of, more_stops, read_answer
from distill.io import digest
from distill.io.host import cores
from distill.teachers.local.server import LlamaServer
from distill.train import student
from distill.train.template import Encoder, stop_tokens, use_template

__all__ = ["LlamaClient", "LlamaSystem", "running"]

_SLOTS = 4
_TIMEOUT_S = 600.0


class LlamaClient:
    """The few calls of llama-server that are needed here."""

    def __init__(self, server: LlamaServer, http: httpx.AsyncClient) -> None:
        self._server = server
        self._http = http

    async def tokenise(self, text: str, *, whole_prompt: bool = False) -> list[int]:
        """Ids of `text`; as a `whole_prompt` with BOS where the model wants it, and special tokens recognised."""
        body = {"content": text, "add_special": whole_prompt, "parse_special": whole_prompt}
        return list((await self._post("/tokenize", body))["tokens"])

    async def render(self, messages: Sequence[dict[str, str]]) -> str:
        """The prompt that the chat endpoint would make."""
        return str((await self._post("/apply-template", {"messages": list(messages)}))["prompt"])

    async def complete(
        self,
        prompt: Sequence[int],
        max_tokens: int,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        cache: bool = False,
    ) -> list[int]:
        """The continuation, as ids, with the token that ended it. Without `cache` it is the same whatever was asked
        before."""
        body = {
            "prompt": list(prompt),
            "n_predict": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": 0,
            "min_p": 0.0,
            "cache_prompt": cache,
            "return_tokens": True,
            **({"seed": seed} if seed is not None else {}),
        }
        return list((await self._post("/completion", body))["tokens"])

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = await self._http.post(path, json=body)
        except httpx.TransportError as error:
            how = self._server.last_words() if not self._server.alive else f"does not answer ({error})"
            raise RunError(f"the llama.cpp server {how}") from None
        if answer.status_code != 200:
            raise RunError(f"the llama.cpp server refused {path}: {answer.text[:300]}")
        return answer.json()


@contextlib.asynccontextmanager
async def running(file: Path, *, context: int, slots: int = _SLOTS) -> AsyncGenerator[LlamaClient]:
    """A server for `file`, with `context` tokens for each of `slots` requests at once."""
    threads = str(cores())
    arguments = [
        *("--model", str(file), "--alias", file.stem),
        *("--parallel", str(slots), "--ctx-size", str(slots * context)),
        *("--threads", threads, "--threads-batch", threads),
        *("--cache-ram", "0", "--fit", "off", "--no-webui", "--no-slots", "--offline", "--log-verbosity", "2"),
    ]
    server = LlamaServer(arguments)
    try:
        await server.start()
        base = server.base_url.removesuffix("/v1")
        headers = {"Authorization": f"Bearer {server.key}"}
        async with httpx.AsyncClient(base_url=base, headers=headers, timeout=_TIMEOUT_S, trust_env=False) as http:
            yield LlamaClient(server, http)
    finally:
        await asyncio.to_thread(server.stop)


@dataclass
class LlamaSystem:
    """A GGUF file that is scored beside the model it was made from."""

    file: Path
    model: str
    """The model it was made from: its tokenizer and template render the prompts."""
    name: str
    max_tokens: int = 128
    latency_items: int = 8
    temperature: float = 0.0
    """Above 0: answers are drawn instead of the likeliest ones."""
    draw: int = 0
    """Number of the draw; equal numbers draw the same."""
    clock: Callable[[], float] = field(default=time.perf_counter, repr=False)

    def about(self) -> dict[str, Any]:
        """What is scored; predictions are good as long as this does not change."""
        tokenizer = self._tokenizer()
        with self.file.open("rb") as handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
        return {
            "model": self.file.name,
            "sha256": found,
            "engine": "llama.cpp",
            "template": digest(str(tokenizer.chat_template).encode()),
            "max_tokens": self.max_tokens,
            "decoding": f"temperature {self.temperature:g}, draw {self.draw}" if self.temperature else "greedy",
        }

    def drawing(self, number: int, temperature: float) -> LlamaSystem:
        """The same file, as it makes draw `number` at a temperature."""
        return replace(self, temperature=temperature, draw=number, latency_items=0)

    async def answer(self, items: Sequence[Item], progress: Callable[[int], None]) -> Generated:
        """Answer every item, some at once; then a few singly, for the latency."""
        tokenizer = self._tokenizer()
        stops = stop_tokens(tokenizer, more_stops(student.locate(self.model).folder))
        prompts = [Encoder(tokenizer).prompt(item.messages) for item in items]
        longest = max(map(len, prompts), default=0) + self.max_tokens
        found: dict[int, Prediction] = {}
        async with running(self.file, context=-(-longest // 256) * 256) as client:
            window = asyncio.Semaphore(_SLOTS)

            async def one(number: int) -> None:
                async with window:
                    answer = await client.complete(prompts[number], self.max_tokens, **self._drawn(items[number]))
                    found[number] = read_answer(answer, tokenizer, stops)
                progress(len(found))

            started = self.clock()
            async with asyncio.TaskGroup() as group:
                for number in range(len(items)):
                    group.create_task(one(number))
            seconds = self.clock() - started
            times: list[float] = []
            count = min(self.latency_items, len(items))
            for k in range(count):
                begun = self.clock()
                await client.complete(prompts[k * len(items) // count], self.max_tokens)
                times.append(self.clock() - begun)
        latency = latency_of(times, "single prompts, one after the other, whole answer")
        return Generated([found[number] for number in range(len(items))], seconds, latency)

    def _drawn(self, item: Item) -> dict[str, Any]:
        """How an item's answer is drawn: by a seed of its own, whatever is asked beside it."""
        if not self.temperature:
            return {}
        return {"temperature": self.temperature, "top_p": 0.95, "seed": int(digest([self.draw, item.id])[:7], 16)}

    def _tokenizer(self) -> Any:
        student.offline()
        folder = student.locate(self.model).folder
        tokenizer = student.load_tokenizer(folder)
        use_template(tokenizer, folder)
        return tokenizer
