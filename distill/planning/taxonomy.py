"""The taxonomy, compiled: leaves with their shares, dimensions with their values, adversarial kinds.

Shares are exact fractions: the planner's sequence may not depend on how a machine rounds.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.io import check_text
from distill.io.yamlfile import read_yaml
from distill.planning.layout import KindSpec, SeedSpec, TaxonomyFile, TopicSpec, ValueSpec
from distill.planning.slot import Seed, Topic
from distill.recipe import parse, suggest
from distill.recipe.problems import Problem, report

__all__ = ["RESERVED", "Dimension", "Leaf", "Taxonomy", "Twist", "Value", "compile_taxonomy", "load_taxonomy"]

Path_ = tuple[str, ...]

RESERVED = frozenset(
    {"leaf", "slot", "seeds", "kind", "labels", "topic", "other", "twist", "describe", "dims", "loop"}
    | {"n", "input", "question", "a", "b", "answer"}
)
"""Names that mean something in every prompt, so no dimension may bear them."""

_KEYWORDS = frozenset(
    {"and", "or", "not", "in", "is", "if", "else", "elif", "for", "set", "self", "super"}
    | {"true", "false", "none", "True", "False", "None"}
)
_DEFAULT_SHARE = Fraction(1, 10)


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a dimension. `only` holds the paths under which alone it may come; empty: everywhere."""

    name: str
    weight: Fraction
    description: str = ""
    only: tuple[Path_, ...] = ()

    def allowed(self, leaf: Path_) -> bool:
        return not self.only or any(leaf[: len(path)] == path for path in self.only)


@dataclass(frozen=True, slots=True)
class Dimension:
    """A property that cuts across the tree."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf of the tree and its share of all leaves; the shares add up to 1."""

    topic: Topic
    share: Fraction

    @property
    def path(self) -> Path_:
        return self.topic.path


@dataclass(frozen=True, slots=True)
class Twist:
    """An adversarial kind and its share of the adversarial slots; the shares add up to 1."""

    name: str
    share: Fraction
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    pair: bool = False
    standalone: bool = False
    seeds: tuple[Seed, ...] = ()


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """What the rows are about."""

    name: str
    leaves: tuple[Leaf, ...]
    dimensions: tuple[Dimension, ...] = ()
    twists: tuple[Twist, ...] = ()
    share: Fraction = Fraction(0)
    """Share of adversarial slots; 0 without kinds."""
    topic_seeds: tuple[Seed, ...] = ()
    """Seeds of branches and leaves; `Seed.leaf` is the node they stand at, None for the root."""
    description: str = ""

    def seeds(self) -> Iterator[Seed]:
        """All seeds that stand in the taxonomy."""
        yield from self.topic_seeds
        for twist in self.twists:
            yield from twist.seeds

    def paths(self) -> set[Path_]:
        """Every node that has a name: branches, leaves, standalone kinds."""
        found = {leaf.path[:depth] for leaf in self.leaves for depth in range(1, len(leaf.path) + 1)}
        return found | {(twist.name,) for twist in self.twists if twist.standalone}


def load_taxonomy(path: Path) -> Taxonomy:
    """Read and check a taxonomy file.

    Raises:
        InputError: every problem found, one a line, with file, line, field and the nearest right name.
    """
    value, lines = read_yaml(path)
    if value is None:
        raise InputError("the file is empty", path=path)
    spec = parse(TaxonomyFile, value, path=path, lines=lines)
    taxonomy, problems = _compile(spec)
    if problems:
        raise report(problems, path=path, lines=lines)
    return taxonomy


def compile_taxonomy(value: Mapping[str, Any]) -> Taxonomy:
    """The taxonomy of a mapping laid out as the file is.

    Raises:
        InputError: every problem found, one a line.
    """
    taxonomy, problems = _compile(parse(TaxonomyFile, value))
    if problems:
        raise report(problems, path=None, lines={})
    return taxonomy


def _compile(spec: TaxonomyFile) -> tuple[Taxonomy, list[Problem]]:
    problems: list[Problem] = []
    tree = _Tree(problems)
    tree.grow(spec.topics, (), Fraction(1), {}, ("topics",))
    tree.plant(None, spec.seeds)
    twists = _twists(spec, tree, problems)
    taxonomy = Taxonomy(
        name=spec.name,
        description=spec.description,
        leaves=tuple(tree.leaves),
        dimensions=tuple(_dimensions(spec, problems)),
        twists=twists,
        share=_share(spec) if twists else Fraction(0),
        topic_seeds=tuple(tree.seeds),
    )
    if not problems:
        _check_constraints(taxonomy, problems)
    if spec.adversarial.share and not twists:
        problems.append((("adversarial", "share"), "names no kind: add one beside it, or leave it out"))
    return taxonomy, problems


