# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# transformers' models and tokenizers carry no usable types; everything untyped stays inside this file.
"""The transformers engine: a batch in this process that is refilled while it runs.

One thread owns the model. It takes requests from a queue, computes their prompts in groups of similar length, decodes
all rows together, and sends each row home when it ends. On CPUs with bfloat16 matrix instructions (AVX512-BF16, AMX)
and on GPUs this writes more text a second than llama.cpp does, and it needs the memory of 16-bit weights.

What an answer depends on: the request and its seed, and, through rounding, the company it is computed in. bfloat16
sums differ in their last bits with the shape of a batch and with how much of a prompt was taken from a neighbour, so a
request that is drawn anew in other company may part ways at a token whose choice was a near tie (in float32 it is the
same). Answers are stored, and a stored one is never drawn again.

There is no constrained decoding here: a JSON Schema is put into words, and the method checks the answer as always.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from distill.errors import FailureClass, InputError, RunError, TeacherError
from distill.io import numeric
from distill.io.host import cores, fast_bfloat16, fast_int8
from distill.io.memory import hand_back
from distill.teachers.base import Reply
from distill.teachers.local.batch import Batch, BatchRow
from distill.teachers.local.sampling import Draw

__all__ = ["TransformersEngine"]

_SLOTS_CPU, _SLOTS_GPU = 64, 256
_PREFILL_TOKENS = 4096
"""Prompt tokens, padding included, of one forward pass: bounds memory and the wait of rows that are decoding."""

_KNOWN = frozenset(
    {
        *("model", "weights", "messages", "max_tokens", "temperature", "top_p", "top_k", "min_p"),
        *("seed", "stop", "response_format"),
    }
)
_ENDS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "</s>")


@dataclass(slots=True, eq=False)
class _Job:
    wire: Mapping[str, Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Reply | TeacherError]
    cancelled: threading.Event = field(default_factory=threading.Event)
    stops: tuple[str, ...] = ()

    def deliver(self, result: Reply | TeacherError) -> None:
        def settle() -> None:
            if not self.answer.done():
                self.answer.set_result(result)

        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(settle)


class TransformersEngine:
    """
    Args:
        folder: gives the model in transformers format; called when the engine starts, and may take its time.
        concurrency: most requests that will come at once.
        context: most tokens of a prompt and its answer together.
        slots: rows of the batch; left out: as many as the hardware makes use of.
        dtype: left out: bfloat16 where the hardware multiplies it, else float32.
        int8: multiply in 8 bits where this processor does that faster than in bfloat16.
    """

    name = "transformers"

    def __init__(
        self,
        folder: Callable[[], Path],
        *,
        concurrency: int,
        context: int,
        slots: int | None = None,
        dtype: str | None = None,
        int8: bool = True,
    ) -> None:
        self.slots = slots or min(concurrency, _SLOTS_CPU)
        self._given_slots = slots
        self._folder = folder
        self._concurrency = concurrency
        self._context = context
        self._dtype = dtype
        self._int8 = int8 and dtype is None
        self._inbox: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting: list[tuple[_Job, BatchRow]] = []
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._dead: str | None = None

    async def start(self) -> None:
        await asyncio.to_thread(self._load)
        self._stop.clear()
        self._dead = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="transformers engine")
        self._thread.start()

    async def send(self, wire: Mapping[str, Any], *, timeout: float) -> Reply:  # noqa: ASYNC109 - part of the contract
        if self._thread is None or self._dead is not None:
            raise TeacherError(FailureClass.CRASHED, self._dead or "the engine is closed")
        loop = asyncio.get_running_loop()
        job = _Job(wire, loop, loop.create_future())
        self._inbox.put(job)
        if self._dead is not None:  # it died in between, and may have emptied its inbox before
            raise TeacherError(FailureClass.CRASHED, self._dead)
        try:
            async with asyncio.timeout(timeout):
                result = await job.answer
        except TimeoutError:
            raise TeacherError(FailureClass.TIMEOUT, f"no answer within {timeout:g} s") from None
        finally:
            job.cancelled.set()  # a row nobody waits for gives its slot away
        if isinstance(result, TeacherError):
            raise result
        return result

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            self._inbox.put(None)
            await asyncio.to_thread(thread.join)
        self._model = self._tokenizer = self._batch = None
        await asyncio.to_thread(hand_back)

    # --- the engine's own thread ---

    def _load(self) -> None:
        numeric.prepare()
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        folder = self._folder()
        gpu = torch.cuda.is_available()
        if not gpu:
            torch.set_num_threads(cores())
        dtype = getattr(torch, self._dtype or ("bfloat16" if gpu or fast_bfloat16() else "float32"))
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
        except (OSError, ValueError) as error:
            raise RunError(
                f"the model could not be loaded: {error}", hint="is it a folder in transformers format?"
            ) from None
        finally:
            if bars:
                logging.enable_progress_bar()
        kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"} or getattr(model.config, "final_logit_softcapping", None):
            raise InputError(
                f"engine transformers does not run models of type {model.config.model_type}: attention is not plain",
                path=folder,
                hint="use engine: llama.cpp with a GGUF file",
            )
        if self._tokenizer.chat_template is None:
            raise InputError("the tokenizer has no chat template", path=folder)
        self._model: Any = model.to("cuda" if gpu else "cpu").eval()
        self.slots = self._given_slots or min(self._concurrency, _SLOTS_GPU if gpu else _SLOTS_CPU)
        self._batch: Any = Batch(self._model, self.slots)
        self._precision = str(dtype).removeprefix("torch.")
        if self._int8 and not gpu and fast_int8():
            from distill.teachers.local import int8

            if int8.works() and int8.quantise(self._model):
                self._precision += " and int8"
        vocabulary = self._tokenizer.get_vocab()
        self._ends = {vocabulary[text] for text in _ENDS if text in vocabulary} | {self._tokenizer.eos_token_id}

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._cycle()
            self._fail("the engine is closed")
        except BaseException as error:  # whatever it was, nobody may wait for ever
            self._fail(f"the transformers engine crashed: {type(error).__name__}: {error}"[:300])

    def _cycle(self) -> None:
        batch: Batch = self._batch
        self._receive(block=not batch.rows and not self._waiting)
        self._waiting = [(job, row) for job, row in self._waiting if not job.cancelled.is_set()]
        # Prompts are computed together rather than one by one: a pass over the weights costs the same for few tokens.
        if self._waiting and (not batch.rows or batch.free >= min(len(self._waiting), max(1, self.slots // 8))):
            batch.add(self._next_group(batch.free))
        else:
            batch.step()
        for row in list(batch.rows):
            job: _Job = row.tag
            if job.cancelled.is_set():
                batch.remove(row)
            elif (reply := self._finished(row, job)) is not None:
                batch.remove(row)
                job.deliver(reply)

    def _receive(self, *, block: bool) -> None:
        while True:
            try:
                job = self._inbox.get(block=block)
            except queue.Empty:
                return
            block = False
            if job is None:
                return
            try:
                self._waiting.append((job, self._row(job)))
            except _Unsupported as error:
                job.deliver(_refusal(str(error), error.code))
            except Exception as error:  # a template may raise anything at what it is given
                job.deliver(_refusal(f"the chat template failed: {error}", "template_error"))

    def _row(self, job: _Job) -> BatchRow:
        wire = job.wire
        if odd := sorted(set(wire) - _KNOWN):
            raise _Unsupported(f"engine transformers does not know {', '.join(odd)}; llama.cpp may", "unknown_field")
        messages = [dict(message) for message in wire["messages"]]
        if wire.get("response_format") is not None:
            # In the system turn where there is one: that is shared by all requests, and computed once.
            place = 0 if messages[0]["role"] == "system" else -1
            messages[place]["content"] += _in_words(wire["response_format"])
        encoded: Any = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
        prompt: list[int] = list(encoded["input_ids"])
        room = self._context - len(prompt)
        if room < wire["max_tokens"]:
            raise _Unsupported(
                f"the prompt has {len(prompt)} tokens and max_tokens is {wire['max_tokens']}: together more than the"
                f" context of {self._context} (context_tokens)",
                "context_length_exceeded",
            )
        job.stops = tuple(wire.get("stop") or ())
        draw = Draw(
            temperature=wire["temperature"],
            top_p=wire["top_p"],
            top_k=wire["top_k"],
            min_p=wire["min_p"],
            seed=wire["seed"],
        )
        return BatchRow(prompt, wire["max_tokens"], draw, tag=job)

    def _next_group(self, free: int) -> list[BatchRow]:
        """Rows for the free slots: the one that came first and those nearest to its length, as many as fit one pass.
        All are padded to the longest, and padding costs what text does."""
        oldest = len(self._waiting[0][1].prompt)
        nearest = sorted(range(len(self._waiting)), key=lambda i: abs(len(self._waiting[i][1].prompt) - oldest))
        taken: list[int] = []
        width = 0
        for place in nearest[:free]:
            width = max(width, len(self._waiting[place][1].prompt))
            if taken and width * (len(taken) + 1) > _PREFILL_TOKENS:
                break
            taken.append(place)
        chosen = set(taken)
        rows = [row for place, (_, row) in enumerate(self._waiting) if place in chosen]
        self._waiting = [entry for place, entry in enumerate(self._waiting) if place not in chosen]
        return rows

    def _finished(self, row: BatchRow, job: _Job) -> Reply | None:
        ended = row.tokens[-1] in self._ends
        full = len(row.tokens) >= row.max_tokens
        if not (ended or full or job.stops):
            return None
        text: str = self._tokenizer.decode(row.tokens[:-1] if ended else row.tokens, skip_special_tokens=True)
        places = [place for stop in job.stops if (place := text.find(stop)) >= 0]
        if not (ended or full or places):
            return None
        if places:
            text = text[: min(places)]
        return self._reply(row, text, "stop" if ended or places else "length")

    def _reply(self, row: BatchRow, text: str, finish: str) -> Reply:
        body = {
            "object": "chat.completion",
            "model": row.tag.wire["model"],
            "system_fingerprint": f"transformers {self._precision}",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
            "usage": {
                "prompt_tokens": len(row.prompt),
                "completion_tokens": len(row.tokens),
                "total_tokens": len(row.prompt) + len(row.tokens),
            },
        }
        return Reply(200, orjson.dumps(body), {"content-type": "application/json"})

    def _fail(self, why: str) -> None:
        self._dead = why
        error = TeacherError(FailureClass.CRASHED, why)
        batch: Batch | None = self._batch
        jobs = [row.tag for row in batch.rows] if batch is not None else []
        jobs += [job for job, _ in self._waiting]
        while not self._inbox.empty():
            if (job := self._inbox.get()) is not None:
                jobs.append(job)
        for job in jobs:
            job.deliver(error)


class _Unsupported(ValueError):
    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def _refusal(message: str, code: str) -> Reply:
    body = {"error": {"message": message, "type": "invalid_request_error", "code": code}}
    return Reply(400, orjson.dumps(body), {"content-type": "application/json"})


def _in_words(response_format: Mapping[str, Any]) -> str:
    if response_format.get("type") != "json_schema":
        return "\n\nAnswer with one JSON value and nothing else."
    schema = orjson.dumps(response_format["json_schema"].get("schema", {})).decode()
    return f"\n\nAnswer with one JSON value that satisfies this JSON Schema, and nothing else:\n{schema}"
