"""The student of `recipes/support.yaml` trained with three seeds on the dataset of its run, each scored on the
hand-written holdout beside the untrained base: what one seed shows, and how far seeds lie apart. Needs a finished
`distill generate support` in this checkout; the teacher's zero-shot score stands in the run's own scorecard."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from benchmarks.harness import ROOT, distill, table

SEEDS = (1, 2, 3)
METRICS = ("json_valid", "macro_f1:field=intent", "exact_match")


def main() -> None:
    run = max((path for path in (ROOT / "runs").glob("support-*")), key=lambda path: path.stat().st_mtime)
    holdout = ROOT / "data/support/holdout.jsonl"
    metrics = [argument for metric in METRICS for argument in ("--metric", metric)]
    schema = ("--schema", str(ROOT / "prompts/support/answer.schema.json"), "--max-tokens", "48")
    scores: dict[str, list[dict[str, float]]] = {"base": [], "student": []}
    rows: list[list[object]] = []
    for seed in SEEDS:
        out = run / "train" / f"seed-{seed}"
        trained = distill(
            "train", "support", "--run", run.name, "--seed", str(seed), "--out", str(out), "--json", "--quiet", cwd=ROOT
        )
        arguments = ["--model", "smollm2-135m-instruct", "--adapter", str(out), "--holdout", str(holdout), "--json"]
        if seed == SEEDS[0]:
            arguments.append("--base")
        scored = distill("eval", *arguments, *metrics, *schema, "--out", str(out / "eval"), "--quiet", cwd=ROOT)
        for name, system in scored.result["systems"].items():
            figures = {metric: value["value"] for metric, value in system["metrics"].items()}
            scores["base" if name == "base" else "student"].append(figures)
        rows.append([seed, trained.result["train_seconds"], *scores["student"][-1].values()])
    table(["seed", "train s", *METRICS], rows)
    print()
    summary: list[list[object]] = [["base", *scores["base"][0].values()]]
    names = list(scores["student"][0])
    means = [statistics.mean(score[name] for score in scores["student"]) for name in names]
    spread = [statistics.stdev(score[name] for score in scores["student"]) for name in names]
    summary.append(["student, mean of 3", *means])
    summary.append(["student, standard deviation", *spread])
    table(["system", *METRICS], summary)
    Path(run / "train" / "seeds.json").write_text(json.dumps(scores, indent=2))