class _Tree:
    """Collects leaves and seeds while it walks down."""

    def __init__(self, problems: list[Problem]) -> None:
        self.leaves: list[Leaf] = []
        self.seeds: list[Seed] = []
        self._problems = problems

    def grow(
        self,
        topics: Mapping[str, TopicSpec | None],
        above: Path_,
        share: Fraction,
        labels: Mapping[str, str],
        where: tuple[str, ...],
    ) -> None:
        nodes = {name: node or TopicSpec() for name, node in topics.items()}
        total = sum((exact(node.weight) for node in nodes.values()), Fraction(0))
        for name, node in nodes.items():
            here, path = (*where, name), (*above, name)
            _check_name(name, here, self._problems)
            own = {**labels, **node.labels}
            part = share * exact(node.weight) / total
            self.plant(path, node.seeds)
            if node.topics:
                self.grow(node.topics, path, part, own, (*here, "topics"))
            else:
                self.leaves.append(Leaf(Topic(path, node.description, own), part))

    def plant(self, path: Path_ | None, seeds: tuple[str | SeedSpec, ...]) -> None:
        self.seeds += _seeds("/".join(path or ("root",)), path, seeds)


def _seeds(name: str, leaf: Path_ | None, seeds: tuple[str | SeedSpec, ...]) -> list[Seed]:
    found: list[Seed] = []
    for number, seed in enumerate(seeds, start=1):
        text = seed if isinstance(seed, str) else seed.text
        data: dict[str, Any] = {} if isinstance(seed, str) else dict(seed.__pydantic_extra__)
        check_text(text)
        found.append(Seed(f"{name}/{number}", text, leaf, data))
    return found


def _dimensions(spec: TaxonomyFile, problems: list[Problem]) -> Iterator[Dimension]:
    for name, values in spec.dimensions.items():
        where = ("dimensions", name)
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in _KEYWORDS:
            problems.append((where, "is a variable in prompts: use letters, digits and `_`, a letter first"))
        if name in RESERVED:
            problems.append((where, "has a meaning of its own in prompts; choose another name"))
        if isinstance(values, tuple):
            for value in sorted({value for value in values if values.count(value) > 1}):
                problems.append((where, f"the value {value!r} stands twice"))
            values = dict.fromkeys(values, None)
        table = {value: given or ValueSpec() for value, given in values.items()}
        yield Dimension(
            name,
            tuple(
                Value(value, exact(given.weight), given.description, tuple(_path(text) for text in given.only))
                for value, given in table.items()
            ),
        )


def _twists(spec: TaxonomyFile, tree: _Tree, problems: list[Problem]) -> tuple[Twist, ...]:
    kinds = spec.adversarial.kinds()
    total = sum((exact(kind.weight) for kind in kinds.values()), Fraction(0))
    for name, kind in kinds.items():
        where = ("adversarial", name)
        _check_name(name, where, problems)
        if name == "standard":
            problems.append((where, "is what slots without a kind are called; choose another name"))
        if kind.standalone and any(leaf.path[0] == name for leaf in tree.leaves):
            problems.append((where, "is the name of a topic too; a standalone kind needs a name of its own"))
        if kind.standalone and kind.pair:
            problems.append(((*where, "pair"), "a standalone kind belongs to no topic, so it has no second one"))
        if kind.pair and len(tree.leaves) < 2:
            problems.append(((*where, "pair"), "needs at least two leaves"))
    return tuple(_twist(name, kind, exact(kind.weight) / total) for name, kind in kinds.items())


def _twist(name: str, kind: KindSpec, share: Fraction) -> Twist:
    leaf = (name,) if kind.standalone else None
    return Twist(
        name=name,
        share=share,
        description=kind.description,
        labels=dict(kind.labels),
        pair=kind.pair,
        standalone=kind.standalone,
        seeds=tuple(_seeds(name, leaf, kind.seeds)),
    )


def _share(spec: TaxonomyFile) -> Fraction:
    return _DEFAULT_SHARE if spec.adversarial.share is None else exact(spec.adversarial.share)


def _check_constraints(taxonomy: Taxonomy, problems: list[Problem]) -> None:
    known = taxonomy.paths()
    names = ["/".join(path) for path in sorted(known)]
    leaves = [leaf.path for leaf in taxonomy.leaves] + [(t.name,) for t in taxonomy.twists if t.standalone]
    for dimension in taxonomy.dimensions:
        where = ("dimensions", dimension.name)
        unknown = False
        for value in dimension.values:
            for position, path in enumerate(value.only):
                if path not in known:
                    unknown = True
                    text = f"no such branch or leaf: {'/'.join(path)}; {suggest('/'.join(path), names)}"
                    problems.append(((*where, value.name, "only", position), text))
        without = [leaf for leaf in leaves if not any(value.allowed(leaf) for value in dimension.values)]
        if without and not unknown:
            shown = ", ".join("/".join(leaf) for leaf in without[:3]) + (", …" if len(without) > 3 else "")
            problems.append((where, f"has no value for {shown}: give one without `only`, or name them there"))


def _check_name(name: str, where: tuple[str, ...], problems: list[Problem]) -> None:
    # Marks belong to the letters they stand on: without them many scripts could not write their words.
    letters = "".join(character for character in name if not unicodedata.category(character).startswith("M"))
    if not re.fullmatch(r"\w(?:[\w .+&()'-]{0,98}[\w.+)])?", letters) or len(name) > 200:
        problems.append((where, "not usable as a name: use letters, digits, `_`, `-` and single spaces"))


def _path(text: str) -> Path_:
    return tuple(part.strip() for part in text.split("/"))


def exact(number: float) -> Fraction:
    """The number as it is written: 0.1 is one tenth."""
    return Fraction(repr(number))
