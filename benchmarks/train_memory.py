"""What `distill train --plan` predicts against what the training then holds at its peak and takes, each in a process of
its own. Rows of two lengths made on the spot, half of each row trained; needs the embedded student
(`distill models pull smollm2-135m-instruct`). The measured peak is the process's own: libraries, weights, adapter,
optimiser, and the largest batch, which comes first. Both times are of this machine as busy as it is."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import distill, table

MODEL = "smollm2-135m-instruct"
STEPS = 2  # the optimiser's state exists from the second update on


@dataclass(frozen=True)
class Configuration:
    """One training: `rows` at once of `tokens` each."""

    adapter: str
    rows: int
    tokens: int
    more: str = ""

    @property
    def name(self) -> str:
        return f"{self.adapter}, {self.rows} x {self.tokens}{', ' if self.more else ''}{self.more}"

    @property
    def settings(self) -> str:
        # Two passes an update where one is small: gradients are held while the next one's activations are.
        batch = {1: 2, 4: 8}.get(self.rows, self.rows)
        lines = [f"adapter: {self.adapter}", f"batch_size: {batch}", f"micro_batch_size: {self.rows}", self.more]
        return "\n".join([*lines, f"max_steps: {STEPS}", "learning_rate: 1.0e-4", "dtype: bfloat16"])


CHECKPOINTS = "gradient_checkpointing: true"
CONFIGURATIONS = [
    Configuration(adapter, rows, tokens, more)
    for adapter in ("lora", "qlora", "full")
    for rows, tokens, more in (
        (1, 128, ""),
        (4, 128, ""),
        (8, 128, ""),
        (1, 512, ""),
        (4, 512, ""),
        (8, 512, ""),
        (8, 512, CHECKPOINTS),
    )
] + [Configuration("lora", 1, 512, "packing: bfd\nmax_length: 512")]


def write_rows(folder: Path) -> None:
    """16 rows of about 128, and of about 512 tokens; packed ones are the short rows."""
    for tokens, asked, answered in ((128, 4, 4), (512, 18, 20)):
        lines: list[str] = []
        for number in range(16):
            question = f"message {number}: " + "my card was declined at the shop again, please help. " * asked
            answer = "we have unblocked your card, please try it once more. " * answered
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            lines.append(json.dumps({"messages": turns}) + "\n")
        (folder / f"{tokens}.jsonl").write_text("".join(lines))


def command(configuration: Configuration, folder: Path) -> list[str]:
    """`distill train` with its settings, less what becomes of the result."""
    (folder / "settings.yaml").write_text(configuration.settings + "\n")
    tokens = 128 if "packing" in configuration.more else configuration.tokens
    return ["train", "--data", f"{tokens}.jsonl", "--model", MODEL, "--recipe", "settings.yaml", "--json"]


def main() -> None:
    found: list[list[object]] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_rows(folder)
        for number, configuration in enumerate(CONFIGURATIONS):
            common = command(configuration, folder)
            planned = distill(*common, "--plan", cwd=folder).result
            measured = distill(*common, "--out", f"out-{number}", "--quiet", cwd=folder).result
            predicted, peak = planned["peak_memory_bytes"], measured["peak_memory_bytes"]
            seconds = (planned["seconds"], measured["train_seconds"])
            name = configuration.name.replace("\n", ", ")
            found.append([name, predicted / 1e9, peak / 1e9, f"{100 * (predicted / peak - 1):+.1f} %", *seconds])
    table(["configuration", "predicted GB", "measured GB", "off by", "predicted s", "measured s"], found)
