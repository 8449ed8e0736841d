"""`distill filter` at size: memory by rows, several processes, and a run that is killed and goes on.

The corpus is that of filters-dedup with an answer in JSON and an address to mask in some rows. Every run is the command
line in a process of its own. `held` is what filters remember of the rows they kept: what grows with the rows. `same`
compares the bytes of kept.parquet and rejected.parquet with those of the first run. CPU seconds hold those of all
processes; a wall clock says something on a machine that does nothing else.

    python -m benchmarks filters-scale             memory at 100,000 and 1,000,000 rows, the rest at 100,000
    SCALE_ROWS=20000,100000 SCALE_MANY=20000 …     other sizes
    SCALE_WORKERS=1,2,4 SCALE_RAY=1 …              other numbers of processes; the Ray engine beside them
    SCALE_CHAINS=default,heavy SCALE_PARTS=workers one part of it: memory, workers or killed; some of the chains
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from benchmarks.filters.corpus import generate
from benchmarks.harness import Measured, distill, table

_DEDUP = "- kind: exact\n- kind: minhash\n"
_DEFAULT = """\
- kind: truncation
- kind: refusal
- kind: exact
- kind: minhash
- {kind: decontaminate, fields: [prompt], against: [{path: eval.jsonl, field: q}]}
"""  # the shipped one, with an eval set
_HEAVY = """\
- {kind: schema, fields: [response], schema: schema.json}
- {kind: language, fields: [prompt], languages: [en], min_score: 1}
- kind: pii
"""  # looks at each row by itself; what language pseudo-words are is not asked
_WHOLE = """\
- kind: truncation
- kind: refusal
- {kind: repetition, fields: [prompt]}
- kind: exact
- kind: minhash
- {kind: decontaminate, fields: [prompt], against: [{path: eval.jsonl, field: q}]}
- kind: pii
"""
_CHAINS = {"dedup": _DEDUP, "default": _DEFAULT, "heavy": _HEAVY, "whole": _WHOLE}
_SCHEMA = {"type": "object", "required": ["answer", "n"], "properties": {"answer": {"type": "string"}}}
_PROJECTED = 10_000_000


def main() -> None:
    sizes = [int(size) for size in os.environ.get("SCALE_ROWS", "100000,1000000").split(",")]
    many = int(os.environ.get("SCALE_MANY", "100000"))
    parts = os.environ.get("SCALE_PARTS", "memory,workers,killed").split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for chain, steps in _CHAINS.items():
            (folder / f"{chain}.yaml").write_text(steps)
        (folder / "schema.json").write_bytes(orjson.dumps(_SCHEMA))
        if "memory" in parts:
            _memory(folder, sizes)
        rows = folder / "rows.jsonl"
        if {"workers", "killed"} & set(parts):
            _write(rows, many)
        if "workers" in parts:
            _workers(folder, rows)
        if "killed" in parts:
            _killed(folder, rows)


def _memory(folder: Path, sizes: list[int]) -> None:
    out: list[list[object]] = []
    peaks: list[float] = []
    for size in sizes:
        rows = folder / f"{size}.jsonl"
        _write(rows, size)
        run = _filter(folder, rows, "dedup.yaml", "--workers", "1")
        peaks.append(run.peak_mb)
        held, kept = run.result["remembered_mb"], run.result["kept"]
        each = ", ".join(f"{name} {size} ({size * (1 << 20) / kept:.0f} bytes a row)" for name, size in held.items())
        out.append([size, run.cpu, round(size / run.cpu), round(run.peak_mb), kept, each])
        rows.unlink()
    table(["rows", "CPU s", "rows/CPU-s", "peak MiB", "kept", "held, MiB"], out)
    if len(sizes) > 1:
        each = (peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0])
        projected = peaks[-1] + each * (_PROJECTED - sizes[-1])
        print(
            f"\n{each * (1 << 20):.0f} bytes a row of the input; projected to {_PROJECTED:,} rows: "
            f"{projected / 1024:.1f} GiB\n"
        )


def _workers(folder: Path, rows: Path) -> None:
    out: list[list[object]] = []
    engines = [("--workers", count) for count in os.environ.get("SCALE_WORKERS", "1,2,8").split(",")]
    engines += [("--engine", "ray")] if os.environ.get("SCALE_RAY") else []
    for chain in os.environ.get("SCALE_CHAINS", "default,heavy,whole").split(","):
        first = ""
        for option, value in engines:
            run = _filter(folder, rows, f"{chain}.yaml", option, value)
            made = _digest(folder)
            first = first or made
            peaks = [round(run.result[name]) if name in run.result else 0 for name in ("peak_mb", "worker_peak_mb")]
            cpu = run.result["cpu_seconds"]  # the workers are not children of the process that was started
            out.append([chain, f"{option} {value}", run.wall, cpu, *peaks, made == first])
    table(["chain", "", "wall s", "CPU s", "peak MiB", "of a worker", "same"], out)
    print()


def _killed(folder: Path, rows: Path) -> None:
    """Killed when half of the time of an uninterrupted run has passed, then called again."""
    whole = _filter(folder, rows, "whole.yaml", "--workers", "1")
    expected = _digest(folder)
    process = subprocess.Popen(_command(folder, rows, "whole.yaml", "--workers", "1"), stderr=subprocess.DEVNULL)
    time.sleep(whole.wall / 2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = _filter(folder, rows, "whole.yaml", "--workers", "1", keep=True)
    noted = [note for note in again.result["notes"] if "goes on" in note]
    print(f"uninterrupted {whole.cpu:.1f} CPU s; killed half way, the second run {again.cpu:.1f} CPU s", end="; ")
    print(f"same: {_digest(folder) == expected}; {noted}\n")


def _write(path: Path, rows: int) -> None:
    items: list[str] = []
    with path.open("wb") as file:
        for part in generate(rows):
            for place, text in enumerate(part.texts):
                number = part.first + place
                answer = "Done." if number % 3 else f"Done, {number}: write to ann{number}@example.org."
                response = orjson.dumps({"answer": answer, "n": number}).decode()
                file.write(orjson.dumps({"prompt": text, "response": response, "n": number}) + b"\n")
                if len(items) < 1000:
                    items.append(text[::-1])
    (path.parent / "eval.jsonl").write_bytes(b"".join(orjson.dumps({"q": item}) + b"\n" for item in items))


def _command(folder: Path, rows: Path, chain: str, *options: str) -> list[str]:
    arguments = ["filter", str(rows), "--chain", str(folder / chain), "--out", str(folder / "out"), *options, "--json"]
    return [sys.executable, "-m", "distill", *arguments]


def _filter(folder: Path, rows: Path, chain: str, *options: str, keep: bool = False) -> Measured:
    if not keep:
        subprocess.run(["rm", "-rf", str(folder / "out")], check=True)
    run = distill(*_command(folder, rows, chain, *options)[3:], cwd=folder)
    assert run.code == 0, run
    return run


def _digest(folder: Path) -> str:
    files = (folder / "out" / "kept.parquet", folder / "out" / "rejected.parquet")
    return hashlib.blake2b(b"".join(file.read_bytes() for file in files)).hexdigest()
