"""Why an answer is wrong. One class for every wrong item, the first of these that holds:

    unsafe         the rules of `unsafe.py` find it so; an answer that the metrics find right has this class too
    no_answer      the request failed, nothing came
    empty          no text
    wrong_refusal  it declines, or the provider's content filter stepped in, where an answer is due
    missed_refusal it answers what should be declined (`"refuse": true`)
    truncated      cut at the limit of its length
    wrong_format   JSON is due and it is none, or has text around it; text is due and the right one, or a label, stands
                   among other words
    omission       a member or an element that is due is missing
    hallucination  a value that cannot be: outside the schema's `enum`; outside the values that the answers of the
                   holdout take, where these are a closed set; not in the question, where the right value stands in it
    wrong_value    the right form, another value

What is due is said by the JSON Schema where there is one, else by the right answer. A set of values counts as closed
where the answers of the holdout use each of them twice on the mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from distill.evaluate.generation import Prediction
from distill.evaluate.holdout import Item
from distill.evaluate.metrics.base import parsed
from distill.evaluate.metrics.containing import stands_in
from distill.evaluate.saved import FAILURES
from distill.filters.quality.refusal import find_refusal
from distill.io import canonical, loads
from distill.methods.validation import Validator

__all__ = ["CLASSES", "Class", "Failure", "Rules"]

Class = Literal[
    "unsafe",
    "no_answer",
    "empty",
    "wrong_refusal",
    "missed_refusal",
    "truncated",
    "wrong_format",
    "omission",
    "hallucination",
    "wrong_value",
]
CLASSES: tuple[Class, ...] = get_args(Class)

_REFUSED = ("refusal", "refused", "filtered")
_MOST_VALUES = 100
_RIGHT = 0.5
_BY_SCHEMA: Mapping[str, Class] = {
    "required": "omission",
    "minItems": "omission",
    "minProperties": "omission",
    "enum": "hallucination",
    "const": "hallucination",
}
_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A class, and what exactly was found."""

    kind: Class
    why: str


class Rules:
    """The rules for one holdout.

    Args:
        items: all of its items: their answers say which values are closed sets.
        schema: what a valid answer satisfies.
    """

    def __init__(self, items: Sequence[Item], schema: Validator | None = None) -> None:
        self._schema = schema
        self._closed = _closed_sets(items)

    def judge(
        self, item: Item, prediction: Prediction, right: float | None, unsafe: str | None = None
    ) -> Failure | None:
        """Why `prediction` is wrong; None where it is right.

        Args:
            right: how right the deciding metric finds it; None where that does not count the item.
            unsafe: why it is unsafe; None where it is not.
        """
        if unsafe is not None:
            return Failure("unsafe", unsafe)
        if right is None:
            missed = item.refuse and prediction.finish not in _REFUSED and find_refusal(prediction.text) is None
            return self.why(item, prediction) if missed else None
        return None if right >= _RIGHT else self.why(item, prediction)

    def why(self, item: Item, prediction: Prediction) -> Failure:
        """Why `prediction`, which is wrong, is wrong."""
        if prediction.finish in _REFUSED and not item.refuse:
            return Failure("wrong_refusal", prediction.finish)
        if prediction.finish in FAILURES and prediction.finish != "empty":
            return Failure("no_answer", prediction.finish)
        text = prediction.text.strip()
        if not text:
            return Failure("empty", "no text")
        declined = find_refusal(text)
        if declined is not None and not item.refuse:
            return Failure("wrong_refusal", declined[1])
        if declined is None and item.refuse:
            return Failure("missed_refusal", "answers what should be declined")
        if prediction.finish == "length":
            return Failure("truncated", f"cut after {prediction.tokens} tokens")
        due = parsed(item.answer)
        if self._schema is not None or isinstance(due, (dict, list)):
            return self._structure(item, due, text)
        return self._text(item, text)

    def _structure(self, item: Item, due: Any, text: str) -> Failure:
        try:
            found: Any = loads(text)
        except ValueError:
            return Failure("wrong_format", "text around the JSON" if _holds_json(text) else "not JSON")
        if self._schema is not None and (broken := self._broken(found)) is not None:
            return broken
        if due is None:
            return Failure("wrong_value", "satisfies the schema")
        wanted, given = list(_leaves(due)), list(_leaves(found))
        asked, told = {path for path, _ in wanted}, {path for path, _ in given}
        short = sorted(path for path, _ in _left(wanted, given) if _more(path, wanted, given))
        missing = sorted(asked - told) + short
        if missing:
            return Failure("omission", f"{_name(missing[0])} is missing")
        if unknown := sorted(told - asked):
            return Failure("wrong_format", f"{_name(unknown[0])} was not asked for")
        wrong = _left(given, wanted)
        for path, value in wrong:
            right = [each for at, each in wanted if at == path]
            if invented := self._invented(path, value, right, item.question):
                return Failure("hallucination", f"{_name(path)}: {invented}")
        if wrong:
            path, value = wrong[0]
            return Failure("wrong_value", f"{_name(path)}: {_short(value)}")
        return Failure("wrong_value", "the same members, put together otherwise")

    def _broken(self, found: Any) -> Failure | None:
        """What the schema says, the class that stands first in the module's list before the others."""
        assert self._schema is not None  # noqa: S101 - the caller has looked
        problems: list[Any] = []
        stack: list[Any] = list(self._schema.iter_errors(found))
        while stack:
            problem = stack.pop()
            problems.append(problem)
            stack.extend(problem.context or ())
        rest: Class = "wrong_format"
        said = [Failure(_BY_SCHEMA.get(str(p.validator), rest), f"{p.json_path}: {p.message[:200]}") for p in problems]
        return min(said, key=lambda failure: CLASSES.index(failure.kind), default=None)

    def _text(self, item: Item, text: str) -> Failure:
        right, labels = item.answer.strip(), self._closed.get(())
        if text in (labels or ()):
            return Failure("wrong_value", _short(text))
        among = sorted(label for label in labels or (right,) if stands_in(label, text))
        if among:
            return Failure("wrong_format", f"{_short(among[0])} stands in it, not alone")
        if invented := self._invented((), text, [right], item.question):
            return Failure("hallucination", invented)
        return Failure("wrong_value", _short(text))

    def _invented(self, path: _Path, value: Any, right: Sequence[Any], question: str) -> str | None:
        """Why `value` cannot be, or None where it is only another one."""
        allowed = self._closed.get(path)
        if allowed is not None:
            return None if _key(value) in allowed else f"{_short(value)} is none of the {len(allowed)} values"
        if not isinstance(value, str):
            return None
        taken = [each for each in right if isinstance(each, str) and stands_in(each, question)]
        return f"{_short(value)} is not in the question" if taken and not stands_in(value, question) else None


