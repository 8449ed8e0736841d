"""Rows whose answer lacks the tags it should have, such as `<think>…</think><answer>…</answer>`."""

from __future__ import annotations

import re

import pyarrow as pa

from distill.filters.base import Verdicts
from distill.filters.normalise import excerpt
from distill.filters.text import texts
from distill.recipe import TagsStep

__all__ = ["TagsFilter"]


class TagsFilter:
    """Drops a row where a tag is missing (`missing_tag`), is not closed (`open_tag`), stands more than once
    (`repeated_tag`), is empty (`empty_tag`), or stands in the wrong order or within another (`tag_order`)."""

    def __init__(self, step: TagsStep, name: str = "tags") -> None:
        self.name = name
        self._fields = step.fields or ("response",)
        self._tags = step.tags
        names = "|".join(map(re.escape, step.tags))
        self._mark = re.compile(rf"<(/?)({names})>")

    def judge(self, rows: pa.Table) -> Verdicts:
        verdicts = Verdicts.kept(rows.num_rows)
        for row, content in enumerate(texts(rows, self._fields)):
            problem = self._problem(content)
            if problem is not None:
                reason, tag = problem
                verdicts.drop(row, reason, f"<{tag}> in “{excerpt(content, 120)}”")
        return verdicts

    def _problem(self, content: str) -> tuple[str, str] | None:
        marks = list(self._mark.finditer(content))
        for tag in self._tags:
            opens = sum(mark[2] == tag and not mark[1] for mark in marks)
            closes = sum(mark[2] == tag and bool(mark[1]) for mark in marks)
            if not opens:
                return "missing_tag", tag
            if opens > 1 or closes > 1:
                return "repeated_tag", tag
            if not closes:
                return "open_tag", tag
        for place, tag in enumerate(self._tags):
            begin, end = marks[2 * place], marks[2 * place + 1]
            if (begin[1], begin[2]) != ("", tag) or (end[1], end[2]) != ("/", tag):
                return "tag_order", tag
            if not content[begin.end() : end.start()].strip():
                return "empty_tag", tag
        return None
