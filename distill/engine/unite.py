"""The shards of a run become one run.

Shards share nothing but the plan, and a run is a pure function of the plan and the answers. So uniting them is: bring
the answers of all shards into one store, then replay the whole recipe from it, asking nobody. Quotas, filters across
all rows, fates, files and card come out as one run would have written them, whatever the order in which shards are
named; what the shards wrote is only read to see that they belong together, and what the union lost.

A slot whose answer no shard has stays pending: rows that fell out across shards leave their leaf short, and the shards
had no reason to ask for more. `distill generate --run` on the merged directory asks exactly those.
"""

# Arrow's arrays are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill.assets import workspace_of
from distill.engine.events import Summary
from distill.engine.prepare import Prepared, prepare
from distill.engine.run import Run
from distill.engine.rundir import RunDir
from distill.errors import InputError
from distill.gateway import SqliteCare, United, open_care, own_store, unite
from distill.planning import Shard
from distill.recipe import Recipe, load_recipe, parse

__all__ = ["Merged", "merge_shards"]

_ENDED = ("complete", "short")
_BESIDE = "answers.sqlite"


@dataclass(frozen=True, slots=True)
class Merged:
    """What the union is. `lost`: rows that a shard had kept and the union has not, by reason; `short`: rows that are
    missing of the target; `fill`: the command that asks for them."""

    summary: Summary
    shards: tuple[str, ...]
    answers: United
    lost: dict[str, int]
    short: int
    fill: str

    def as_json(self) -> dict[str, Any]:
        return {
            **self.summary.as_json(),
            "shards": list(self.shards),
            "answers_added": self.answers.added,
            "answers_damaged": self.answers.damaged,
            "lost_across_shards": self.lost,
            "short_rows": self.short,
            "fill": self.fill,
        }


@dataclass(frozen=True, slots=True)
class _Piece:
    """One shard's run directory."""

    run: RunDir
    shard: Shard
    state: str
    description: dict[str, Any]

    @property
    def store(self) -> Path:
        """Its answers: beside its rows, where somebody put a copy, else those of its workspace."""
        beside = self.run.path / _BESIDE
        return beside if beside.is_file() else own_store(workspace_of(self.run.path))


async def merge_shards(runs: Sequence[Path], out: Path, *, recipe: Path | None = None, partial: bool = False) -> Merged:
    """Unite the run directories `runs` in `out`, a new run directory or one that was merged from them before.

    Args:
        recipe: the recipe's file; left out, it is found from the first shard.
        partial: unite what is there, though shards are missing or have not ended.

    Raises:
        InputError: they are not the shards of one run, some are missing, their answers or the recipe are not found.
        StoreDamaged: a shard's store cannot be read.
    """
    pieces = _in_order([_piece(path) for path in runs], partial=partial)
    prepared, file = _prepare(pieces, recipe)
    united = _bring_in(prepared, pieces)
    directory = RunDir(out)
    _not_a_shard(directory, pieces)
    origin = {"merged_from": [str(piece.shard) for piece in pieces]}
    summary = await Run(prepared, directory, sealed=True, origin=origin).execute()
    short = sum(summary.short.values())
    fill = f"distill generate {shlex.quote(str(file))} --run {shlex.quote(str(out))}"
    return Merged(summary, tuple(origin["merged_from"]), united, _lost(pieces, directory), short, fill)


def _piece(path: Path) -> _Piece:
    run = RunDir(path)
    description = run.describe()
    if description is None:
        raise InputError("no run here: no run.json", path=path, hint="Name the run directories of the shards.")
    named = description.get("shard")
    if not isinstance(named, str):
        raise InputError(
            "the run of a whole recipe, not of a shard", path=path, hint="`distill generate --shard i/n` makes shards."
        )
    return _Piece(run, Shard.parse(named), str(description.get("state")), description)


