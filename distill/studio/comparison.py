"""The part of a report that compares systems: what is kept of the teacher, what it costs, where answers are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distill.studio.html import Html, escape, table

__all__ = ["comparison"]

Values = Mapping[str, Any]


def comparison(scorecard: Values) -> list[Html]:
    """Retention and cost, what was forgotten, parity, failure classes, wrong answers side by side."""
    parts = (_kept(scorecard), _costs(scorecard), _general(scorecard), _parity(scorecard), _classes(scorecard))
    return [part for part in (*parts, *_examples(scorecard)) if part]


def _kept(scorecard: Values) -> Html:
    rows: list[list[object]] = []
    for kept in scorecard.get("retention") or ():
        bounds = "" if kept["low"] is None else f" [{kept['low']:.3f}, {kept['high']:.3f}]"
        rows.append([f"{kept['system']} / {kept['reference']}", kept["metric"], f"{kept['value']:.3f}{bounds}"])
    return table(["kept", "metric", "ratio, 95 % interval"], rows, numbers=1) if rows else Html("")


def _costs(scorecard: Values) -> Html:
    rows: list[list[object]] = []
    for name, system in scorecard["systems"].items():
        cost = system.get("cost")
        if cost and (cost["usd"] is not None or cost["seconds"] is not None):
            usd = None if cost["usd"] is None else f"${cost['usd']:.4f}"
            seconds = None if cost["seconds"] is None else f"{cost['seconds']:,.0f} s"
            rows.append([name, cost["basis"], usd, seconds])
    for ratio in scorecard.get("cost_ratios") or ():
        rows.append([f"{ratio['system']} / {ratio['reference']}", ratio["basis"], f"{ratio['value']:.3g}", None])
    return table(["1,000 requests", "by", "USD, or ratio", "seconds here"], rows, numbers=2) if rows else Html("")


def _general(scorecard: Values) -> Html:
    f = scorecard.get("forgetting")
    if not f:
        return Html("")
    rows: list[list[object]] = [
        [leaf, int(group["n"]), f"{group['before']:.3f}", f"{group['after']:.3f}"]
        for leaf, group in f["per_leaf"].items()
    ]
    rows.append(["all", f["n"], f"{f['before']:.3f}", f"{f['after']:.3f}"])
    said = f"forgotten: {f['drop']:+.3f} [{f['low']:+.3f}, {f['high']:+.3f}], p = {f['p_value']:.2g}"
    head = [f"general set {f['general']}", "items", f["base"], f["system"]]
    return Html(table(head, rows, numbers=3) + f"<p class=dim>{escape(said)}</p>")


def _parity(scorecard: Values) -> Html:
    p = scorecard.get("parity")
    if not p:
        return Html("")
    said = f"{p['system']} gives the answer measured as {p['measured']} to {p['equal']:.1%} of {p['n']} items"
    rows = [[d["metric"], f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"] for d in p["differences"]]
    return Html(f"<p>{escape(said)}</p>" + table(["metric", "now less then, 95 % interval"], rows, numbers=1))


def _classes(scorecard: Values) -> Html:
    systems: Values = scorecard["systems"]
    counts: dict[str, Mapping[str, int]] = {name: system.get("wrong") or {} for name, system in systems.items()}
    kinds = list(dict.fromkeys(kind for wrong in counts.values() for kind in wrong))
    if not kinds:
        return Html("")
    rows: list[Sequence[object]] = [
        [name, *(wrong.get(kind, 0) for kind in kinds), sum(wrong.values())] for name, wrong in counts.items()
    ]
    head = [f"wrong by {scorecard.get('wrong_by', '')}", *(kind.replace("_", " ") for kind in kinds), "all"]
    return table(head, rows, numbers=len(kinds) + 1)


def _examples(scorecard: Values) -> list[Html]:
    parts: list[Html] = []
    for example in scorecard.get("examples") or ():
        title = " · ".join(filter(None, (example["id"], example["leaf"])))
        rows: list[list[object]] = [["right", "", _text(example["answer"])]]
        for name, said in example["systems"].items():
            verdict = "right" if said["failure"] is None else f"{said['failure'].replace('_', ' ')}: {said['why']}"
            rows.append([name, verdict, _text(said["text"])])
        parts.append(Html(f"<p class=dim>{escape(title)}</p>{_text(example['question'])}"))
        parts.append(table(["system", "verdict", "answer"], rows))
    return parts


def _text(value: str) -> Html:
    return Html(f"<pre>{escape(value)}</pre>")
