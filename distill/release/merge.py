# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# torch, transformers, peft and bitsandbytes are only partly typed.
"""An adapter becomes part of its base's weights.

Which base? An adapter trained on a 4-bit base has learnt to make up for that base's rounding: merged into the
dequantised 4-bit weights it is the student that was trained, merged into the full-precision weights it is another
one, which may score better or worse (QLoRA, https://arxiv.org/abs/2305.14314). So both are built, both are measured
against the adapter (divergence, first token) and, given a holdout, on the task; the better one is kept.

    OUT/                 the model in transformers format, with the template it was trained with
        merge.json       base, candidates, what each measured, which was kept and why, gates
        eval/            with a holdout: scorecard and predictions of the adapter and the candidates
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from distill.errors import InputError
from distill.evaluate import Holdout, Metric, Scorecard, Student, System, evaluate, parse_gate
from distill.evaluate.counting import check_metrics
from distill.evaluate.generation import adapter_folder
from distill.io import digest, loads, write_bytes
from distill.release.gates import Gated, check_values, losses
from distill.release.parity import PROBES, Distributions, Parity, adapted, compare, distributions, probes
from distill.train import student
from distill.train.bases import require_base
from distill.train.data import Conversation
from distill.train.memory import peak_memory
from distill.train.template import Encoded, use_template

__all__ = ["GATES", "MergeResult", "merge"]

GATES = ("kl <= 0.05", "top1 >= 0.95", "sure_drop <= 0.03")
"""Checked unless others are given: parity with the adapter, and the largest loss of any metric against it that the
paired 95 % interval leaves no doubt of."""

FULL, DEQUANTISED = "merged-full-precision", "merged-dequantised"


@dataclass(frozen=True)
class MergeResult:
    """What a merge left, as it stands in `merge.json`."""

    out: Path
    facts: dict[str, Any]

    @property
    def passed(self) -> bool:
        return bool(self.facts["passed"])

    def as_json(self) -> dict[str, Any]:
        return {"out": str(self.out), "model": str(self.out), "merge_json": str(self.out / "merge.json"), **self.facts}


async def merge(
    model: str,
    adapter: Path,
    out: Path,
    *,
    holdout: Holdout | None = None,
    metrics: Sequence[Metric] = (),
    gates: Sequence[str] = GATES,
    rows: Iterable[Conversation] = (),
    max_tokens: int = 128,
    batch_size: int = 32,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> MergeResult:
    """Merge `adapter` into `model` and leave the result in `out`.

    Args:
        model: the adapter's base: a folder in transformers format or a name of the catalogue.
        holdout: where given, adapter and candidates are scored on it, and the best candidate is kept.
        gates: conditions on the kept candidate: `kl`, `kl_max`, `top1`, a metric's name, and the largest loss of any
            metric against the adapter: `drop`, or `sure_drop` (the bound of its interval nearer to none).
        rows: conversations for the parity; left out: the holdout's, else a few of general talk.

    Raises:
        InputError: not a base or an adapter, they do not fit, `out` is taken, or a gate names what is not measured.
    """
    started = time.monotonic()
    place, folder = student.locate(model), adapter_folder(adapter)
    _free(out, overwrite=overwrite)
    require_base(folder, place)
    check_values(gates, _possible(metrics if holdout is not None else ()))
    if holdout is not None:
        check_metrics(metrics, holdout.items, (), None)
    student.offline()
    work = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    try:
        given = list(rows) or _conversations(holdout) or PROBES
        built = await asyncio.to_thread(_build, place, folder, work, given, progress)
        card = None
        if holdout is not None:
            limits: dict[str, Any] = {"max_tokens": max_tokens, "batch_size": batch_size, "latency_items": 0}
            systems: list[System] = [Student(model, folder, "adapter", **limits)]
            systems += [Student(str(path), None, name, **limits) for name, (path, _) in built.candidates.items()]
            card = await evaluate(
                systems,
                holdout,
                metrics,
                work / "eval",
                subject="adapter",
                progress=lambda system, done, total: progress(f"{system}: {done}/{total} answered"),
            )
        facts = _facts(built, card, gates)
        facts |= {
            "seconds": round(time.monotonic() - started, 1),
            "peak_memory_bytes": peak_memory(),
        }
        kept = built.candidates[facts["chosen"]][0]
        write_bytes(kept / "merge.json", orjson.dumps(facts, option=orjson.OPT_INDENT_2))
        if card is not None:
            shutil.move(work / "eval", kept / "eval")
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        kept.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return MergeResult(out, facts)


@dataclass(frozen=True)
class _Built:
    """Candidates on disk, by name: folder and parity with the adapter."""

    candidates: dict[str, tuple[Path, Parity]]
    base: dict[str, Any]
    probes: int


def _build(
    place: student.Place, adapter: Path, work: Path, rows: Sequence[Conversation], progress: Callable[[str], None]
) -> _Built:
    notes = _notes(adapter)
    four_bit = bool(notes.get("four_bit"))
    dtype = student.choose_dtype(notes.get("dtype", "auto"))[0]
    tokenizer = student.load_tokenizer(place.folder)
    template = use_template(tokenizer, adapter)
    examples = probes(rows, tokenizer)
    progress("measuring the adapter on its base")
    reference = _measured(lambda: adapted(place.folder, adapter, dtype=dtype, four_bit=four_bit), examples)
    stored = _stored_dtype(place.folder)
    candidates: dict[str, tuple[Path, Parity]] = {}
    for name in (FULL, DEQUANTISED) if four_bit else (FULL,):
        progress(f"building {name}")
        made = work / name
        merged = _merged(place.folder, adapter, dtype=dtype, dequantised=name == DEQUANTISED, stored=stored)
        saved = student.save(
            merged,
            tokenizer,
            made,
            base=place.name,
            template=template,
            trained={"dtype": dtype, "four_bit": False, "merged": name},
        )
        del merged
        gc.collect()
        saved.rename(work / f"{name}.model")
        shutil.rmtree(made)
        (work / f"{name}.model").rename(made)
        measured = _measured(lambda made=made: student.load_model(made, dtype=dtype).eval(), examples)
        candidates[name] = (made, compare(reference, measured))
    base = {
        "base": place.name,
        "base_digest": student.weights_digest(place.folder),
        "adapter_digest": student.weights_digest(adapter),
        "template": digest(template.encode()),
        "trained_four_bit": four_bit,
        "dtype": dtype,
        "stored": stored,
    }
    return _Built(candidates, base, len(examples))


def _measured(load: Callable[[], Any], examples: Sequence[Encoded]) -> Distributions:
    model = load()
    found = distributions(model, examples)
    del model
    gc.collect()
    return found


def _merged(base: Path, adapter: Path, *, dtype: str, dequantised: bool, stored: str) -> Any:
    """The merged model: summed in float32 and rounded once, to the type the base is stored in."""
    import torch

    model = student.load_model(base, dtype="float32")
    if dequantised:
        _take_dequantised(model, student.load_model(base, dtype=dtype, four_bit=True))
    model = student.load_adapter(model, adapter)
    model = model.merge_and_unload(safe_merge=True)
    kind = getattr(torch, stored)
    for parameter in model.parameters():  # parameters only: the rotary frequencies have to stay float32
        parameter.data = parameter.data.to(kind)
    model.config.dtype = kind
    return model


def _take_dequantised(model: Any, four_bit: Any) -> None:
    """Replace the linear weights of `model` by what `four_bit` computes with."""
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn.modules import Linear4bit

    with torch.no_grad():
        for name, module in four_bit.named_modules():
            if isinstance(module, Linear4bit):
                weight: Any = module.weight
                # As the training did: dequantised, then rounded to the type that is multiplied in.
                values = dequantize_4bit(weight.data, weight.quant_state).to(module.compute_dtype)
                model.get_submodule(name).weight.copy_(values)


def _facts(built: _Built, card: Scorecard | None, gates: Sequence[str]) -> dict[str, Any]:
    names = list(built.candidates)
    shown: dict[str, dict[str, Any]] = {}
    for name, (folder, parity) in built.candidates.items():
        bytes_ = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        shown[name] = {"bytes": bytes_, "parity": {key: _short(value) for key, value in asdict(parity).items()}}
        if card is not None:
            shown[name]["metrics"] = {metric: figure.value for metric, figure in card.systems[name].metrics.items()}

    def rank(name: str) -> tuple[Any, ...]:
        scores = list(shown[name]["metrics"].values()) if card is not None else []
        return (*(-score for score in scores), built.candidates[name][1].kl)

    chosen = min(names, key=rank)
    facts: dict[str, Any] = {**built.base, "candidates": shown, "chosen": chosen, "reason": _reason(names, shown)}
    values: dict[str, float] = {key: float(value) for key, value in asdict(built.candidates[chosen][1]).items()}
    if card is not None:
        reference = {metric: figure.value for metric, figure in card.systems["adapter"].metrics.items()}
        facts["adapter_metrics"] = reference
        facts["holdout"] = {"name": card.holdout, "digest": card.holdout_digest, "items": card.n}
        values |= shown[chosen]["metrics"]
        values |= losses(card, chosen)
    results: list[Gated] = check_values([gate for gate in gates if card is not None or not _is_drop(gate)], values)
    facts["probes"] = built.probes
    facts["gates"] = [asdict(result) for result in results]
    facts["passed"] = all(result.passed for result in results)
    facts["versions"] = {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")}
    return facts


def _reason(names: Sequence[str], shown: Mapping[str, Mapping[str, Any]]) -> str:
    if len(names) == 1:
        return "the base was not quantised in training: there is one candidate"
    if "metrics" not in shown[names[0]]:
        return "the smaller divergence from the adapter; no holdout was given"
    first, second = (shown[name]["metrics"] for name in names)
    if first == second:
        return "equal scores on the holdout; the smaller divergence from the adapter"
    metric = next(name for name in first if first[name] != second[name])
    return f"the higher {metric} on the holdout: {max(first[metric], second[metric]):.4f}"


def _possible(metrics: Sequence[Metric]) -> dict[str, float]:
    """Names that gates may use, before anything is measured."""
    names = ("kl", "kl_max", "top1", "tokens", "drop", "sure_drop", *(metric.name for metric in metrics))
    return dict.fromkeys(names, 0.0)


def _is_drop(gate: str) -> bool:
    return parse_gate(gate).metric in ("drop", "sure_drop")


def _conversations(holdout: Holdout | None) -> list[Conversation]:
    if holdout is None:
        return []
    return [
        Conversation((*item.messages, {"role": "assistant", "content": item.answer}), f"item {item.id}")
        for item in holdout.items
    ]


def _free(out: Path, *, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir() or not (out / "merge.json").is_file():
        raise InputError("exists and is not a merged model", path=out, hint="name another folder")
    if not overwrite:
        raise InputError("holds a merged model", path=out, hint="name another folder, or pass --overwrite")


def _stored_dtype(folder: Path) -> str:
    """The number type of the base's files."""
    config = loads((folder / "config.json").read_bytes())
    named = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
    return named if named in ("bfloat16", "float16", "float32") else "bfloat16"


def _notes(adapter: Path) -> dict[str, Any]:
    file = adapter / "distill.json"
    return loads(file.read_bytes()) if file.is_file() else {}


def _short(value: float) -> float:
    return float(f"{value:.4g}") if isinstance(value, float) else value
