"""Reading an OpenAI-shaped answer: text, reasoning, finish and usage, from every dialect in use.

The envelope is strict JSON: NaN, infinities and bytes that are not UTF-8 make a body MALFORMED (`failures`). Three
things are decided here:

- A lone surrogate escape in the text: the answer came and was paid, but no file could hold it. UNREADABLE.
- A key that stands twice in the envelope: the last one counts, as in every SDK. (Inside the text it is another
  matter: structured output is parsed by `distill.methods`, which refuses it.)
- U+2028, U+0085 and NUL are ordinary characters.

Usage that a server does not report is zero.
"""

from __future__ import annotations

import json
import re
from typing import Any, cast

import orjson

from distill.errors import AnswerError, FailureClass
from distill.teachers.base import Finish, Reading, Usage
from distill.teachers.logprobs import logprobs_of_chat

__all__ = ["checked", "envelope", "is_chat", "read_chat", "split_thinking", "tokens", "usage_of_chat"]

_FINISH: dict[str, Finish] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "abort": "length",
    "content_filter": "filtered",
    "safety": "filtered",
    "refusal": "refusal",
}
"""Finish reasons that are not a normal end. Every other one is."""

_THINK = re.compile(r"\s*<think>(.*?)(?:</think>\s*|\Z)", re.DOTALL)
_LATER = re.compile(r"<think>(.*?)</think>\s*", re.DOTALL)
_LATER_LINE = re.compile(rf"^[ \t]*{_LATER.pattern}", re.DOTALL | re.MULTILINE)


def envelope(body: bytes) -> Any:
    """The body as strict JSON; lone surrogate escapes are let through, to be found in the texts that matter.

    Raises:
        ValueError: it is not JSON, or holds NaN or an infinity.
    """
    try:
        return orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        if b"\\ud" not in body and b"\\uD" not in body:
            raise
        try:
            return json.loads(body.decode("utf-8-sig"), parse_constant=_refuse)
        except RecursionError:
            raise error from None


def is_chat(body: Any) -> bool:
    """Whether a parsed body has the shape of a chat completion: a list of choices, the first with a message."""
    if not isinstance(body, dict):
        return False
    choices = cast("dict[str, Any]", body).get("choices")
    if not isinstance(choices, list):
        return False
    if not choices:
        return True
    first = cast("list[Any]", choices)[0]
    if not isinstance(first, dict):
        return False
    choice = cast("dict[str, Any]", first)
    if choice.get("error") or choice.get("finish_reason") == "error":
        return False
    return isinstance(choice.get("message"), dict) or isinstance(choice.get("text"), str)


def read_chat(body: bytes, model: str) -> Reading:
    """Read the body of a chat completion. `model` is the name to report when the body gives none.

    Raises:
        AnswerError: UNREADABLE (a lone surrogate in the text), MALFORMED (not a chat completion at all).
    """
    try:
        whole = envelope(body)
    except ValueError as error:
        raise AnswerError(FailureClass.MALFORMED, f"the body is not JSON: {error}") from None
    if not is_chat(whole):
        raise AnswerError(FailureClass.MALFORMED, "the body is not a chat completion")
    named = whole.get("model")
    model = named if isinstance(named, str) and named else model
    usage = usage_of_chat(whole.get("usage"))
    if not whole["choices"]:
        return checked(Reading("", None, "empty", usage, model))
    choice: dict[str, Any] = whole["choices"][0]
    message: dict[str, Any] = choice.get("message") or {"content": choice.get("text")}

    thoughts: list[str] = []
    text = _content(message.get("content"), thoughts)
    refusal = message.get("refusal")
    for member in ("reasoning_content", "reasoning", "thinking"):
        value = message.get(member)
        if isinstance(value, str) and value.strip():
            thoughts.append(value)
            break
    else:
        thoughts.extend(_details(message.get("reasoning_details")))
    text, thinking, cut = split_thinking(text)
    if thinking:
        thoughts.append(thinking)

    reason = choice.get("finish_reason")
    finish = _FINISH.get(reason.lower(), "stop") if isinstance(reason, str) else "stop"
    if isinstance(refusal, str) and refusal:
        finish, text = "refusal", text or refusal
    elif cut and finish == "stop":
        finish = "length"
    elif finish == "stop" and not text.strip():
        finish = "empty"
    reasoning = "\n".join(part.strip("\n") for part in thoughts) or None
    return checked(Reading(text, reasoning, finish, usage, model, logprobs_of_chat(choice, text)))


