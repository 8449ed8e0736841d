"""A scorecard on the terminal: a table of the systems, then what else was found, a line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from rich.table import Table
from rich.text import Text

from distill.cli.console import err, safe

__all__ = ["score_table", "show_remarks", "show_value"]

Values = Mapping[str, Any]

_PAIRS = 3  # confused classes that are told; the scorecard holds the whole matrix


def score_table(card: Values) -> Table:
    """The systems of a scorecard (as JSON values), one a line."""
    systems: Mapping[str, Values] = card["systems"]
    names = list(dict.fromkeys(name for system in systems.values() for name in system["metrics"]))
    costs = {name: _usd(system) for name, system in systems.items()}
    priced = any(cost is not None for cost in costs.values())
    money = ["USD per 1k"] if priced else []
    table = Table("system", *names, "p50 ms", "p95 ms", "tokens/s", *money, title=f"{card['n']} items, 95 % intervals")
    for name, system in systems.items():
        cells = [_interval(system["metrics"].get(metric)) for metric in names]
        latency, speed = system["latency"], system["tokens_per_second"]
        times = [f"{latency[key] * 1000:,.0f}" if latency else "–" for key in ("p50", "p95")]
        cost = costs[name]
        spent = [f"{cost:.4f}" if cost is not None else "–"] if priced else []
        table.add_row(safe(name), *cells, *times, f"{speed:,.0f}" if speed else "–", *spent)
    return table


def show_remarks(card: Values) -> None:
    """Differences, confusions, retention, cost, failures, what was forgotten, parity, leaks and gates, on stderr."""
    for part in (_differences, _groups, _confused, _kept, _wrong, _forgotten, _parity, _judged, _leaks, _repeats):
        part(card, lambda line: err.print(safe(line)))
    if card["gates"]:
        err.print(_gates(card["gates"]))


def _gates(gates: Sequence[Values]) -> Table:
    table = Table("gate", "value", "", "missed by", "")
    for gate in gates:
        held = Text("holds", style="green") if gate["passed"] else Text("fails", style="red")
        short = gate.get("short") or 0.0
        missed = "" if gate["passed"] else f"{short:.4g}" if short else "–"
        table.add_row(safe(gate["gate"]), show_value(gate["value"]), held, missed, safe(gate.get("note", "")))
    return table


def show_value(value: float | None) -> str:
    """A gate's value; None where it could not be said."""
    return "unknown" if value is None else f"{value:.4f}"


def _differences(card: Values, say: Callable[[str], None]) -> None:
    for d in card["differences"]:
        alone, together = d["p_value"], d.get("p_adjusted")
        corrected = "" if together is None else f", corrected {together:.2g}"
        say(f"{d['system']} - {d['against']}  {d['metric']}  {_signed(d)}  p = {alone:.2g} ({d['test']}){corrected}")


def _groups(card: Values, say: Callable[[str], None]) -> None:
    """Leaves and difficulties in which the difference is sure; nothing is said of the others."""
    for d in card.get("group_differences", ()):
        sure = d["p_adjusted"]
        if sure is not None and sure < 0.05:
            where = f"{d['by']} {d['group']} ({d['n']} items)"
            say(f"{where}: {d['system']} - {d['against']}  {d['metric']}  {_signed(d)}  p = {sure:.2g}, corrected")


def _confused(card: Values, say: Callable[[str], None]) -> None:
    details: Mapping[str, Values] = card["systems"][card["subject"]].get("details") or {}
    for metric, detail in details.items():
        pairs = [
            f"{pair['answer']} taken for {pair['prediction']} {pair['items']} times"
            for pair in detail.get("confused", ())[:_PAIRS]
        ]
        if pairs:
            say(f"{card['subject']}, {metric}: {'; '.join(pairs)}")


def _kept(card: Values, say: Callable[[str], None]) -> None:
    for kept in card.get("retention", ()):
        if kept["value"] == 0:
            continue  # nothing is kept: the table says so already
        bounds = "" if kept["low"] is None else f" [{kept['low']:.3f}, {kept['high']:.3f}]"
        say(f"{kept['system']} keeps {kept['value']:.3f}{bounds} of {kept['reference']}'s {kept['metric']}")
    for ratio in card.get("cost_ratios", ()):
        say(f"{ratio['system']} costs {ratio['value']:.3g} of {ratio['reference']} ({ratio['basis']})")


def _wrong(card: Values, say: Callable[[str], None]) -> None:
    for name, system in card["systems"].items():
        wrong: Mapping[str, int] = system.get("wrong") or {}
        if wrong:
            classes = ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in wrong.items())
            say(f"{name}: {sum(wrong.values())} of {card['n']} wrong by {card['wrong_by']}: {classes}")


def _forgotten(card: Values, say: Callable[[str], None]) -> None:
    f = card.get("forgetting")
    if f:
        say(
            f"general set, {f['n']} items: {f['base']} {f['before']:.3f}, {f['system']} {f['after']:.3f},"
            f" forgotten {f['drop']:+.3f} [{f['low']:+.3f}, {f['high']:+.3f}]"
        )


def _parity(card: Values, say: Callable[[str], None]) -> None:
    p = card.get("parity")
    if p:
        say(f"{p['system']} gives the answer measured as {p['measured']} to {p['equal']:.1%} of {p['n']} items")
        for d in p["differences"]:
            say(f"  {d['metric']}, now less then: {_signed(d)}")


def _judged(card: Values, say: Callable[[str], None]) -> None:
    costs: Mapping[str, float] = card.get("judges_usd") or {}
    for name, usd in costs.items():
        say(f"judge {name}: {usd:.4f} USD")


def _leaks(card: Values, say: Callable[[str], None]) -> None:
    if card["leaks"]:
        say(f"warning: {len(card['leaks'])} holdout items stand in the training rows: see scorecard.json")


def _repeats(card: Values, say: Callable[[str], None]) -> None:
    repeats: Sequence[Values] = card.get("repeats") or ()
    if repeats:
        first = repeats[0]
        say(
            f"warning: {len(repeats)} holdout items ask what another one asks, {first['id']} what {first['first']} "
            "does: they count twice, and the intervals are narrower than they should be"
        )
    if other := [each for each in repeats if not each["same_answer"]]:
        pair = f"{other[0]['id']} than {other[0]['first']}"
        say(f"warning: {len(other)} of them want another answer, {pair}: one is always wrong")


def _usd(system: Values) -> float | None:
    """Of 1,000 requests."""
    cost: Values = system.get("cost") or cast("Values", {})
    return cost.get("usd")


def _interval(figure: Values | None) -> str:
    return "–" if figure is None else f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _signed(d: Values) -> str:
    return f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"
