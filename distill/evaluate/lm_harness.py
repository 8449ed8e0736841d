"""A holdout as a task of lm-evaluation-harness, so that another program can count the same thing.

    OUT/NAME.jsonl   `prompt`, the text that the student is shown, as its chat template renders it; `target`
    OUT/NAME.yaml    the task: greedy, ended where the student's answers end, exact match of the text without
                     surrounding space
    OUT/README.md    the command that runs it

The prompt is the one of training and evaluation, so the harness must not apply a template of its own. What it counts
is our `exact_match:as=text`: it knows nothing of JSON.
(https://github.com/EleutherAI/lm-evaluation-harness, checked against 0.4.13.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distill.errors import InputError
from distill.evaluate.generation import Student
from distill.evaluate.holdout import Item
from distill.io import write_jsonl, write_text

__all__ = ["Task", "write_task"]


@dataclass(frozen=True, slots=True)
class Task:
    """What was written."""

    name: str
    folder: Path
    command: tuple[str, ...]
    """What runs it, in an environment that has `lm-eval[hf]`."""


def write_task(student: Student, items: Sequence[Item], out: Path, *, name: str = "holdout") -> Task:
    """Write the task for `student`.

    Args:
        name: of the task: letters, digits and underscores.

    Raises:
        InputError: the name is none that the harness takes, or a prompt could not be given back exactly.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise InputError(f"not a task's name: {name!r}", hint="lower-case letters, digits and underscores")
    speech = student.speech()
    rows = out.resolve() / f"{name}.jsonl"
    write_jsonl(
        rows,
        ({"id": item.id, "prompt": speech.prompt(item.messages), "target": item.answer.strip()} for item in items),
    )
    task: dict[str, Any] = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "target",
        "target_delimiter": "",
        "num_fewshot": 0,
        "generation_kwargs": {
            "until": list(speech.endings),
            "max_gen_toks": student.max_tokens,
            "do_sample": False,
            "repetition_penalty": 1.0,  # many models' own settings have another
        },
        "filter_list": [
            {
                "name": "without_space",
                "filter": [
                    {"function": "regex", "regex_pattern": r"(?s)\A\s*(.*?)\s*\Z", "group_select": 0, "fallback": ""},
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }
    file = out / f"{name}.yaml"
    write_text(file, yaml.safe_dump(task, sort_keys=False, allow_unicode=True, width=1000))
    command = _command(student, name, out)
    write_text(out / "README.md", _readme(name, command))
    return Task(name, out, command)


def _command(student: Student, name: str, out: Path) -> tuple[str, ...]:
    settings = {
        "pretrained": str(student.folder),
        "dtype": student.number_type,
        **({"peft": str(student.adapter_place)} if student.adapter_place is not None else {}),
        "add_bos_token": "False",
    }
    arguments = ",".join(f"{key}={value}" for key, value in settings.items())
    return (
        *("lm_eval", "run", "--model", "hf", "--model_args", arguments),
        *("--tasks", name, "--include_path", str(out.resolve()), "--batch_size", str(student.batch_size)),
        *("--output_path", str(out.resolve() / "results")),
    )


def _readme(name: str, command: Sequence[str]) -> str:
    return f"""# {name}

The holdout as a task of lm-evaluation-harness. In an environment that has `lm-eval[hf]`:

```
HF_HUB_OFFLINE=1 {" ".join(command)}
```

The prompts are rendered already: no `--apply_chat_template`. The figure is `exact_match` with the filter
`without_space`; ours is `distill eval --metric exact_match:as=text`. Equal weights, number type and length limit give
equal figures; in bfloat16 single answers may still differ with the composition of a batch.
"""
