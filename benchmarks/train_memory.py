"""What `distill train --plan` predicts against what the training then holds at its peak, in a process of its own. Rows
of two lengths made on the spot; needs the embedded student (`distill models pull smollm2-135m-instruct`). The measured
peak is the process's own: libraries, weights, adapter, optimiser, and the largest batch, which comes first."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks.harness import distill, table

MODEL = "smollm2-135m-instruct"
STEPS = 3
CONFIGURATIONS = {
    "lora, 8 short rows": ("short", "adapter: lora\nbatch_size: 8\n"),
    "lora, 8 long rows": ("long", "adapter: lora\nbatch_size: 8\n"),
    "lora, 8 long rows, 2 at once": ("long", "adapter: lora\nbatch_size: 8\nmicro_batch_size: 2\n"),
    "lora, 8 long rows, checkpointing": ("long", "adapter: lora\nbatch_size: 8\ngradient_checkpointing: true\n"),
    "qlora, 8 long rows": ("long", "adapter: qlora\nbatch_size: 8\n"),
}


def rows(folder: Path) -> None:
    """48 rows of about 50, and of about 250 tokens."""
    for name, length in (("short", 1), ("long", 14)):
        lines: list[str] = []
        for number in range(48):
            question = f"message {number}: " + "my card was declined at the shop again, please help. " * length
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": '{"intent": "declined"}'}]
            lines.append(json.dumps({"messages": turns}) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(lines))


def main() -> None:
    found: list[list[object]] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows(folder)
        for number, (name, (data, settings)) in enumerate(CONFIGURATIONS.items()):
            (folder / "settings.yaml").write_text(
                f"{settings}max_steps: {STEPS}\nlearning_rate: 1.0e-4\ndtype: bfloat16\n"
            )
            common = ("train", "--data", f"{data}.jsonl", "--model", MODEL, "--recipe", "settings.yaml", "--json")
            planned = distill(*common, "--plan", cwd=folder).result
            measured = distill(*common, "--out", f"out-{number}", "--quiet", cwd=folder).result
            predicted, peak = planned["peak_memory_bytes"], measured["peak_memory_bytes"]
            seconds = (planned["seconds"], measured["train_seconds"])
            found.append([name, predicted / 1e9, peak / 1e9, f"{100 * (predicted / peak - 1):+.1f} %", *seconds])
    table(["configuration", "predicted GB", "measured GB", "off by", "predicted s", "measured s"], found)
