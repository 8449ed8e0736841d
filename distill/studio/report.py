"""`report.html`: one file that shows a run to a person, made from the run's other files and from nothing else."""

# Arrow's readers are generic over types that only run time knows.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from distill.errors import InputError
from distill.io import write_text
from distill.studio.comparison import comparison
from distill.studio.curves import curves
from distill.studio.html import Html, bar, card, escape, page, section, table

__all__ = ["write_evaluation", "write_report"]

_EXAMPLES = 8


def write_report(run: Path) -> Path:
    """Write `report.html` into a run directory and return its path.

    Raises:
        InputError: the folder holds no run.
    """
    description = _description(run)
    target = run / "report.html"
    name = description["recipe"]["name"]
    write_text(
        target,
        page(
            f"{name} — {run.name}",
            _head(run, description),
            _scores(run / "eval"),
            _fates(description),
            _leaves(description),
            _teachers(description),
            _training(run),
            _examples(run),
            _made(description),
        ),
    )
    return target


def _description(run: Path) -> dict[str, Any]:
    value = _json(run / "run.json")
    if value is None:
        raise InputError("no run.json here", path=run, hint="name a directory under runs/")
    if not isinstance(value, dict) or "recipe" not in value:
        raise InputError("not a run of distill", path=run / "run.json")
    return value  # pyright: ignore[reportUnknownVariableType]


def _head(run: Path, description: dict[str, Any]) -> Html:
    summary = description.get("summary", {})
    recipe = description["recipe"]
    cards = [
        card("rows kept", f"{summary.get('kept', 0):,}"),
        card("target", f"{recipe['plan']['target']:,}"),
        card("cost", f"${summary.get('cost_usd', 0):.4f}"),
        card("tokens", f"{sum(summary.get('tokens', {}).values()):,}"),
        card("last session", f"{summary.get('seconds', 0):,.0f} s"),
        card("sessions", description.get("sessions", 1)),
    ]
    warn = Html("<p class=warn>Simulated: these rows come from the offline rehearsal, not from a model.</p>")
    return Html(
        f"<h1>{escape(recipe['name'])} <span class=dim>{escape(run.name)}</span></h1>"
        f"<p>{escape(recipe.get('description', ''))}</p>"
        f"<p class=dim>{escape(description.get('state'))}: {escape(description.get('reason', ''))}</p>"
        f"{warn if summary.get('simulated') else ''}<div class=cards>{''.join(cards)}</div>"
    )


def write_evaluation(folder: Path) -> Path:
    """Write `report.html` into an evaluation's folder, from its scorecard, and return its path."""
    target = folder / "report.html"
    title = f"{folder.resolve().name} — evaluation"
    write_text(target, page(title, Html(f"<h1>{escape(title)}</h1>"), _scores(folder)))
    return target


def _scores(folder: Path) -> Html:
    scorecard = _json(folder / "scorecard.json")
    if scorecard is None:
        return Html("")
    systems: dict[str, Any] = scorecard["systems"]
    metrics = list(dict.fromkeys(name for system in systems.values() for name in system["metrics"]))
    rows = [
        [name, *(_interval(system["metrics"].get(metric)) for metric in metrics), _latency(system)]
        for name, system in systems.items()
    ]
    parts = [table(["system", *metrics, "latency p50"], rows, numbers=len(metrics) + 1)]
    gates = scorecard.get("gates", [])
    if gates:
        parts.append(
            table(
                ["gate", "value", "held", "missed by", ""],
                [
                    [
                        gate["gate"],
                        gate["value"],
                        "yes" if gate["passed"] else "NO",
                        gate.get("short") or "",
                        gate.get("note", ""),
                    ]
                    for gate in gates
                ],
                numbers=0,
            )
        )
    parts += [_gained(scorecard), *_confused(scorecard), *comparison(scorecard)]
    note = f"{scorecard['n']} items; intervals are 95 % bootstrap; holdout {scorecard['holdout_digest'][:12]}"
    return section("On the holdout", *parts, Html(f"<p class=dim>{escape(note)}</p>"))


def _interval(metric: dict[str, Any] | None) -> str:
    if metric is None:
        return "–"
    return f"{metric['value']:.3f} [{metric['low']:.3f}, {metric['high']:.3f}]"


def _latency(system: dict[str, Any]) -> str:
    latency: dict[str, float] | None = system.get("latency")
    return f"{latency['p50'] * 1000:,.0f} ms" if latency else "–"


def _chance(difference: dict[str, Any]) -> str:
    """The p-value, corrected for all that were looked at together where it was."""
    together = difference.get("p_adjusted")
    return f"{difference['p_value']:.2g}" if together is None else f"{together:.2g} (corrected)"


def _confused(scorecard: dict[str, Any]) -> list[Html]:
    """Which classes the subject takes for which, by metric."""
    details: dict[str, Any] = scorecard["systems"].get(scorecard.get("subject"), {}).get("details") or {}
    return [
        table(
            [f"{metric}: answer", "taken for", "items"],
            [[pair["answer"], pair["prediction"], pair["items"]] for pair in detail["confused"]],
            numbers=1,
        )
        for metric, detail in details.items()
        if detail.get("confused")
    ]


