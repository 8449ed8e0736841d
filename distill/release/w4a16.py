"""4-bit weights by GPTQ or AWQ, made by llmcompressor in an environment of its own, and proved here.

llmcompressor pins other versions of torch and transformers than distill runs on, so it is never imported: a script of
ours (`w4a16_tool.py`) runs under the Python that the user names. The model is calibrated on training rows, never on
the holdout. The result is loaded there, answers the holdout's prompts as token ids, and is held against the model it
was made from by the same metrics and gates as every other form of it.

    OUT/                the model in compressed-tensors format, as vLLM reads it, with its tokenizer and template
        export.json     method, calibration rows, versions, what was measured, gates
        eval/           scorecard and predictions of the model and of the quantised one

GPTQ: Frantar et al. 2023 (https://arxiv.org/abs/2210.17323). AWQ: Lin et al. 2024 (https://arxiv.org/abs/2306.00978).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from distill.errors import InputError, RunError
from distill.evaluate import Generated, Holdout, Item, Metric, Student, evaluate
from distill.evaluate.counting import check_metrics
from distill.evaluate.generation import latency_of, read_answer
from distill.io import digest, loads, write_bytes, write_text
from distill.io.disk import require_folder
from distill.release.gates import check_values, losses
from distill.train import student
from distill.train.data import Conversation
from distill.train.memory import peak_memory
from distill.train.template import use_template

__all__ = ["GATES", "PYTHON", "Method", "export_w4a16", "find_python"]

Method = Literal["gptq", "awq"]

PYTHON = "DISTILL_QUANT_PYTHON"
"""The variable that names the Python of the quantisation environment."""

GATES = ("sure_drop <= 0.03",)
"""Checked unless others are given, as for every quantisation."""

_TOOL = Path(__file__).with_name("w4a16_tool.py")
_MADE_BY = "python3 -m venv quant && quant/bin/pip install torch==2.13.0 'llmcompressor==0.14.*'"
_WORDS = 600  # characters of a failing tool that are told
_ROWS = 128  # calibration rows, at most
_TOKENS = 2048  # of one row


@dataclass
class W4A16System:
    """A quantised model that answers in its own environment."""

    folder: Path
    python: Path
    reference: Student
    """The model it was made from: its template, tokenizer and number type."""
    name: str
    versions: dict[str, str]

    def about(self) -> dict[str, Any]:
        """What is scored."""
        like = self.reference.about()
        same = {key: like[key] for key in ("template", "dtype", "max_tokens", "decoding")}
        weights = student.weights_digest(self.folder)
        return {"model": self.name, "model_digest": weights, "engine": "compressed-tensors", **self.versions, **same}

    async def answer(self, items: Sequence[Item], progress: Callable[[int], None]) -> Generated:
        """Answer every item, greedily, in the batches that the reference is answered in."""
        speech = self.reference.speech()
        tokenizer = speech.encoder.tokenizer
        job = {
            "do": "answer",
            "model": str(self.folder),
            "dtype": self.reference.number_type,
            "prompts": [speech.encoder.prompt(item.messages) for item in items],
            "stops": list(speech.stops),
            "pad": tokenizer.pad_token_id,
            "max_tokens": self.reference.max_tokens,
            "batch_size": self.reference.batch_size,
            "latency_items": self.reference.latency_items,
        }
        found = await _run(self.python, job, progress)
        made = [read_answer(ids, tokenizer, speech.stops) for ids in found["answers"]]
        return Generated(
            made, found["seconds"], latency_of(found["times"], "single prompts, one after the other, whole answer")
        )


async def export_w4a16(
    method: Method,
    model: str,
    out: Path,
    *,
    rows: Sequence[Conversation],
    holdout: Holdout,
    metrics: Sequence[Metric],
    python: Path,
    gates: Sequence[str] = GATES,
    max_tokens: int = 128,
    batch_size: int = 32,
    latency_items: int = 8,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write `model` (a folder in transformers format, or a name of the catalogue) with 4-bit weights to `out`.

    Args:
        rows: training rows to calibrate on; the first 128 that are not too long are taken.
        holdout: the model and the quantised one are scored on it.
        gates: conditions on `drop`, `sure_drop`, `greedy` or a metric.
        python: of the environment that llmcompressor is installed in.

    Returns:
        Paths and figures, as they stand in `export.json`.

    Raises:
        InputError: the environment lacks a package, `out` is taken, or something cannot be measured.
        RunError: the tool failed; says its last words.
    """
    started = time.monotonic()
    place = student.locate(model)
    check_values(gates, dict.fromkeys(("greedy", "drop", "sure_drop", *(metric.name for metric in metrics)), 0.0))
    check_metrics(metrics, holdout.items, (), None)
    _free(out, overwrite=overwrite)
    limits: dict[str, Any] = {"max_tokens": max_tokens, "batch_size": batch_size, "latency_items": latency_items}
    reference = Student(model, None, "model", **limits)
    versions: dict[str, str] = await _versions(python)
    chosen = _calibration(rows, reference)
    progress(f"{method} on {len(chosen)} calibration rows, llmcompressor {versions['llmcompressor']}")
    work = _beside(out)
    shutil.rmtree(work, ignore_errors=True)
    work.parent.mkdir(parents=True, exist_ok=True)
    try:
        asked = {"model": str(place.folder), "out": str(work), "method": method, "rows": chosen, "seed": seed}
        made = await _run(python, {"do": "quantise", "dtype": reference.number_type, **asked})
        _complete(work, reference, place)
        name = f"{place.name}-{method}"
        system = W4A16System(work, python, reference, name, versions)
        card = await evaluate(
            [reference, system],
            holdout,
            metrics,
            work / "eval",
            subject="model",
            progress=lambda system, done, total: progress(f"{system}: {done}/{total} answered"),
        )
        scores = {metric: figure.value for metric, figure in card.systems[name].metrics.items()}
        values = {"greedy": _same(work / "eval" / "predictions.jsonl", name), **losses(card, name), **scores}
        results = check_values(gates, values)
        facts: dict[str, Any] = {
            "method": method,
            "bits": 4,
            **made,
            "model": place.name,
            "model_digest": student.weights_digest(place.folder),
            "bytes": sum(file.stat().st_size for file in work.glob("*.safetensors")),
            "calibration_rows": len(chosen),
            "calibration_digest": digest(chosen),
            "holdout": {"name": card.holdout, "digest": card.holdout_digest, "items": card.n},
            "model_metrics": {metric: figure.value for metric, figure in card.systems["model"].metrics.items()},
            "metrics": scores,
            **{key: round(values[key], 4) for key in ("greedy", "drop", "sure_drop")},
            "gates": [asdict(result) for result in results],
            "passed": all(result.passed for result in results),
            "seconds": round(time.monotonic() - started, 1),
            "peak_memory_bytes": peak_memory(),
        }
        write_bytes(work / "export.json", orjson.dumps(facts, option=orjson.OPT_INDENT_2))
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    paths = {"out": str(out), "model": str(out), "export_json": str(out / "export.json")}
    return {**facts, **paths, "base": place.name, "scorecard": str(out / "eval" / "scorecard.json")}


