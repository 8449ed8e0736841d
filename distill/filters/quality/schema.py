"""Rows whose answer is not the JSON it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from jsonschema.exceptions import best_match  # pyright: ignore[reportUnknownVariableType]

from distill.assets import find
from distill.errors import InputError
from distill.filters.base import Verdicts
from distill.filters.normalise import excerpt
from distill.filters.text import texts
from distill.io import loads
from distill.methods.validation import Validator, compile_schema
from distill.recipe import SchemaStep

__all__ = ["SchemaFilter"]

_REMEMBERED = 10_000  # answers of a labelling task repeat: one is validated once


class SchemaFilter:
    """Drops a row whose assistant turn is not strict JSON (`not_json`) or breaks the schema (`breaks_schema`)."""

    def __init__(self, step: SchemaStep, name: str = "schema", *, folder: Path) -> None:
        self.name = name
        self._fields = step.fields or ("response",)
        self._validator = _validator(find("data", step.schema_file, base=folder))
        self._known: dict[str, tuple[str, str] | None] = {}

    def judge(self, rows: pa.Table) -> Verdicts:
        verdicts = Verdicts.kept(rows.num_rows)
        for row, content in enumerate(texts(rows, self._fields)):
            if content not in self._known:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[content] = self._problem(content)
            problem = self._known[content]
            if problem is not None:
                verdicts.drop(row, *problem)
        return verdicts

    def _problem(self, content: str) -> tuple[str, str] | None:
        try:
            value = loads(content)
        except (ValueError, RecursionError) as error:
            return "not_json", f"{excerpt(str(error), 80)} in “{excerpt(content)}”"
        error = cast(Any, best_match(cast(Any, self._validator.iter_errors(value))))
        if error is None:
            return None
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        return "breaks_schema", excerpt(f"{where.lstrip('.') or 'the whole'}: {error.message}", 240)


def _validator(path: Path) -> Validator:
    try:
        schema = loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from None
    except ValueError as error:
        raise InputError(f"not valid JSON: {error}", path=path) from None
    return compile_schema(schema, str(path))