def _gained(scorecard: dict[str, Any]) -> Html:
    """What the student gained, and whether the comparison can be trusted."""
    rows = [
        [
            f"{d['system']} − {d['against']}",
            d["metric"],
            f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]",
            _chance(d),
        ]
        for d in scorecard.get("differences", ())
    ]
    leaks = scorecard.get("leaks")
    said = "not looked for" if leaks is None else f"{len(leaks)} of them stand in the training rows"
    parts = [table(["difference", "metric", "95 % interval", "p"], rows, numbers=2)] if rows else []
    return Html("".join([*parts, f"<p class=dim>holdout items: {escape(said)}</p>"]))


def _fates(description: dict[str, Any]) -> Html:
    summary = description.get("summary", {})
    planned = max(1, summary.get("planned", 0))
    rows: list[Sequence[object]] = [["kept", "", summary.get("kept", 0), bar(summary.get("kept", 0) / planned)]]
    for name, reasons in summary.get("rejected", {}).items():
        rows += [[f"rejected by {name}", reason, count, bar(count / planned)] for reason, count in reasons.items()]
    rows += [["failed", name, count, bar(count / planned)] for name, count in summary.get("failed", {}).items()]
    if summary.get("pending"):
        rows.append(["pending", "", summary["pending"], bar(summary["pending"] / planned)])
    return section("Fates", table(["fate", "reason", "rows", "share of planned"], rows))


def _leaves(description: dict[str, Any]) -> Html:
    rows = [
        [
            leaf,
            *(count[name] for name in ("target", "kept", "rejected", "failed")),
            f"${count['cost_usd']:.4f}",
            bar(count["kept"] / max(1, count["target"])),
        ]
        for leaf, count in description.get("leaves", {}).items()
    ]
    return (
        section("Leaves", table([*["leaf", "target", "kept", "rejected", "failed", "cost", "filled"]], rows))
        if rows
        else Html("")
    )


def _teachers(description: dict[str, Any]) -> Html:
    teachers: dict[str, dict[str, Any]] = description.get("summary", {}).get("teachers", {})
    names = list(dict.fromkeys(name for stats in teachers.values() for name in stats))
    rows = [[teacher, *(stats.get(name) for name in names)] for teacher, stats in teachers.items()]
    return section("Teachers, last session", table(["teacher", *names], rows, numbers=len(names))) if rows else Html("")


def _training(run: Path) -> Html:
    parts: list[Html] = []
    for file in sorted((run / "train").glob("*/train.json")):
        training: dict[str, Any] = _json(file) or {}
        parts.append(Html(f"<p>{escape(file.parent.name)}</p>"))
        losses = {"training": _points(training, "losses"), "validation": _points(training, "validation_points")}
        parts.append(curves("loss", losses))
        if task := training.get("task"):
            parts.append(curves(task["metric"], {"validation rows": [(step, value) for step, value in task["scores"]]}))
        parts.append(table(["", ""], [[k, v] for k, v in training.items() if isinstance(v, (int, float, str))]))
    return section("Training", *parts)


def _points(training: dict[str, Any], name: str) -> list[tuple[float, float]]:
    points: list[dict[str, Any]] = training.get(name, [])
    return [(point["step"], point["loss"]) for point in points if point.get("loss") is not None]


def _examples(run: Path) -> Html:
    kept: list[Html] = []
    for row in _spread(run / "rows.parquet"):
        kept += [_dim(f"{'/'.join(row['leaf'] or [])} · {row['kind']} · {row['id']}"), _conversation(row)]
    dropped: list[Html] = []
    for row in _spread(run / "rejected.parquet"):
        dropped += [_dim(f"{row['filter']}: {row['reason']} — {row['evidence']}"), _conversation(row)]
    lost: list[Html] = []
    for row in _spread(run / "failed.parquet"):
        raw = f"<pre>{escape(row['raw'])}</pre>" if row["raw"] else ""
        lost += [_dim(f"{row['failure']}: {row['message']}"), Html(raw)]
    return Html(section("Rows kept", *kept) + section("Rows rejected", *dropped) + section("Rows failed", *lost))


def _dim(text: str) -> Html:
    return Html(f"<p class=dim>{escape(text)}</p>")


def _conversation(row: dict[str, Any]) -> Html:
    messages: list[dict[str, str]] = row["messages"] or []
    turns: list[tuple[str, str]] = [(turn["role"], turn["content"]) for turn in messages]
    turns += [(name, row[name]) for name in ("reasoning", "chosen", "rejected") if isinstance(row.get(name), str)]
    return Html("".join(f"<pre><b>{escape(role)}</b> {escape(text)}</pre>" for role, text in turns))


def _spread(path: Path) -> Iterator[dict[str, Any]]:
    """A few rows from all over the file."""
    if not path.is_file():
        return
    file = pq.ParquetFile(path)
    total = file.metadata.num_rows
    wanted = {total * n // _EXAMPLES for n in range(_EXAMPLES)} if total else set[int]()
    position = 0
    for batch in file.iter_batches(batch_size=1024):
        for offset in sorted(index - position for index in wanted if position <= index < position + batch.num_rows):
            yield batch.slice(offset, 1).to_pylist()[0]
        position += batch.num_rows


def _made(description: dict[str, Any]) -> Html:
    versions = description.get("versions", {})
    recipe = orjson.dumps(description["recipe"], option=orjson.OPT_INDENT_2).decode()
    return section(
        "How it was made",
        table(["package", "version"], list(versions.items())),
        Html(f"<pre>{escape(recipe)}</pre>"),
    )


def _json(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except orjson.JSONDecodeError as error:
        raise InputError(f"not JSON: {error}", path=path) from None
