"""`distill answers`: the store of paid answers, counted, checked, pruned, handed on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from distill.cli.console import JsonOption, err, out, print_json, safe
from distill.cli.progress import megabytes, money
from distill.errors import Halted, InputError, RunError, StoreDamaged

if TYPE_CHECKING:
    from pydantic import SecretStr

    from distill.gateway import StoreCare
    from distill.gateway.store.care import Checked, Tally

__all__ = ["app"]

app = typer.Typer(help="The store of paid answers: count, check, prune, hand on.", no_args_is_help=True)

_WorkspaceOption = Annotated[
    Path | None, typer.Option("--workspace", help="Workspace; left out, the one around this folder.")
]
_SHOWN = 20


@app.command()
def stats(workspace: _WorkspaceOption = None, json: JsonOption = False) -> None:
    """Size, answers, tokens and money, by model and by run."""
    from distill.engine.rundir import list_runs

    root = _root(workspace)
    with _open(root) as care:
        tallies, ledger, size = care.tallies(), care.ledger(), care.size()
        where = care.where
    names = {str(_number(run.path)): run.name for run in list_runs(root)}
    answers = sum(tally.answers for tally in tallies)
    books = {line.run: line for line in ledger}
    value: dict[str, Any] = {
        "store": where,
        "bytes": size,
        "answers": answers,
        "bytes_per_answer": round(size / answers, 1) if answers else None,
        "input_tokens": sum(line.input for line in ledger),
        "output_tokens": sum(line.output for line in ledger),
        "cost_usd": sum(line.pico for line in ledger) / 1e12,
        "unknown_cost_usd": sum(line.lost_pico + line.exposed_pico for line in ledger) / 1e12,
        "models": _grouped(tallies, lambda tally: f"{tally.provider}/{tally.model}"),
        "runs": {
            run: {
                "name": names.get(run),
                **figures,
                "paid_usd": books[run].pico / 1e12 if run in books else 0.0,
            }
            for run, figures in _grouped(tallies, lambda tally: tally.run).items()
        },
    }
    if json:
        print_json(value)
        return
    each = f", {value['bytes_per_answer']:,.0f} bytes each" if answers else ""
    out.print(safe(f"{where}: {megabytes(size)}, {answers:,} answers{each}, {money(value['cost_usd'])} paid"))
    for title, groups in (("model", value["models"]), ("run", value["runs"])):
        table = Table(title, "answers", "refused", "tokens in", "tokens out", "bodies", "cost", box=None)
        for name, figures in groups.items():
            table.add_row(
                safe(figures.get("name") or name),
                *(f"{figures[field]:,}" for field in ("answers", "refusals", "input_tokens", "output_tokens")),
                megabytes(figures["bytes"]),
                money(figures["cost_usd"]),
            )
        if groups:
            out.print(table)


@app.command()
def verify(
    workspace: _WorkspaceOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move damaged answers to a file, so that they are asked again.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Read every answer: the database's own checks, each body's checksum, each key against what was asked.

    Exit code 1 where something is damaged and not repaired.
    """
    from distill.engine.answers import quarantine
    from distill.gateway import check, own_store
    from distill.gateway.store.care import Checked

    root = _root(workspace)
    moved: Path | None = None
    try:
        with _open(root) as care:
            where, found = care.where, check(care)
            if repair and found.flaws and not found.damage:
                moved = root / ".distill" / f"quarantine-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
                quarantine(care, found.flaws, moved)
    except StoreDamaged as error:  # so much that it cannot be opened
        where, found = str(own_store(root)), Checked(damage=[error.message])
    recovered = _salvaged(root) if repair and found.damage else ""
    mended = found.sound or moved is not None or bool(recovered)
    if not json:
        _show_check(found, where, moved, recovered)
    value = {
        "store": where,
        "answers": found.answers,
        "keys_proven": found.proven,
        "sound": found.sound,
        "damage": found.damage,
        "flaws": [{**_named(flaw.record), "why": flaw.why} for flaw in found.flaws],
        "quarantine": str(moved) if moved else None,
        "recovered": recovered or None,
    }
    if json:
        print_json(value)
    if not mended:
        raise typer.Exit(1)