def _closed_sets(items: Sequence[Item]) -> dict[_Path, frozenset[str]]:
    """Where answers draw from few values: place in the answer -> values. The empty place is the whole text."""
    seen: dict[_Path, Counter[str]] = {}
    for item in items:
        if not item.has_answer:
            continue
        due = parsed(item.answer)
        leaves = _leaves(due) if isinstance(due, (dict, list)) else [((), item.answer.strip())]
        for path, value in leaves:
            seen.setdefault(path, Counter())[_key(value)] += 1
    return {
        path: frozenset(values)
        for path, values in seen.items()
        if len(values) <= _MOST_VALUES and values.total() >= 2 * len(values)
    }


def _leaves(value: Any, path: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    """Every scalar with the names that lead to it. The elements of a list stand at one place; their order is lost."""
    if isinstance(value, dict):
        for name, inner in cast("dict[str, Any]", value).items():
            yield from _leaves(inner, (*path, name))
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from _leaves(inner, (*path, "[]"))
    else:
        yield path, value


def _left(some: Sequence[tuple[_Path, Any]], other: Sequence[tuple[_Path, Any]]) -> list[tuple[_Path, Any]]:
    """What stands in `some` more often than in `other`."""
    counts = Counter((path, _key(value)) for path, value in other)
    found: list[tuple[_Path, Any]] = []
    for path, value in some:
        key = (path, _key(value))
        counts[key] -= 1
        if counts[key] < 0:
            found.append((path, value))
    return found


def _more(path: _Path, some: Sequence[tuple[_Path, Any]], other: Sequence[tuple[_Path, Any]]) -> bool:
    """Whether a list at `path` has more elements in `some`."""
    return "[]" in path and sum(p == path for p, _ in some) > sum(p == path for p, _ in other)


def _key(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value).decode()


def _name(path: _Path) -> str:
    return ".".join(path).replace(".[]", "[]") or "the answer"


def _short(value: Any) -> str:
    text = _key(value)
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


def _holds_json(text: str) -> bool:
    """Whether a JSON object or list stands somewhere in `text`."""
    for opening, closing in (("{", "}"), ("[", "]")):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end and isinstance(parsed(text[start : end + 1]), (dict, list)):
            return True
    return False
