"""Made-up answers: English sentences, and JSON values that satisfy a schema. For the `simulated` provider.

Both are pure functions of a seed. The sentences are plain and varied enough that filters treat them as real rows:
two seeds practically never give near-duplicates, two equal seeds give the same text. The values cover the common
part of JSON Schema: `type`, `enum`, `const`, `properties`, `required`, `items`, `prefixItems`, `minItems`, length and
number bounds, `anyOf`/`oneOf`/`allOf`, local `$ref`, a few formats. `pattern`, `not` and conditionals are not tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

__all__ = ["Dice", "sentences", "value_for"]

# fmt: off
_OPENERS = (
    "Yesterday", "This morning", "Last week", "Since Monday", "Just now", "Over the weekend", "A month ago", "Tonight",
    "Twice this year", "After lunch", "During the trip", "For three days", "Before closing time", "Early today",
    "On the way home", "Right after the update",
)
_WHO = (
    "my brother", "the clerk", "our neighbour", "a courier", "the manager", "my daughter", "the new assistant",
    "somebody in the shop", "an old colleague", "the landlord", "the technician", "a friend of mine", "the whole team",
    "the driver", "her teacher", "the night guard", "a quiet customer", "the gardener", "my accountant", "their lawyer",
)
_DID = (
    "noticed", "reported", "lost", "repaired", "ordered", "refused", "cancelled", "compared", "forgot", "measured",
    "returned", "photographed", "explained", "borrowed", "questioned", "delivered", "renewed", "counted", "signed",
    "postponed", "tested", "replaced", "described", "checked",
)
_WHICH = (
    "broken", "second", "expensive", "missing", "green", "outdated", "unusual", "heavy", "yearly", "wrong", "spare",
    "silent", "duplicate", "foreign", "handwritten", "temporary", "narrow", "promised", "wooden", "late",
)
_WHAT = (
    "invoice", "bicycle", "password", "transfer", "kettle", "contract", "ticket", "receipt", "window", "schedule",
    "account", "parcel", "recipe", "garden plan", "insurance form", "keyboard", "deposit", "map", "certificate",
    "repair bill", "lamp", "statement", "charger", "umbrella", "travel card", "phone line", "spreadsheet", "violin",
)
_WHERE = (
    "at the station", "near the harbour", "in the basement", "behind the library", "at the front desk", "on the bridge",
    "in the waiting room", "beside the bakery", "on the second floor", "at the airport", "in the archive",
    "across the street", "at the market", "in the small office", "under the stairs", "at the border",
)
_BECAUSE = (
    "because the label was unreadable", "although nobody had asked", "so the fee was charged again",
    "and the answer came within minutes", "while the queue kept growing", "which surprised everyone",
    "before the deadline had passed", "and it worked on the first try", "but the number did not match",
    "so we agreed on a smaller amount", "and I would like it explained", "since the office was closed",
    "which is why the date matters", "and the system showed an error", "although the price had doubled",
    "until the rain finally stopped", "because two names were swapped", "and nobody signed for it",
)
# fmt: on


class Dice:
    """A stream of small numbers drawn from one 64-bit seed (splitmix64). Many times cheaper to start than
    `random.Random`, and the same on every machine and Python."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & 0xFFFFFFFFFFFFFFFF

    def bits(self) -> int:
        """The next 64 bits."""
        self._state = state = (self._state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return state ^ (state >> 31)

    def below(self, bound: int) -> int:
        """A number from 0 to `bound` - 1."""
        return self.bits() % bound

    def share(self) -> float:
        """A number from 0 up to, not including, 1."""
        return (self.bits() >> 11) / 9007199254740992.0


def sentences(dice: Dice, words: int = 48) -> str:
    """Two sentences; one when they could be more than `words` words, and that one cut when it is."""
    made: list[str] = []
    for _ in range(2 if words >= 48 else 1):
        bits = dice.bits()  # one draw holds all the choices of a sentence
        made.append(
            f"{_OPENERS[bits & 15]} {_WHO[(bits >> 4 & 255) % 20]} {_DID[(bits >> 12 & 255) % 24]} the "
            f"{_WHICH[(bits >> 20 & 255) % 20]} {_WHAT[(bits >> 28 & 255) % 28]} {_WHERE[bits >> 36 & 15]} "
            f"{_BECAUSE[(bits >> 40 & 255) % 18]} (case {1000 + (bits >> 48) % 9000})."
        )
    text = " ".join(made)
    return text if words >= 24 else " ".join(text.split()[: max(1, words)])


def value_for(schema: Any, dice: Dice) -> Any:
    """A JSON value that satisfies `schema`."""
    return _value(schema, dice, schema, 0)


def _value(schema: Any, dice: Dice, root: Any, depth: int) -> Any:
    if not isinstance(schema, Mapping):
        return None if schema is False else _text(dice, {})
    node = _resolved(cast("Mapping[str, Any]", schema), root)
    if "const" in node:
        return node["const"]
    if node.get("enum"):
        return node["enum"][dice.below(len(node["enum"]))]
    for key in ("anyOf", "oneOf"):
        if node.get(key):
            options: list[Any] = node[key]
            # Deep inside a recursive schema the last option is taken: by custom the end of the recursion.
            option = options[-1] if depth > 4 else options[dice.below(len(options))]
            rest = {name: value for name, value in node.items() if name != key}
            return _value(_merged(rest, option, root), dice, root, depth + 1)
    kind: Any = node.get("type")
    if isinstance(kind, list):
        kinds = cast("list[str]", kind)
        kind = next((name for name in kinds if name != "null"), "null") if depth <= 4 else kinds[-1]
    if kind is None:
        kind = "object" if "properties" in node else "array" if "items" in node or "prefixItems" in node else "string"
    match kind:
        case "object":
            return _object(node, dice, root, depth)
        case "array":
            return _array(node, dice, root, depth)
        case "integer":
            return _number(node, dice, whole=True)
        case "number":
            return _number(node, dice, whole=False)
        case "boolean":
            return dice.bits() & 1 == 1
        case "null":
            return None
        case _:
            return _text(dice, node)


def _object(node: Mapping[str, Any], dice: Dice, root: Any, depth: int) -> dict[str, Any]:
    properties: Mapping[str, Any] = node.get("properties") or {}
    required: Sequence[str] = node.get("required") or ()
    # Optional members too, until the schema turns out to be recursive.
    names = [*properties, *(name for name in required if name not in properties)]
    if depth > 4:
        names = [name for name in names if name in required]
    more = node.get("additionalProperties", {})
    made = {name: _value(properties.get(name, more), dice, root, depth + 1) for name in names}
    while len(made) < node.get("minProperties", 0):
        made[f"key_{len(made) + 1}"] = _value(more, dice, root, depth + 1)
    return made


def _array(node: Mapping[str, Any], dice: Dice, root: Any, depth: int) -> list[Any]:
    first: Sequence[Any] = node.get("prefixItems") or ()
    items: Any = node.get("items", {})
    least = int(node.get("minItems", 0 if depth > 4 or items is False else 1))
    most = int(node.get("maxItems", len(first) if items is False else max(least, 3)))
    length = least + (dice.below(most - least + 1) if most > least and depth <= 4 and "minItems" not in node else 0)
    made: list[Any] = [_value(part, dice, root, depth + 1) for part in first]
    attempts = 0
    while len(made) < length:
        item = _value(items, dice, root, depth + 1)
        attempts += 1
        if node.get("uniqueItems") and item in made and attempts < 200:
            continue
        made.append(item)
    return made


def _number(node: Mapping[str, Any], dice: Dice, *, whole: bool) -> float | int:
    low, high = node.get("minimum"), node.get("maximum")
    step = node.get("multipleOf") or (1 if whole else 0.01)
    if low is None and "exclusiveMinimum" in node:
        low = node["exclusiveMinimum"] + step
    if high is None and "exclusiveMaximum" in node:
        high = node["exclusiveMaximum"] - step
    if low is None:
        low = min(1, high) if high is not None else 1
    if high is None:
        high = max(low, 100)
    first, last = -(-low // step), high // step
    value = (first + dice.below(int(last - first) + 1)) * step if last >= first else low
    return int(value) if whole else min(max(round(float(value), 6), low), high)


_FORMATS = {
    "date": "2026-03-14",
    "date-time": "2026-03-14T09:26:53Z",
    "time": "09:26:53Z",
    "email": "someone@example.org",
    "uri": "https://example.org/simulated",
    "uuid": "3f2b8c1e-5d7a-4c3b-9e1f-0a2b4c6d8e0f",
    "ipv4": "192.0.2.1",
    "hostname": "example.org",
}


def _text(dice: Dice, node: Mapping[str, Any]) -> str:
    form = node.get("format")
    if isinstance(form, str) and form in _FORMATS:
        return _FORMATS[form]
    text = sentences(dice, 20)
    while len(text) < node.get("minLength", 0):
        text += " " + sentences(dice, 20)
    most = node.get("maxLength")
    return text if most is None or len(text) <= most else text[:most]


def _resolved(node: Mapping[str, Any], root: Any) -> Mapping[str, Any]:
    for _ in range(20):
        reference = node.get("$ref")
        if isinstance(reference, str):
            rest = {key: value for key, value in node.items() if key != "$ref"}
            node = _merged(rest, _pointed(reference, root), root)
            continue
        parts = node.get("allOf")
        if not parts:
            break
        node = {key: value for key, value in node.items() if key != "allOf"}
        for part in parts:
            node = _merged(node, part, root)
    return node


def _pointed(reference: str, root: Any) -> Any:
    here = root
    for key in reference.lstrip("#").strip("/").split("/"):
        key = key.replace("~1", "/").replace("~0", "~")
        if key and isinstance(here, Mapping):
            here = cast("Mapping[str, Any]", here).get(key, {})
    return here


def _merged(node: Mapping[str, Any], other: Any, root: Any) -> Mapping[str, Any]:
    if not isinstance(other, Mapping):
        return node
    more = cast("Mapping[str, Any]", other)
    if "$ref" in more and "$ref" not in node:
        more = _resolved(more, root)
    both = {**node, **more}
    if "properties" in node and "properties" in more:
        both["properties"] = {**node["properties"], **more["properties"]}
    if "required" in node and "required" in more:
        both["required"] = list(dict.fromkeys([*node["required"], *more["required"]]))
    return both
