"""Two processes of one training, as `accelerate launch` starts them, on a CPU (gloo): the updates of one process.

With whole copies of the weights (DDP), and with each process holding half of them (FSDP).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import distill
from tests.support.tiny_student import make_model, make_tokenizer

pytestmark = pytest.mark.heavy

ROOT = Path(distill.__file__).parent.parent
LAUNCH = ROOT / "distill" / "train" / "launch" / "ddp.yaml"
SEVERAL = ["accelerate.commands.launch", "--config_file", str(LAUNCH), "--num_processes", "2", "-m"]
SHARED = ROOT / "tests" / "support" / "fsdp_cpu.py"
SETTINGS = "batch_size: 4\nmax_steps: 6\nlearning_rate: 5.0e-3\ndtype: float32\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    make_tokenizer(make_model(folder / "student"))
    rows: list[dict[str, Any]] = []
    for number in range(16):
        word = ("lost", "stolen", "blocked")[number % 3]
        question = {"role": "user", "content": f"my card was {word}, please help {number} " * (1 + number % 3)}
        rows.append({"messages": [question, {"role": "assistant", "content": json.dumps({"intent": word})}]})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "watched.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:5]))
    (folder / "plain.yaml").write_text(SETTINGS)
    (folder / "all.yaml").write_text(f"{SETTINGS}adapter: full\n")
    (folder / "packed.yaml").write_text(f"{SETTINGS}packing: bfd\nmax_length: 160\n")
    (folder / "odd.yaml").write_text("batch_size: 3\nmax_steps: 1\n")
    return folder


def run(
    folder: Path, settings: str, out: str, *launcher: str, code: int = 0, **environment: str
) -> tuple[dict[str, Any], str]:
    arguments = ["train", "--data", "train.jsonl", "--validation", "watched.jsonl", "--model", "student", "--json"]
    program = launcher if launcher[-1:] == (str(SHARED),) else ("-m", *launcher, "distill")
    done = subprocess.run(
        [sys.executable, *program, *arguments, "--recipe", f"{settings}.yaml", "--out", out],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "DISTILL_CACHE": str(folder / "cache"), **environment},
    )
    assert (done.returncode == 0) == (code == 0), done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == (1 if code == 0 else len(lines))  # one process speaks
    return (json.loads(lines[-1]) if lines else {}), done.stderr


def losses(folder: Path, out: str) -> list[float]:
    return [point["loss"] for point in json.loads((folder / out / "train.json").read_bytes())["losses"]]


@pytest.mark.parametrize("settings", ["plain", "packed"])
def test_two_processes_make_the_updates_of_one(folder: Path, settings: str) -> None:
    alone = f"alone-{settings}"
    if not (folder / alone).is_dir():
        run(folder, settings, alone)
    out = f"several-{settings}"
    found, _ = run(folder, settings, out, *SEVERAL)
    assert found["processes"] == 2
    assert found["micro_batch_reason"] is None  # two rows each, and that is not for want of memory
    assert losses(folder, out) == pytest.approx(losses(folder, alone), rel=2e-3)
    one = json.loads((folder / alone / "train.json").read_bytes())
    assert (found["tokens"], found["trained_tokens"]) == (one["tokens"], one["trained_tokens"])
    # A mean over batches, and the batches are smaller.
    assert found["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-2)
    assert len((folder / out / "log.jsonl").read_bytes().splitlines()) == len(
        (folder / alone / "log.jsonl").read_bytes().splitlines()
    )
    weights = sorted(str(path.relative_to(folder / out)) for path in (folder / out).rglob("*") if path.is_file())
    assert weights == sorted(
        str(path.relative_to(folder / alone)) for path in (folder / alone).rglob("*") if path.is_file()
    )
    assert_alike(folder / alone, folder / out)


@pytest.mark.parametrize("settings", ["plain", "all"])
def test_processes_that_share_the_weights_make_the_updates_of_one(folder: Path, settings: str) -> None:
    from distill.io.yamlfile import read_yaml

    value, _ = read_yaml(LAUNCH.with_name("fsdp.yaml"))
    assert isinstance(value, dict)
    recipe: dict[str, Any] = value["fsdp_config"]
    told = {name.upper(): str(chosen) for name, chosen in recipe.items()}
    alone = f"alone-{settings}"
    if not (folder / alone).is_dir():
        run(folder, settings, alone)
    out = f"shared-{settings}"
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29617", str(SHARED)]
    found, _ = run(
        folder,
        settings,
        out,
        *launcher,
        ACCELERATE_USE_FSDP="true",
        ACCELERATE_MIXED_PRECISION="no",
        ACCELERATE_USE_CPU="true",
        PYTHONPATH=str(ROOT),
        **told,
    )
    assert found["processes"] == 2
    assert losses(folder, out) == pytest.approx(losses(folder, alone), rel=2e-3)
    assert_alike(folder / alone, folder / out)


def assert_alike(one: Path, other: Path) -> None:
    from safetensors.torch import load_file

    (file,) = (path.relative_to(one) for path in one.rglob("*.safetensors"))
    first, second = load_file(one / file), load_file(other / file)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert (tensor.float() - second[name].float()).abs().max() < 0.02, name


def test_rows_that_cannot_be_shared_are_refused(folder: Path) -> None:
    _, said = run(folder, "odd", "odd", *SEVERAL, code=2)
    assert "3 rows per update cannot be shared by 2 processes" in said
