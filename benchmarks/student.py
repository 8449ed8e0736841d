"""The student of `recipes/support.yaml` with three seeds on the dataset of its run, each scored on the hand-written
holdout: what one seed shows, and how far seeds lie apart. Needs a finished `distill run support` in this checkout: its
own seed is the first of the three, and base and teacher stand in its scorecard."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, distill, table

SEEDS = (1, 2)
METRICS = ("json_valid", "macro_f1:field=intent", "exact_match")


def main() -> None:
    run = max((path for path in (ROOT / "runs").glob("support-*")), key=lambda path: path.stat().st_mtime)
    holdout = ROOT / "data/support/holdout.jsonl"
    metrics = [argument for metric in METRICS for argument in ("--metric", metric)]
    schema = ("--schema", str(ROOT / "prompts/support/answer.schema.json"), "--max-tokens", "36")
    own = json.loads((run / "eval" / "scorecard.json").read_text())["systems"]
    scores: dict[str, list[dict[str, float]]] = {name: [_figures(system)] for name, system in own.items()}
    rows: list[list[object]] = [["the run's own", "", *scores["student"][0].values()]]
    for seed in SEEDS:
        out = run / "train" / f"seed-{seed}"
        trained = distill(
            "train", "support", "--run", run.name, "--seed", str(seed), "--out", str(out), "--json", "--quiet", cwd=ROOT
        )
        arguments = ["--model", "smollm2-135m-instruct", "--adapter", str(out), "--holdout", str(holdout), "--json"]
        scored = distill("eval", *arguments, *metrics, *schema, "--out", str(out / "eval"), "--quiet", cwd=ROOT)
        scores["student"].append(_figures(scored.result["systems"]["student"]))
        rows.append([seed, trained.result["train_seconds"], *scores["student"][-1].values()])
    table(["seed", "train s", *METRICS], rows)
    print()
    summary: list[list[object]] = [["base", *scores["base"][0].values()]]
    for name, figure in (("mean of 3", statistics.mean), ("standard deviation", statistics.stdev)):
        spread = [figure(score[metric] for score in scores["student"]) for metric in scores["student"][0]]
        summary.append([f"student, {name}", *spread])
    if "teacher" in scores:
        summary.append(["teacher, zero-shot", *scores["teacher"][0].values()])
    table(["system", *METRICS], summary)
    Path(run / "train" / "seeds.json").write_text(json.dumps(scores, indent=2))


def _figures(system: dict[str, Any]) -> dict[str, float]:
    return {metric: value["value"] for metric, value in system["metrics"].items() if metric in METRICS}
