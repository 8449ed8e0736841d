"""From the steps that a recipe or a chain file declares to filters with fresh state.

A chain loads the libraries of its own steps, not of all there are: filters are imported where a step names them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from distill.assets import find
from distill.errors import InputError
from distill.filters.base import Filter, naming
from distill.filters.chain import Chain
from distill.filters.near.survivors import declared
from distill.recipe import (
    DecontaminateStep,
    DiversityStep,
    EvalSet,
    FilterStep,
    MinHashStep,
    PiiStep,
    VerdictConfig,
)

if TYPE_CHECKING:
    from distill.filters.decontamination.doubts import Opinion
    from distill.filters.decontamination.meaning import Late

__all__ = ["FilterContext", "build_chain", "choice_of", "names_of"]

_FILTERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "exact": ("near.exact", "ExactFilter", ("seeds", "folder")),
    "minhash": ("near.minhash", "MinHashFilter", ("seeds", "folder")),
    "semantic": ("semantic.semantic", "SemanticFilter", ("seeds", "folder", "note")),
    "schema": ("quality.schema", "SchemaFilter", ("folder",)),
    "length": ("quality.length", "LengthFilter", ("folder",)),
    "refusal": ("quality.refusal", "RefusalFilter", ()),
    "truncation": ("quality.truncation", "TruncationFilter", ()),
    "regex": ("quality.regex", "RegexFilter", ()),
    "tags": ("quality.tags", "TagsFilter", ()),
    "code": ("quality.code", "CodeFilter", ()),
    "repetition": ("quality.repetition", "RepetitionFilter", ()),
    "language": ("quality.language", "LanguageFilter", ()),
    "script": ("quality.script", "ScriptFilter", ()),
    "leakage": ("quality.leakage", "LeakageFilter", ("folder",)),
    "copies": ("quality.copies", "CopiesFilter", ()),
    "agreement": ("quality.agreement", "AgreementFilter", ()),
    "score": ("quality.score", "ScoreFilter", ()),
    "pii": ("privacy.pii", "PiiFilter", ()),
    "custom": ("custom", "load_custom", ("folder",)),
}
"""Kind of a step -> where its filter stands, and what of the context it is made with."""


@dataclass(frozen=True, slots=True)
class FilterContext:
    """What steps may need beside their own section."""

    folder: Path = field(default_factory=Path.cwd)
    """Relative paths start here."""
    seeds: Sequence[tuple[str, str]] = ()
    """(id, text) of the examples that rows must not repeat."""
    eval_sets: Sequence[EvalSet] = ()
    """Sets for `decontaminate` steps that name none."""
    note: Callable[[str], None] = lambda text: None
    """Told what a step is at while it takes long."""
    opinion: Callable[[VerdictConfig], Opinion] | None = None
    """Whoever gives the verdicts that `decontaminate` steps ask for; without one their thresholds decide."""


def build_chain(steps: Sequence[FilterStep], context: FilterContext | None = None) -> Chain:
    """The filters that `steps` declare, with fresh state.

    Raises:
        InputError: a file that a step names is missing or wrong, or two steps have the same name.
    """
    context = context or FilterContext()
    declared(steps)
    for place, step in enumerate(steps):
        masked_later = any(isinstance(later, PiiStep) for later in steps[place + 1 :])
        if isinstance(step, MinHashStep) and step.index is not None and masked_later:
            raise InputError(
                "the index would hold texts as they are before a later step masks them",
                field="index",
                hint="put the pii step before this one",
            )
    return Chain([_build(step, name, context) for step, name in zip(steps, names_of(steps), strict=True)])


def choice_of(steps: Sequence[FilterStep]) -> tuple[Sequence[FilterStep], DiversityStep | None]:
    """The steps that judge rows one after the other, and the choice among what they keep, if the last step is one."""
    last = steps[-1] if steps else None
    return (steps[:-1], last) if isinstance(last, DiversityStep) else (steps, None)


def _build(step: FilterStep, name: str, context: FilterContext) -> Filter:
    with naming(name):
        return _made(step, name, context)


def _made(step: FilterStep, name: str, context: FilterContext) -> Filter:
    if isinstance(step, DiversityStep):
        raise InputError(
            "diversity chooses among what all other steps have kept",
            field="filters",
            hint="make it the last step, and the only one of its kind",
        )
    if isinstance(step, DecontaminateStep):
        return _decontaminate(step, name, context)
    module, maker, needs = _FILTERS[step.kind]
    make: Callable[..., Filter] = getattr(import_module(f"distill.filters.{module}"), maker)
    return make(step, name, **{need: getattr(context, need) for need in needs})


def _decontaminate(step: DecontaminateStep, name: str, context: FilterContext) -> Filter:
    from distill.filters.decontamination.decontaminate import DecontaminateFilter
    from distill.filters.decontamination.evalsets import load_items
    from distill.filters.sampling import read_rows

    items = load_items(step.against or context.eval_sets, context.folder)
    clean = None if step.clean is None else read_rows(find("data", step.clean, base=context.folder))
    opinion = None if step.verdict is None or context.opinion is None else context.opinion(step.verdict)
    return DecontaminateFilter(step, name, items=items, clean=clean, encoder=_encoder(step, context), opinion=opinion)


def _encoder(step: DecontaminateStep, context: FilterContext) -> Late | None:
    if step.embeddings == "none":
        return None
    from distill.filters.decontamination.meaning import Late
    from distill.filters.semantic.embedding import DEFAULT_MODEL, load_embedder, resolve_model

    model = DEFAULT_MODEL if step.embeddings == "auto" else step.embeddings
    try:
        resolve_model(model, context.folder, context.note)
    except InputError as error:
        if step.embeddings != "auto":
            raise
        context.note(f"decontaminate: without embeddings ({error})")
        return None
    return Late(lambda: load_embedder(model, folder=context.folder, note=context.note))


def names_of(steps: Sequence[FilterStep]) -> list[str]:
    """One name a step: its own, else its kind, numbered from the second of a kind on.

    Raises:
        InputError: two steps have the same name.
    """
    names: list[str] = [step.name for step in steps if step.name is not None]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two steps have the name {twice}", field="filters")
    taken, result = set(names), list[str]()
    for step in steps:
        name, number = step.name or step.kind, 1
        while step.name is None and name in taken:
            number += 1
            name = f"{step.kind}_{number}"
        taken.add(name)
        result.append(name)
    return result
