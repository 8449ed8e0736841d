"""The table of metrics: name, options, what builds it. A new metric is one line here and one class."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.evaluate.metrics.base import Metric
from distill.evaluate.metrics.classes import MacroF1
from distill.evaluate.metrics.containing import Contains
from distill.evaluate.metrics.fields import PerField
from distill.evaluate.metrics.glossary import Glossary, read_glossary
from distill.evaluate.metrics.judges import Judge, JudgePairwise
from distill.evaluate.metrics.numeric import NUMERIC_RULES, Numeric
from distill.evaluate.metrics.overlap import ChrF, RougeL
from distill.evaluate.metrics.passes import PassAtK
from distill.evaluate.metrics.refusals import Refusal
from distill.evaluate.metrics.similarity import EmbeddingSimilarity
from distill.evaluate.metrics.spans import SpanF1
from distill.evaluate.metrics.values import Accuracy, ExactMatch, JsonValid
from distill.filters.semantic.embedding import DEFAULT_MODEL
from distill.io import loads
from distill.methods.validation import compile_schema

__all__ = ["NAMES", "parse_metric", "read_schema"]


@dataclass(frozen=True, slots=True)
class _Given:
    """What the user wrote, and where files are found."""

    name: str
    options: Mapping[str, str]
    folder: Path
    schema: Path | None
    allow_code: bool

    def text(self, key: str) -> str | None:
        return self.options.get(key)

    def one_of(self, key: str, *values: str) -> str | None:
        value = self.options.get(key)
        if value is not None and value not in values:
            raise InputError(f"metric {self.name}: `{key}` can only be {' or '.join(values)}")
        return value

    def number(self, key: str, default: float, *, above: float) -> float:
        if key not in self.options:
            return default
        try:
            value = float(self.options[key])
        except ValueError:
            value = float("nan")
        if not above <= value < float("inf"):
            raise InputError(f"metric {self.name}: `{key}` should be a number, at least {above:g}")
        return value

    def whole(self, key: str, default: int) -> int:
        text = self.options.get(key, str(default))
        if not text.isdecimal() or not 1 <= int(text) <= 1000:
            raise InputError(f"metric {self.name}: `{key}` should be a whole number from 1 to 1000")
        return int(text)

    def file(self, key: str) -> Path:
        if key not in self.options:
            raise InputError(f"metric {self.name}: `{key}=FILE` is needed")
        return self.folder / Path(self.options[key]).expanduser()


def _json_valid(given: _Given) -> Metric:
    file = given.file("schema") if given.text("schema") else given.schema
    return JsonValid(given.name, read_schema(file) if file is not None else None)


def _refusal(given: _Given) -> Metric:
    field, value = given.text("field"), given.text("value")
    if (field is None) != (value is None):
        raise InputError(f"metric {given.name}: `field` and `value` go together")
    return Refusal(given.name, given.one_of("of", "due", "undue"), field, value)


def _pass_at_k(given: _Given) -> Metric:
    k = given.whole("k", 1)
    n = given.whole("n", k)
    if n < k:
        raise InputError(f"metric {given.name}: n programs are drawn, k of them looked at: n is at least {k}")
    seconds = given.number("timeout", 10.0, above=0.1)
    return PassAtK(given.name, n, k, seconds, given.allow_code)


_TABLE: dict[str, tuple[tuple[str, ...], Callable[[_Given], Metric]]] = {
    "json_valid": (("schema",), _json_valid),
    "exact_match": (("as",), lambda g: ExactMatch(g.name, g.one_of("as", "text") is not None)),
    "contains": ((), lambda g: Contains(g.name)),
    "accuracy": (("field",), lambda g: Accuracy(g.name, g.text("field"))),
    "macro_f1": (("field",), lambda g: MacroF1(g.name, g.text("field"))),
    "per_field": (("fields",), lambda g: PerField(g.name, tuple(filter(None, (g.text("fields") or "").split("+"))))),
    "span_f1": (
        ("field", "match", "mean"),
        lambda g: SpanF1(
            g.name,
            g.text("field"),
            g.one_of("match", "exact", "tokens") or "exact",
            g.one_of("mean", "spans", "items") or "spans",
        ),
    ),
    "numeric": (
        ("rule", "tolerance"),
        lambda g: Numeric(g.name, g.one_of("rule", *NUMERIC_RULES) or "last", g.number("tolerance", 0.0, above=0.0)),
    ),
    "rouge_l": ((), lambda g: RougeL(g.name)),
    "chrf": ((), lambda g: ChrF(g.name)),
    "embedding_similarity": (
        ("model",),
        lambda g: EmbeddingSimilarity(g.name, g.text("model") or DEFAULT_MODEL, g.folder),
    ),
    "refusal": (("of", "field", "value"), _refusal),
    "glossary": (("file",), lambda g: Glossary(g.name, read_glossary(g.file("file")))),
    "pass_at_k": (("k", "n", "timeout"), _pass_at_k),
    "judge": (("rubric", "teacher"), lambda g: Judge(g.name, g.text("teacher"), g.text("rubric"))),
    "judge_pairwise": (
        ("rubric", "teacher", "against"),
        lambda g: JudgePairwise(g.name, g.text("teacher"), g.text("rubric"), g.text("against")),
    ),
}
"""Name -> options, and what makes the metric of them."""

NAMES = tuple(_TABLE)


def parse_metric(
    text: str, *, schema: Path | None = None, folder: Path | None = None, allow_code: bool = False
) -> Metric:
    """The metric that `text` names, such as `macro_f1:field=intent`.

    Args:
        schema: JSON Schema for `json_valid` where the text names none.
        folder: where relative paths start.
        allow_code: the user has said that programs of a model may be run (`pass_at_k`).

    Raises:
        InputError: no such metric or option; names the nearest.
    """
    kind, _, rest = text.partition(":")
    if kind not in _TABLE:
        close = difflib.get_close_matches(kind, NAMES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"no such metric: {kind}", hint=f"{hint}there are: {', '.join(NAMES)}")
    options: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise InputError(f"metric {text}: {part!r} should read NAME=VALUE")
        options[key] = value
    known, build = _TABLE[kind]
    if extra := options.keys() - set(known):
        there = ", ".join(known) or "none"
        raise InputError(f"metric {text}: no option {sorted(extra)[0]!r}", hint=f"there is: {there}")
    return build(_Given(text, options, folder or Path(), schema, allow_code))


def read_schema(file: Path) -> Any:
    """The JSON Schema in `file`, ready to validate.

    Raises:
        InputError: it cannot be read, or is no schema.
    """
    try:
        return compile_schema(loads(file.read_bytes()), str(file))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=file) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", path=file) from None