def find_python(given: Path | None) -> Path:
    """The Python of the quantisation environment: `given`, else what the variable says.

    Raises:
        InputError: neither names one.
    """
    named = given or (Path(found) if (found := os.environ.get(PYTHON)) else None)
    hint = f"make one: {_MADE_BY}; then --python quant/bin/python, or set {PYTHON}"
    if named is None:
        raise InputError("llmcompressor wants an environment of its own", field="--python", hint=hint)
    path = named.expanduser()
    path = path / "bin" / "python" if path.is_dir() else path
    if not os.access(path, os.X_OK):
        raise InputError("no such Python", path=path, field="--python", hint=hint)
    return path.absolute()  # not resolved: a link inside an environment is what makes it one


async def _versions(python: Path) -> dict[str, str]:
    try:
        return await _run(python, {"do": "versions"})
    except RunError as error:
        raise InputError(
            f"is no quantisation environment: {error.message.splitlines()[-1]}",
            path=python,
            hint=f"make one: {_MADE_BY}",
        ) from None


async def _run(python: Path, job: dict[str, Any], progress: Callable[[int], None] = lambda _: None) -> dict[str, Any]:
    """Run the tool on `job`. Cancelled, it is killed."""
    with tempfile.TemporaryDirectory(prefix="distill-quant-") as folder:
        asked, result, log = (Path(folder) / name for name in ("job.json", "result.json", "log"))
        write_bytes(asked, orjson.dumps({**job, "result": str(result)}))
        with log.open("wb") as said:
            process = await asyncio.create_subprocess_exec(
                str(python), "-I", str(_TOOL), str(asked), stdout=asyncio.subprocess.PIPE, stderr=said, cwd=folder
            )
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            async for line in process.stdout:
                if line.strip().isdigit():
                    progress(int(line))
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if code != 0 or not result.is_file():
            words = log.read_text("utf-8", "replace").strip()[-_WORDS:]
            raise RunError(f"{job['do']} in the quantisation environment ended with code {code}: {words}")
        return loads(result.read_bytes())


def _calibration(rows: Sequence[Conversation], reference: Student) -> list[list[int]]:
    """Token ids of training rows, rendered as in training."""
    encoder = reference.speech().encoder
    found = [example.input_ids for row in rows[: 4 * _ROWS] for example in encoder(row)]
    fitting = [ids for ids in found if len(ids) <= _TOKENS][:_ROWS]
    if not fitting:
        raise InputError(f"no row of at most {_TOKENS} tokens to calibrate on", field="--data")
    return fitting


def _beside(out: Path) -> Path:
    """Where the model is made; absolute, as the tool runs elsewhere."""
    return out.absolute().with_name(f".{out.name}.{os.getpid()}.tmp")


def _complete(folder: Path, reference: Student, place: student.Place) -> None:
    """Tokenizer, template and notes beside the weights, and no path of this machine."""
    tokenizer = student.load_tokenizer(place.folder)
    template = use_template(tokenizer, place.folder)
    tokenizer.save_pretrained(folder)
    write_text(folder / "chat_template.jinja", template)
    notes: dict[str, Any] = {"base": place.name, "dtype": reference.number_type, "four_bit": False}
    write_bytes(folder / "distill.json", orjson.dumps(notes, option=orjson.OPT_INDENT_2))
    student.forget_paths(folder)
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)  # the tool leaves it to its owner alone


def _same(predictions: Path, name: str) -> float:
    """Share of items with the same greedy answer."""
    from distill.io import read_jsonl

    found: dict[str, dict[str, str]] = {}
    for _, row in read_jsonl(predictions):
        found.setdefault(row["system"], {})[row["id"]] = row["prediction"]
    return sum(found[name][key] == text for key, text in found["model"].items()) / len(found["model"])


def _free(out: Path, *, overwrite: bool) -> None:
    require_folder(out)
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / "export.json").is_file():
        raise InputError("exists and is not an exported model", path=out, hint="name another folder")
    if not overwrite:
        raise InputError("holds an exported model", path=out, hint="name another folder, or pass --overwrite")
