"""What `distill train --plan` predicts against what the training then holds at its peak and takes, each in a process of
its own. Rows of two lengths made on the spot, half of each row trained; needs the embedded student
(`distill models pull smollm2-135m-instruct`). The measured peak is the process's own: libraries, weights, adapter,
optimiser, and the largest batch, which comes first. The processor's time is compared too, as it is nearly the same on a
busy machine, and whether the time on the clock lay in the interval that was told.

    --short       eleven of the 27 configurations: every adapter and method, checkpointing, packing
    --only TEXT   those whose name holds TEXT, such as `qlora` or `8 x 512`
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import distill, table

MODEL = "smollm2-135m-instruct"
STEPS = 2
"""Updates of a training. The optimiser's state exists from the second one on, so it takes two to see the peak."""


@dataclass(frozen=True)
class Configuration:
    """One training: `rows` at once of `tokens` each."""

    adapter: str
    rows: int
    tokens: int
    more: str = ""
    short: bool = False
    method: str = "sft"

    @property
    def name(self) -> str:
        method = "" if self.method == "sft" else f"{self.method}, "
        more = f", {self.more}" if self.more else ""
        return f"{method}{self.adapter}, {self.rows} x {self.tokens}{more}".replace("\n", ", ")

    @property
    def data(self) -> str:
        """The file of its rows; packed ones are the short rows."""
        kind = "pairs-" if self.method in ("dpo", "kto") else ""
        return f"{kind}{128 if self.more == PACKING else self.tokens}.jsonl"

    @property
    def settings(self) -> str:
        # Two passes an update where one is small: gradients are held while the next one's activations are.
        batch = 2 * self.rows if self.rows * self.tokens <= 512 else self.rows
        lines = [
            f"method: {self.method}",
            f"adapter: {self.adapter}",
            f"batch_size: {batch}",
            f"micro_batch_size: {self.rows}",
            self.more,
        ]
        return "\n".join([*lines, f"max_steps: {STEPS}", "learning_rate: 1.0e-4", "dtype: bfloat16"])


CHECKPOINTS = "gradient_checkpointing: true"
PACKING = "packing: bfd\nmax_length: 512"
_TEACHER = f"{{teacher: {MODEL}"
_OTHERS = [
    Configuration("lora", 4, 128, more, short=True, method=method)
    for method, more in (
        ("dpo", ""),
        ("kto", ""),
        ("distill", f"distillation: {_TEACHER}}}"),
        ("distill", f"distillation: {_TEACHER}, top_k: 64}}"),
        ("on-policy", f"distillation: {_TEACHER}, max_tokens: 64}}"),
    )
]
_SUPERVISED = [
    Configuration(
        adapter, rows, tokens, more, short=(rows, tokens) == (4, 128) or (adapter, rows * tokens) == ("lora", 4096)
    )
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
] + [Configuration("lora", 1, 512, PACKING, short=True)]
CONFIGURATIONS = [*_SUPERVISED, *_OTHERS]


def write_rows(folder: Path) -> None:
    """16 rows of about 128, and of about 512 tokens, and as many pairs of answers."""
    for tokens, asked, answered in ((128, 4, 4), (512, 18, 20)):
        lines: list[str] = []
        pairs: list[str] = []
        for number in range(16):
            question = f"message {number}: " + "my card was declined at the shop again, please help. " * asked
            answer = "we have unblocked your card, please try it once more. " * answered
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            lines.append(json.dumps({"messages": turns}) + "\n")
            both = {"prompt": question, "chosen": answer, "rejected": answer.replace("unblocked", "looked for")}
            pairs.append(json.dumps(both) + "\n")
        (folder / f"{tokens}.jsonl").write_text("".join(lines))
        (folder / f"pairs-{tokens}.jsonl").write_text("".join(pairs))


def command(configuration: Configuration, folder: Path) -> list[str]:
    """`distill train` with its settings, less what becomes of the result."""
    (folder / "settings.yaml").write_text(configuration.settings + "\n")
    return ["train", "--data", configuration.data, "--model", MODEL, "--recipe", "settings.yaml", "--json"]


def chosen() -> list[Configuration]:
    """The configurations that the options name."""
    given = argparse.ArgumentParser(prog="python -m benchmarks train_memory", allow_abbrev=False)
    given.add_argument("--short", action="store_true")
    given.add_argument("--only", default="", metavar="TEXT")
    options = given.parse_args(sys.argv[sys.argv.index("train_memory") + 1 :])
    found = [one for one in CONFIGURATIONS if options.only in one.name and (one.short or not options.short)]
    return found or sys.exit("no such configuration; there are: " + "; ".join(one.name for one in CONFIGURATIONS))


def main() -> None:
    found: list[list[object]] = []
    off: dict[str, list[float]] = {"memory": [], "processor time": []}
    inside = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_rows(folder)
        for number, configuration in enumerate(chosen()):
            common = command(configuration, folder)
            planned = distill(*common, "--plan", cwd=folder).result
            measured = distill(*common, "--out", f"out-{number}", "--quiet", cwd=folder).result
            if "peak_memory_bytes" not in planned or "peak_memory_bytes" not in measured:
                print(configuration.name, "failed: run it by hand", file=sys.stderr, flush=True)
                continue
            predicted, peak = planned["peak_memory_bytes"], measured["peak_memory_bytes"]
            off["memory"].append(predicted / peak - 1)
            sizes = [predicted / 1e9, peak / 1e9, f"{100 * off['memory'][-1]:+.1f} %"]
            taken = measured["train_seconds"]
            times: list[object] = ["-", "-", "-", "-", taken]
            if planned["seconds"] is not None:  # that of answers of the student itself is not predicted
                expected, spent, taken = (
                    planned["cpu_seconds"],
                    measured["train_cpu_seconds"],
                    measured["train_seconds"],
                )
                least, most = planned["seconds_between"]
                inside += least <= taken <= most
                off["processor time"].append(expected / spent - 1)
                times = [expected, spent, f"{100 * (expected / spent - 1):+.1f} %", f"{least:.0f} to {most:.0f}", taken]
            found.append([configuration.name, *sizes, *times])
            print(*found[-1], json.dumps(planned["parts"]), sep="; ", file=sys.stderr, flush=True)
    head = ["configuration", "predicted GB", "measured GB", "off by", "predicted CPU s", "measured CPU s", "off by"]
    table([*head, "predicted s", "measured s"], found)
    for what, values in off.items():
        if not values:
            continue
        distances = [abs(value) for value in values]
        typical, most = 100 * statistics.median(distances), 100 * max(distances)
        print(f"\nPredicted {what} is {typical:.1f} % off in the median, {most:.1f} % at most.")
    print(f"\nThe seconds lay in the predicted interval in {inside} of {len(off['processor time'])}.")
