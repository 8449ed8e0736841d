"""Filters of other packages, through an entry point that is really installed."""

from __future__ import annotations

import sys

import pyarrow as pa
import pytest

from distill.errors import InputError
from distill.filters import build_chain, filter_file
from distill.recipe import FilterStep, parse

MODULE = """
import numpy as np
from distill.filters import Verdicts
from distill.filters.text import texts

class Polite:
    def __init__(self, *, name, fields, folder, word="please"):
        self.name, self.fields, self.word = name, fields, word

    def judge(self, rows):
        verdicts = Verdicts.kept(rows.num_rows)
        for row, text in enumerate(texts(rows, self.fields)):
            if self.word not in text.lower():
                verdicts.drop(row, "impolite", f"no {self.word}")
        return verdicts

class Short(Polite):
    def judge(self, rows):
        return Verdicts.kept(rows.num_rows - 1)

class Odd(Polite):
    def judge(self, rows):
        return [True] * rows.num_rows

class NoFilter:
    def __init__(self, **options): pass
"""
POINTS = """[distill.filters]
polite = {m}:Polite
short = {m}:Short
odd = {m}:Odd
nothing = {m}:NoFilter
gone = {m}:Gone
away = {m}_away:Polite
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package as pip leaves it: a module, and a dist-info folder with its entry points."""
    site = tmp_path / "site"
    info = site / "polite_filters-1.0.dist-info"
    info.mkdir(parents=True)
    module = f"polite_filters_{abs(hash(str(tmp_path)))}"
    (site / f"{module}.py").write_text(MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: polite-filters\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS.format(m=module))
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop(module, None)


def steps(**step):
    return parse(tuple[FilterStep, ...], [{"kind": "custom", **step}])


def test_a_filter_of_another_package_judges(package, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "A tea, please."}\n{"text": "Tea!"}\n')
    report = filter_file(tmp_path / "in.jsonl", steps(filter="polite", name="manners"), tmp_path / "out")
    assert report.rejected == {"manners": {"impolite": 1}}
    chain = build_chain(steps(filter="polite", options={"word": "tea"}))
    assert chain.names == ("custom",)
    assert chain.judge(pa.table({"text": ["Tea!"]})).keep.all()


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"filter": "pollite"}, "no filter pollite; did you mean polite"),
        ({"filter": "polite", "options": {"wrod": "x"}}, "does not take its options"),
        ({"filter": "gone"}, "cannot be loaded"),
        ({"filter": "away"}, "cannot be loaded"),
        ({"filter": "nothing"}, "has no method judge"),
    ],
)
def test_a_filter_that_cannot_be_used_is_named(package, step, why):
    with pytest.raises(InputError, match=why):
        build_chain(steps(**step))


@pytest.mark.parametrize(("name", "why"), [("short", "1 to 1 verdicts for 2 rows"), ("odd", "gave list, not Verdicts")])
def test_verdicts_that_do_not_fit_the_rows_are_refused(package, name, why):
    with pytest.raises(InputError, match=why):
        build_chain(steps(filter=name)).judge(pa.table({"text": ["a", "b"]}))


@pytest.mark.parametrize("step", [{"kind": "os:system"}, {"kind": "custom", "filter": "os:system"}])
def test_no_file_names_code(step):
    with pytest.raises(InputError, match=r"no such kind|no filter os:system"):
        build_chain(parse(tuple[FilterStep, ...], [step]))
