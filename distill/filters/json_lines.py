"""JSON Lines, read twice in blocks of bytes, so that several processes can read at once.

The first reading (`layout`) finds the type of every column and every line that does not fit, so that the second
(`read`) can write columns whose type never changes midway. Where lines do not fit together, those that most others
agree with stay. A line belongs to the block in which it begins; how a file is cut does not depend on who reads it.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa

from distill.filters.kinds import Conflict, Kind, arrow_type, column, common, kind_of, loosely
from distill.io import loads

__all__ = ["ARRAY", "BATCH_BYTES", "BATCH_ROWS", "BLOCK", "MAX_LINE", "Batch", "Layout", "Over", "layout", "read"]

MAX_LINE = 16 << 20
"""Bytes of the longest line that is read. A longer one is reported, and skipped without being held."""
BATCH_ROWS = 1024
BATCH_BYTES = 8 << 20
BLOCK = 4 << 20
"""Bytes that are read in one go by one process."""

Over = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""`map`, or the same by other processes."""
Refuse = Callable[[int, str], None]
Places = list[tuple[int, str]]
"""Lines that cannot be used, counted from 1 at the beginning of their block, and why."""
Block = tuple[Path, int, int]

ARRAY = "a JSON array, not one object a line"
"""What is wrong with a file whose lines are not rows."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows in file order. `originals` are the parsed objects of JSON rows: a column layout adds nulls for absent keys,
    these do not."""

    table: pa.Table
    places: list[int]
    originals: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """What the first reading has found, by block."""

    kinds: dict[str, Kind]
    """The columns."""
    lines: list[int]
    """Lines that begin in each block."""
    bad: list[Places]
    """Lines that hold no object."""
    unfit: list[Places]
    """Lines whose objects do not fit in with the others."""

    @property
    def schema(self) -> pa.Schema:
        return _schema(self.kinds)

    @property
    def rows(self) -> int:
        """Rows that can be used, at most: blank lines are among them."""
        return sum(self.lines) - sum(len(places) for found in (self.bad, self.unfit) for places in found)

    def tell(self, found: list[Places], refuse: Refuse) -> None:
        """Tell of lines that cannot be used, by their numbers in the file."""
        first = 0
        for count, places in zip(self.lines, found, strict=True):
            for place, why in places:
                refuse(first + place, why)
            first += count

    def as_json(self) -> dict[str, Any]:
        return {"kinds": list(self.kinds.items()), "lines": self.lines, "bad": self.bad, "unfit": self.unfit}

    @classmethod
    def of_json(cls, value: dict[str, Any]) -> Layout:
        """What `as_json` gave, after it was written and read."""
        bad, unfit = ([[(place, why) for place, why in block] for block in value[name]] for name in ("bad", "unfit"))
        return cls({name: _frozen(kind) for name, kind in value["kinds"]}, value["lines"], bad, unfit)


def layout(path: Path, text: frozenset[str] | None, refuse: Refuse, over: Over = map) -> Layout:
    """Read the file for the first time.

    Args:
        text: columns that hold text where rows disagree about it; None: all of them, as JSON.
        refuse: told of lines that hold no object as they are found; it may raise.
    """
    blocks, first = _blocks(path), 0
    lines: list[int] = []
    bad: list[Places] = []
    held: list[list[tuple[Kind, int]]] = []
    seen: Counter[Kind] = Counter()
    for count, places, kinds in over(_scan, blocks):
        for place, why in places:
            refuse(first + place, why)
        first += count
        lines.append(count)
        bad.append(places)
        held.append(kinds)
        for kind, rows in kinds:
            seen[kind] += rows
    columns, odd = (loosely(seen), {}) if text is None else common(seen, text)
    unfit: list[Places] = [[] for _ in blocks]
    numbers = [number for number, kinds in enumerate(held) if any(kind in odd for kind, _ in kinds)]
    jobs = [(*blocks[number], frozenset(place for place, _ in bad[number]), odd) for number in numbers]
    for number, places in zip(numbers, over(_odd, jobs), strict=True):
        unfit[number] = places
    return Layout(columns, lines, bad, unfit)


def read(path: Path, layout: Layout, over: Over = map, *, originals: bool = True) -> Iterator[Batch]:
    """Read the lines that can be used, in order.

    Args:
        originals: whether the parsed objects are wanted too.
    """

    def jobs() -> Iterator[tuple[Path, int, int, int, frozenset[int], dict[str, Kind], bool]]:
        first = 0
        for block, count, bad, unfit in zip(_blocks(path), layout.lines, layout.bad, layout.unfit, strict=True):
            lost = frozenset(place for place, _ in [*bad, *unfit])
            if count > len(lost):
                yield *block, first, lost, layout.kinds, originals
            first += count

    for batches in over(_read, jobs()):
        yield from batches


