"""GGUF files of one model: each quantisation written, run in llama.cpp, and what was found kept beside the file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from distill.errors import InputError
from distill.evaluate import Holdout, Metric
from distill.evaluate.counting import check_metrics
from distill.io import write_bytes
from distill.io.disk import require_folder
from distill.release.export import QUANTISATIONS, Exported, Quantisation, write_gguf
from distill.release.gates import check_values
from distill.release.proof import FIGURES, Proof, prove
from distill.train import locate
from distill.train.memory import peak_memory

__all__ = ["Files", "export_gguf"]


@dataclass(frozen=True)
class Files:
    """What was written, and what each file showed."""

    out: Path
    proofs: tuple[dict[str, Any], ...]
    """One a file; also in `FILE.gguf.json`."""
    scorecard: Path | None
    passed: bool | None
    """Whether every gate holds; None where nothing was run."""
    seconds: float

    @property
    def gates(self) -> list[dict[str, Any]]:
        """Every gate of every file, its name after the quantisation's."""
        return [{**gate, "gate": f"{p['quant']}: {gate['gate']}"} for p in self.proofs for gate in p["gates"]]

    def as_json(self) -> dict[str, Any]:
        """Paths and figures."""
        return {
            "out": str(self.out),
            **({"file": self.proofs[0]["file"]} if len(self.proofs) == 1 else {}),
            "files": list(self.proofs),
            "scorecard": str(self.scorecard) if self.scorecard is not None else None,
            "passed": self.passed,
            "seconds": round(self.seconds, 1),
            "peak_memory_bytes": peak_memory(),
        }


async def export_gguf(
    model: str,
    out: Path,
    quants: Sequence[str] = ("q8_0",),
    *,
    holdout: Holdout | None = None,
    metrics: Sequence[Metric] = (),
    gates: Sequence[str] | None = None,
    run: bool = True,
    max_tokens: int = 128,
    batch_size: int = 32,
    latency_items: int = 8,
    progress: Callable[[str], None] = lambda _: None,
) -> Files:
    """Write `model` (a folder in transformers format, or a name of the catalogue) in each of `quants`.

    Args:
        out: the file; for several quantisations, a folder.
        holdout: the model and every file are scored on it.
        gates: conditions on each file; left out: `proof.default_gates`.
        run: False writes the files and proves nothing of them.

    Raises:
        InputError: no such quantisation, a gate on what is not measured, or the model cannot be exported.
        RunError: llama.cpp refuses a file, or dies of it.
    """
    started = time.monotonic()
    wanted = _known(quants)
    measured = [name for name in FIGURES if holdout is not None or "drop" not in name]
    measured += [metric.name for metric in metrics if holdout is not None]
    check_values(gates or (), dict.fromkeys(measured, 0.0))
    if holdout is not None:
        check_metrics(metrics, holdout.items, (), None)
    if not run and (holdout is not None or gates):
        raise InputError("asks for figures that only a run gives", field="--no-check", hint="leave out one of them")
    name = locate(model).name
    several = len(wanted) > 1
    require_folder(out if several else out.parent)
    exported: list[Exported] = []
    for quant in wanted:
        exported.append(write_gguf(model, _file(out, name, quant, several=several), quant))
        progress(f"{exported[-1].file}: {exported[-1].bytes / 1e6:,.0f} MB")
    scored = out / "eval" if several else out.with_name(f"{out.name}.eval")
    proofs: list[dict[str, Any]]
    if run:
        limits = {"max_tokens": max_tokens, "batch_size": batch_size, "latency_items": latency_items}
        found, _ = await prove(
            model, exported, scored, holdout=holdout, metrics=metrics, gates=gates, progress=progress, **limits
        )
        proofs = [proof.as_json() for proof in found]
    else:
        proofs = [{**Proof(each, {}, [], {}, None).as_json(), "passed": None} for each in exported]
    for proof in proofs:
        _record(Path(proof["file"]), proof, name, holdout)
    return Files(
        out,
        tuple(proofs),
        scored / "scorecard.json" if holdout is not None else None,
        all(proof["passed"] for proof in proofs) if run else None,
        time.monotonic() - started,
    )


def _known(quants: Sequence[str]) -> list[Quantisation]:
    asked = [name.lower() for name in quants]  # llama.cpp writes Q4_K_M
    for name in asked:
        if name not in QUANTISATIONS:
            hint = f"there are: {', '.join(QUANTISATIONS)}"
            raise InputError(f"no such quantisation: {name}", field="--quant", hint=hint)
    return [each for each in QUANTISATIONS if each in asked]


def _file(out: Path, name: str, quant: str, *, several: bool) -> Path:
    if several:
        if out.suffix == ".gguf":
            raise InputError("several quantisations need a folder", field="--out")
        return out / f"{name}-{quant}.gguf"
    if out.suffix != ".gguf" or out.is_dir():
        raise InputError("should be a file that ends with .gguf", field="--out")
    return out


def _record(file: Path, proof: dict[str, Any], model: str, holdout: Holdout | None) -> None:
    """What was found, beside the file; it may be handed on with it, so it names no local path."""
    about = {"name": holdout.name, "digest": holdout.digest, "items": len(holdout.items)} if holdout else None
    facts = {**proof, "file": file.name, "model": model, "holdout": about}
    write_bytes(file.with_name(f"{file.name}.json"), orjson.dumps(facts, option=orjson.OPT_INDENT_2))