def _in_order(pieces: list[_Piece], *, partial: bool) -> list[_Piece]:
    """The shards by their index, which are all there are."""
    pieces.sort(key=lambda piece: (piece.shard.index, str(piece.run.path)))
    first = pieces[0]
    for piece in pieces[1:]:
        if piece.description["inputs"] != first.description["inputs"]:
            raise InputError(
                f"{piece.run.path} and {first.run.path} are shards of different runs: recipe, taxonomy, prompts, "
                "filters or seeds are not the same",
                hint="Make the shards from the same files.",
            )
        if piece.shard.of != first.shard.of:
            raise InputError(
                f"{piece.run.path} is shard {piece.shard} and {first.run.path} is shard {first.shard}: the plan was "
                "divided in two ways"
            )
    count = Counter(piece.shard.index for piece in pieces)
    if twice := [index for index, number in count.items() if number > 1]:
        named = " and ".join(str(piece.run.path) for piece in pieces if piece.shard.index == twice[0])
        raise InputError(f"shard {twice[0]}/{first.shard.of} is there twice: {named}", hint="Name one of them.")
    again = "distill generate RECIPE --shard {}, then merge again; --partial unites what is there"
    missing = [f"{index}/{first.shard.of}" for index in range(1, first.shard.of + 1) if index not in count]
    if missing and not partial:
        raise InputError(f"missing: shard {', '.join(missing)}", hint="Run " + again.format(missing[0]) + ".")
    open_ = [piece for piece in pieces if piece.state not in _ENDED]
    if open_ and not partial:
        named = ", ".join(f"{piece.shard} ({piece.run.path}: {piece.state})" for piece in open_)
        raise InputError(f"not at its end: shard {named}", hint="Run " + again.format(open_[0].shard) + ".")
    return pieces


def _prepare(pieces: list[_Piece], given: Path | None) -> tuple[Prepared, Path]:
    first = pieces[0]
    if given is not None:
        recipe, file = load_recipe(given), given
    else:
        folder = first.run.path / str(first.description.get("folder", ""))
        if not folder.is_dir():
            raise InputError(
                f"the files of the recipe are not where shard {first.shard} had them: {folder}",
                hint="Name the recipe with --recipe FILE.",
            )
        recipe = parse(Recipe, first.description["recipe"]).at(folder.resolve())
        file = recipe.folder / str(first.description.get("file") or f"{recipe.name}.yaml")
    prepared = prepare(recipe)
    if prepared.inputs != first.description["inputs"]:
        raise InputError(
            "the recipe, or a file that it names, is not what the shards were made with",
            path=file,
            hint="Take the files that the shards had, or name the recipe with --recipe FILE.",
        )
    return prepared, file


def _bring_in(prepared: Prepared, pieces: list[_Piece]) -> United:
    """All answers of the shards, in the store that the merged run reads."""
    total = United()
    own = own_store(prepared.workspace)
    if prepared.store is None:
        SqliteCare(own, make=True).close()
    with open_care(prepared.workspace, prepared.store) as target:
        seen = {own.resolve()} if prepared.store is None else set[Path]()
        for piece in pieces:
            path = piece.store.resolve()
            if path in seen or (prepared.store is not None and not path.is_file()):
                continue
            seen.add(path)
            if not path.is_file():
                raise InputError(
                    f"the answers of shard {piece.shard} are not found: no {path}",
                    hint=f"Copy .distill/answers.sqlite of its machine to {piece.run.path / _BESIDE}.",
                )
            with SqliteCare(path) as source:
                found = unite(target, source)
            total.added += found.added
            total.present += found.present
            total.damaged += found.damaged
    return total


def _not_a_shard(directory: RunDir, pieces: list[_Piece]) -> None:
    if any(directory.path.resolve() == piece.run.path.resolve() for piece in pieces):
        raise InputError("is one of the shards", path=directory.path, field="--out", hint="Name another folder.")


def _lost(pieces: list[_Piece], merged: RunDir) -> dict[str, int]:
    """Rows that a shard kept and the union did not, by filter and reason, or `pending`."""
    kept = set(_column(merged.rows, "id"))
    gone = {name for piece in pieces for name in _column(piece.run.rows, "id") if name not in kept}
    if not gone:
        return {}
    rejected = pq.read_table(merged.rejected, columns=["id", "filter", "reason"]).to_pylist()
    reasons = {row["id"]: f"{row['filter']}: {row['reason']}" for row in rejected if row["id"] in gone}
    return dict(Counter(reasons.get(name, "pending") for name in gone).most_common())


def _column(path: Path, name: str) -> list[str]:
    try:
        column: Any = pq.read_table(path, columns=[name])[name]
        return column.to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"cannot be read: {str(error).splitlines()[0]}", path=path) from None
