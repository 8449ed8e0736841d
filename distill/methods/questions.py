"""The input step: the teacher writes the user turns, one or several in a call.

Several come as a JSON list of strings. Providers in strict mode take an object at the root of a schema and nothing
else, so they are asked for `{"messages": [...]}`; embedded models are asked for the bare list, which small models
keep to better. Both shapes are read from either, and so is a list of objects with one text each, or one in which
lists stand for the texts or around them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from distill.methods.asking import Lost, Voice, draw, draw_read, turns
from distill.methods.base import Ask, Prompt
from distill.methods.bill import Bill
from distill.methods.structured import Structure, Unstructured
from distill.planning import Slot
from distill.teachers import Answer

__all__ = ["Questions", "Written", "items_schema", "read_items"]


@dataclass(frozen=True, slots=True)
class Written:
    """User turns, at most as many as were asked for, and what they cost together."""

    texts: list[str]
    bill: Bill
    answer: Answer


class Questions:
    """The input step of a method."""

    def __init__(self, prompt: Prompt, voice: Voice, *, items: int = 1, bare_list: bool = False) -> None:
        self._prompt = prompt
        self._voice = voice
        self._items = items
        self._schema: Mapping[str, Any] | None = prompt.schema
        self._read: Callable[[str], list[str]] | None = None
        if items > 1 or prompt.schema is not None:
            self._read = _reader(Structure(prompt.schema, name="the schema of the input prompt"), items)
            self._schema = prompt.schema or items_schema(items, bare_list=bare_list)

    async def write(self, slot: Slot, ask: Ask) -> Written | Lost:
        """Have the user turns of one slot written."""
        user = self._prompt.render(slot, n=self._items)
        messages = turns(user, self._prompt.render_system(slot, n=self._items))
        if self._read is None:
            spoken = await draw(ask, self._voice, messages)
            if isinstance(spoken, Lost):
                return spoken
            return Written([_unquoted(spoken.answer.text)], Bill.of(spoken.paid), spoken.answer)
        read = await draw_read(ask, self._voice, messages, self._read, schema=self._schema)
        if isinstance(read, Lost):
            return read
        return Written(read.value, Bill.of(read.paid), read.answer)


def items_schema(n: int, *, bare_list: bool = False) -> dict[str, Any]:
    """JSON Schema of exactly `n` strings."""
    strings = {"type": "array", "items": {"type": "string"}, "minItems": n, "maxItems": n}
    if bare_list:
        return strings
    return {
        "type": "object",
        "properties": {"messages": strings},
        "required": ["messages"],
        "additionalProperties": False,
    }


def read_items(value: Any, most: int) -> list[str]:
    """The texts in a list, in an object that holds one list, or in an object or string alone; at most `most`.

    Raises:
        Unstructured: there is no such list, or nothing but blanks in it.
    """
    if isinstance(value, dict):
        members = list(cast("dict[str, Any]", value).values())
        lists = [cast("list[Any]", member) for member in members if isinstance(member, list)]
        value = lists[0] if len(lists) == 1 else members if not lists else None
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise Unstructured(f"a JSON list of {most} strings was expected")
    items = cast("list[Any]", value)
    while len(items) == 1 and isinstance(items[0], list):  # small models like to put the list into another
        items = cast("list[Any]", items[0])
    texts = [_text_of(item) for item in items]
    if any(text is None for text in texts):
        raise Unstructured(f"a JSON list of {most} strings was expected, and one item is not a string")
    there = [text for text in texts if text]
    if not there:
        raise Unstructured(f"a JSON list of {most} strings was expected, and there is no text in it")
    return there[:most]


def _reader(structure: Structure, most: int) -> Callable[[str], list[str]]:
    return lambda text: read_items(structure.parse(text).value, most)


def _text_of(item: Any) -> str | None:
    if isinstance(item, list):
        inner = cast("list[Any]", item)
        item = inner[0] if len(inner) == 1 else None
    if isinstance(item, dict):
        texts = [member for member in cast("dict[str, Any]", item).values() if isinstance(member, str)]
        item = texts[0] if len(texts) == 1 else None
    return item.strip() if isinstance(item, str) else None


def _unquoted(text: str) -> str:
    """Without the quotes that models put around a whole message."""
    text = text.strip()
    for opening, closing in ('""', "“”", "«»"):
        if len(text) > 2 and text[0] == opening and text[-1] == closing:
            inner = text[1:-1]
            if opening not in inner and closing not in inner:
                return inner.strip()
    return text