def _blocks(path: Path) -> list[Block]:
    size = path.stat().st_size
    return [(path, begin, min(begin + BLOCK, size)) for begin in range(0, size, BLOCK)]


def _scan(block: Block) -> tuple[int, Places, list[tuple[Kind, int]]]:
    """How many lines begin in a block, those that hold no object, and how many rows are of which kind."""
    bad: Places = []
    seen: Counter[Kind] = Counter()
    lines = _Lines(*block)
    for place, row in lines.objects(bad):
        try:
            seen[kind_of(row)] += 1
        except (Conflict, RecursionError) as error:
            bad.append((place, str(error) or "nested too deeply"))
    return lines.count, bad, list(seen.items())


def _odd(job: tuple[Path, int, int, frozenset[int], dict[Kind, str]]) -> Places:
    path, begin, end, bad, odd = job
    rows = ((place, row) for place, row in _Lines(path, begin, end).objects([]) if place not in bad)
    return [(place, why) for place, row in rows if (why := odd.get(kind_of(row))) is not None]


def _read(job: tuple[Path, int, int, int, frozenset[int], dict[str, Kind], bool]) -> list[Batch]:
    path, begin, end, first, lost, kinds, originals = job
    batches: list[Batch] = []
    places: list[int] = []
    rows: list[dict[str, Any]] = []
    held = 0
    for place, line in _Lines(path, begin, end).texts([]):
        if place in lost:
            continue
        rows.append(orjson.loads(line))  # the first reading was strict
        places.append(first + place)
        held += len(line)
        if len(rows) >= BATCH_ROWS or held >= BATCH_BYTES:
            batches.append(Batch(_table(rows, kinds), places, rows if originals else None))
            places, rows, held = [], [], 0
    if rows:
        batches.append(Batch(_table(rows, kinds), places, rows if originals else None))
    return batches


def _table(rows: list[dict[str, Any]], kinds: dict[str, Kind]) -> pa.Table:
    if not kinds:
        return pa.table({"id": pa.nulls(len(rows), pa.string())})
    arrays = [column([row.get(name) for row in rows], kind) for name, kind in kinds.items()]
    return pa.Table.from_arrays(arrays, schema=_schema(kinds))


def _schema(kinds: dict[str, Kind]) -> pa.Schema:
    return pa.schema([(name, arrow_type(kind)) for name, kind in kinds.items()])


def _frozen(kind: Any) -> Kind:
    return tuple(_frozen(inner) for inner in kind) if isinstance(kind, list) else kind


class _Lines:
    """The lines that begin in a block."""

    def __init__(self, path: Path, begin: int, end: int) -> None:
        self._path, self._begin, self._end = path, begin, end
        self.count = 0
        """Lines so far, blank ones too."""

    def objects(self, bad: Places) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number from 1 in the block, object); lines that hold none are added to `bad`."""
        for place, line in self.texts(bad):
            top = place == 1 and self._begin == 0
            try:
                value = loads(line)
            except UnicodeDecodeError as error:
                bad.append((place, f"not UTF-8 (byte {error.start + 1} of the line)"))
            except RecursionError:
                bad.append((place, "nested too deeply"))
            except ValueError as error:
                array = top and line.lstrip().startswith(b"[")
                bad.append((place, ARRAY if array else f"not valid JSON: {error}"))
            else:
                if isinstance(value, dict):
                    yield place, value  # pyright: ignore[reportUnknownVariableType]
                else:
                    bad.append((place, ARRAY if top and isinstance(value, list) else "not a JSON object"))

    def texts(self, bad: Places) -> Iterator[tuple[int, bytes]]:
        """(number from 1 in the block, line) of lines that are not blank, none of them longer than `MAX_LINE`."""
        with self._path.open("rb") as file:
            at = self._first(file)
            while at < self._end and (line := file.readline(MAX_LINE + 1)):
                if at == 0:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                    at = file.tell()
                else:
                    at += len(line)
                self.count += 1
                if len(line) > MAX_LINE and not line.endswith(b"\n"):
                    length = len(line)
                    while rest := file.readline(MAX_LINE):
                        length, at = length + len(rest), at + len(rest)
                        if rest.endswith(b"\n"):
                            break
                    most = f"{length / 1e6:.0f} MB in one line, at most {MAX_LINE >> 20} MiB can be read"
                    bad.append((self.count, most))
                elif line.strip():
                    yield self.count, line

    def _first(self, file: BinaryIO) -> int:
        """Go to the first line that begins in the block; where that is."""
        if self._begin == 0:
            return 0
        at = file.seek(self._begin - 1)
        while at < self._end and (rest := file.readline(BLOCK)):
            at += len(rest)
            if rest.endswith(b"\n"):
                break
        return at
