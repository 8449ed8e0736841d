"""Every step of the road on every third item of one holdout: the base, the student after SFT, after DPO on pairs that
`preference` made, its merge, and the merge as GGUF files that llama.cpp runs. Needs a finished `distill run support` in
this checkout, whose adapter it starts from; the pairs are generated first (`recipes/support-preference.yaml`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, distill, table

METRICS = ("json_valid", "macro_f1:field=intent", "exact_match")
STUDENT = "smollm2-135m-instruct"


def main() -> None:
    run = max((path for path in (ROOT / "runs").glob("support-[0-9]*")), key=lambda path: path.stat().st_mtime)
    work = run / "road"
    holdout = str(work / "holdout.jsonl")
    lines = (ROOT / "data/support/holdout.jsonl").read_text().splitlines(keepends=True)
    work.mkdir(exist_ok=True)
    Path(holdout).write_text("".join(lines[::3]))
    scoring = [argument for metric in METRICS for argument in ("--metric", metric)]
    scoring += ["--schema", str(ROOT / "prompts/support/answer.schema.json"), "--max-tokens", "36"]
    rows: list[list[object]] = []

    def add(step: str, metrics: dict[str, object], note: str = "") -> None:
        values = [metrics[name] for name in METRICS]
        rows.append([step, *(value["value"] if isinstance(value, dict) else value for value in values), note])

    sft = next(path.parent for path in (run / "train").glob("*/adapter") if not path.parent.name.startswith("seed-"))

    scored = _scored(sft, work / "eval-sft", holdout, scoring, "--base")
    add("base", scored["base"]["metrics"])
    add("SFT", scored["student"]["metrics"])
    pairs = distill("generate", "support-preference", "--json", "--quiet", cwd=ROOT)
    chosen = Path(pairs.result["run"]) / "dataset" / "train.jsonl"
    count = sum(1 for _ in chosen.open())
    out = work / "dpo"
    arguments = ["--data", str(chosen), "--model", STUDENT, "--method", "dpo", "--adapter", str(sft)]
    trained = distill("train", *arguments, "--out", str(out), "--seed", "7", "--json", "--quiet", cwd=ROOT)
    scored = _scored(out, work / "eval-dpo", holdout, scoring)
    add("DPO", scored["student"]["metrics"], f"{count} pairs, {trained.result['steps']} updates")

    for name, adapter in (("SFT", sft), ("DPO", out)):
        merged = work / f"merged-{name.lower()}"
        arguments = ["--model", STUDENT, "--adapter", str(adapter), "--out", str(merged), "--holdout", holdout]
        made = distill("merge", *arguments, *scoring, "--overwrite", "--json", "--quiet", cwd=ROOT)
        kept = made.result["candidates"][made.result["chosen"]]
        parity = kept["parity"]
        note = f"KL {parity['kl']:.2g}, top-1 {parity['top1']:.3f}" + ("" if made.code == 0 else "; a gate failed")
        add(f"{name}, merged", kept["metrics"], note)
        files = work / f"gguf-{name.lower()}"
        arguments = ["--model", str(merged), "--out", str(files), "--holdout", holdout]
        for quant in ("q8_0", "q4_k_m"):
            arguments += ["--quant", quant]
        exported = distill("export", "gguf", *arguments, *scoring, "--json", "--quiet", cwd=ROOT)
        for file in exported.result["files"]:
            note = f"{file['bytes'] / 1e6:.0f} MB" + ("" if file["passed"] else "; a gate failed")
            add(f"{name}, {file['quant']}", file["metrics"], note)
    table(["step", *METRICS, ""], rows)


def _scored(adapter: Path, out: Path, holdout: str, scoring: list[str], *more: str) -> dict[str, Any]:
    arguments = ["--model", STUDENT, "--adapter", str(adapter), "--holdout", holdout, *scoring, *more]
    return distill("eval", *arguments, "--out", str(out), "--json", "--quiet", cwd=ROOT).result["systems"]