@app.command()
def prune(
    workspace: Annotated[
        list[Path] | None,
        typer.Option("--workspace", help="Workspace; of a shared server: every one that uses it."),
    ] = None,
    run: Annotated[
        list[Path] | None, typer.Option("--run", help="Run directory elsewhere whose answers stay; several times.")
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="Of a server: the workspaces named are all that use it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove answers that no run refers to, and give the room back.

    What a run paid, what its rows are made of, and what its evaluations asked stays. Removed answers would be asked,
    and paid, again. What was spent stays counted.
    """
    from distill.engine.answers import known_runs, remove, unreferred

    roots = [_root(folder) for folder in workspace or [None]]
    address = _address()
    if address is not None and not shared:
        raise InputError(
            "the store is a server, whose answers may belong to runs of other workspaces",
            field="--shared",
            hint="Name every workspace that uses it with --workspace, then say --shared.",
        )
    with _open(roots[0]) as care:
        gone = unreferred(care, known_runs(roots, run or ()))
        before, count = care.size(), sum(len(each.keys) for each in gone)
        if not json:
            for each in gone:
                what = f"{len(each.keys):,} answers, {megabytes(each.bytes)}, {money(each.pico / 1e12)}"
                out.print("unreferred:", safe(each.run), what)
        removed = 0
        if gone and not dry_run:
            _agreed(count, yes=yes)
            removed = sum(remove(care, each.keys) for each in gone)
            _compacted(care)
        after = care.size()
    if json:
        by_run = {
            each.run: {"answers": len(each.keys), "bytes": each.bytes, "cost_usd": each.pico / 1e12} for each in gone
        }
        print_json({"unreferred": by_run, "removed": removed, "bytes_before": before, "bytes_after": after})
    elif not gone:
        out.print("every answer is referred to by a run")
    elif removed:
        out.print(f"removed {removed:,} answers: {megabytes(before)} before, {megabytes(after)} after")


@app.command()
def export(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL file to write.")],
    workspace: _WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Write every answer as JSONL: what was asked and said, tokens, price; no API key, no host."""
    from distill.engine.answers import as_lines
    from distill.io import write_jsonl

    with _open(_root(workspace)) as care:
        count = write_jsonl(target, as_lines(care))
    err.print(safe(f"{count:,} answers in {target}"))
    if json:
        print_json({"answers": count, "path": str(target)})


@app.command()
def merge(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Store files, workspaces, or ${NAME} of a server's address."),
    ],
    workspace: _WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Bring the answers of other stores into this workspace's.

    An answer that is there stays; merging again, after a crash too, changes nothing more. Money is not counted twice.
    """
    from distill.gateway import SqliteCare, own_store, unite

    root = _root(workspace)
    if _address() is None:
        SqliteCare(own_store(root), make=True).close()
    told: dict[str, Any] = {}
    with _open(root) as care:
        for source in sources:
            with _source(source, care) as other:
                found = unite(care, other)
                told[other.where] = {"added": found.added, "present": found.present, "damaged": found.damaged}
                damaged = f", {found.damaged:,} damaged left out" if found.damaged else ""
                err.print(safe(f"{other.where}: {found.added:,} answers added, {found.present:,} there{damaged}"))
        where, size = care.where, care.size()
    if json:
        print_json({"store": where, "bytes": size, "sources": told})


def _root(workspace: Path | None) -> Path:
    from distill.assets import workspace_of

    if workspace is not None and not workspace.is_dir():
        raise InputError("no such folder", path=workspace)
    return workspace or workspace_of(Path.cwd())


def _address() -> SecretStr | None:
    from distill.gateway import store_address

    return store_address()


def _open(root: Path) -> Any:
    """The store that runs of this workspace use, for a `with` statement."""
    from distill.gateway import open_care

    return open_care(root, _address())


def _source(named: str, target: StoreCare) -> Any:
    """A store to take answers from, for a `with` statement."""
    from distill.gateway import PostgresCare, SqliteCare, own_store, store_address

    if "://" in named or "${" in named:
        from pydantic import SecretStr

        address = store_address(SecretStr(named))
        return PostgresCare(address.get_secret_value() if address is not None else "")
    path = Path(named)
    path = own_store(path) if path.is_dir() else path
    if str(path.resolve()) == str(Path(target.where).resolve()):
        raise InputError("is the store that is merged into", path=path)
    return SqliteCare(path)


def _number(run: Path) -> Any:
    from distill.engine.rundir import RunDir

    try:
        return (RunDir(run).describe() or {}).get("id")
    except InputError:
        return None


def _grouped(tallies: list[Tally], name: Callable[[Tally], str]) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    zero = {"answers": 0, "refusals": 0, "input_tokens": 0, "output_tokens": 0, "bytes": 0, "cost_usd": 0.0}
    for tally in tallies:
        group = groups.setdefault(name(tally), dict(zero))
        added = (tally.answers, tally.refusals, tally.input, tally.output, tally.bytes, tally.pico / 1e12)
        for field, value in zip(zero, added, strict=True):
            group[field] += value
    return groups


def _named(record: Any) -> dict[str, str]:
    return {"key": record.key, "run": record.run, "model": f"{record.provider}/{record.model}"}


def _show_check(found: Checked, where: str, moved: Path | None, recovered: str) -> None:
    out.print(safe(f"{where}: {found.answers:,} answers read, {found.proven:,} keys proven by what was asked"))
    for text in found.damage:
        out.print(Text("damaged: ", style="red") + safe(text, limit=300))
    for flaw in found.flaws[:_SHOWN]:
        named = _named(flaw.record)
        out.print(
            Text("damaged: ", style="red")
            + safe(f"{named['key']} of run {named['run']} ({named['model']}): {flaw.why}")
        )
    if len(found.flaws) > _SHOWN:
        out.print(f"and {len(found.flaws) - _SHOWN:,} more: --json names all")
    if moved is not None:
        out.print(safe(f"moved to {moved}: these answers are absent now, and will be asked again"))
    if recovered:
        out.print(safe(recovered))
    if found.sound:
        out.print(Text("sound", style="green"))
    elif moved is None and not recovered:
        out.print("--repair mends what can be mended")


def _salvaged(root: Path) -> str:
    """Let the store recover what can be read of a damaged file; says what came of it."""
    from distill.gateway import SqliteStore, own_store
    from distill.gateway.store.salvage import DAMAGED_NOTE

    path = own_store(root)
    path.with_name(DAMAGED_NOTE).touch()  # look at all of it, however large it is
    try:
        SqliteStore.open(path).close()
    except StoreDamaged as error:
        return f"{error.message}. {error.hint or ''}".strip()
    return ""


def _agreed(count: int, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise InputError("nobody is there to agree", field="--yes", hint="Say --yes to remove, --dry-run to look.")
    if not typer.confirm(f"Remove {count:,} answers?", err=True):
        raise Halted("nothing was removed")


def _compacted(care: StoreCare) -> None:
    try:
        care.compact()
    except RunError as error:
        err.print(Text("not compacted: ", style="yellow") + safe(error.message))