def split_thinking(text: str) -> tuple[str, str, bool]:
    """(answer, thinking, whether the thinking never ended) of a text with `<think>` blocks in it.

    Some templates write the opening tag into the prompt; then only the closing one stands in the text. A model that
    begins with a block may think again anywhere; elsewhere a block begins a line, and tags inside one are a text about
    tags.
    """
    if "think>" not in text:
        return text, "", False
    match = _THINK.match(text)
    if match is not None:
        answer, thoughts, cut = text[match.end() :], [match.group(1)], "</think>" not in match.group()
    else:
        before, tag, after = text.partition("</think>")
        led = tag and "<think>" not in before
        answer, thoughts, cut = (after.lstrip(), [before], False) if led else (text, [], False)
    if "<think>" in answer:
        later = _LATER if thoughts else _LATER_LINE
        thoughts += later.findall(answer)
        answer = later.sub("", answer)
    return answer, "\n".join(thoughts), cut


def usage_of_chat(value: Any) -> Usage:
    """Tokens as OpenAI and its many relatives report them."""
    if not isinstance(value, dict):
        return Usage()
    members = cast("dict[str, Any]", value)
    given, made = tokens(members, "prompt_tokens"), tokens(members, "completion_tokens")
    details, made_of = members.get("prompt_tokens_details"), members.get("completion_tokens_details")
    cached = tokens(details, "cached_tokens") or tokens(members, "prompt_cache_hit_tokens")
    written = tokens(details, "cache_write_tokens") or tokens(members, "cache_creation_input_tokens")
    thought = tokens(made_of, "reasoning_tokens")
    # Two providers leave the reasoning out of completion_tokens, and count it in the total.
    if thought and tokens(members, "total_tokens") == given + made + thought:
        made += thought
    return Usage(given, made, min(cached, given), min(written, given - min(cached, given)), min(thought, made))


def tokens(members: Any, name: str) -> int:
    """A count in a usage object; zero when it is missing or no count."""
    value = cast("dict[str, Any]", members).get(name) if isinstance(members, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        return 0
    return int(value)


def checked(reading: Reading) -> Reading:
    """The reading itself, when its texts can be written to a file.

    Raises:
        AnswerError: UNREADABLE; `raw` holds the text with the surrogates written as escapes.
    """
    for text in (reading.text, reading.reasoning or "", reading.model):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raw = reading.text.encode("utf-8", "backslashreplace").decode()
            problem = f"the answer holds a lone surrogate ({text[error.start]!a}, character {error.start})"
            raise AnswerError(FailureClass.UNREADABLE, problem, raw=raw) from None
    return reading


def _content(content: Any, thoughts: list[str]) -> str:
    """The text of `content`, which is a string or a list of parts; thinking parts go to `thoughts`."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    said: list[str] = []
    for part in cast("list[Any]", content):
        if isinstance(part, str):
            said.append(part)
        elif isinstance(part, dict):
            members = cast("dict[str, Any]", part)
            thinking = members.get("thinking", members.get("reasoning"))
            if thinking is not None:
                thoughts.append(_content(thinking, thoughts))
            else:
                text = members.get("text", members.get("refusal"))
                said.append(text if isinstance(text, str) else "")
    return "".join(said)


def _details(details: Any) -> list[str]:
    """The readable parts of OpenRouter's `reasoning_details`; encrypted ones are none."""
    if not isinstance(details, list):
        return []
    parts: list[str] = []
    for item in cast("list[Any]", details):
        if isinstance(item, dict):
            members = cast("dict[str, Any]", item)
            text = members.get("text") or members.get("summary")
            if isinstance(text, str) and text.strip():
                parts.append(text)
    return parts


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
