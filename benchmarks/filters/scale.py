"""`distill filter` at size: memory by rows, several processes, and a run that is killed and goes on.

The corpus is that of filters-dedup with an answer and an address to mask in some rows. Every run is the command line in
a process of its own. `same` compares the bytes of kept.parquet and rejected.parquet with those of the first run.

    python -m benchmarks filters-scale             memory at 100,000 and 1,000,000 rows, the rest at 100,000
    SCALE_ROWS=20000,100000 SCALE_MANY=20000 …     other sizes
    SCALE_WORKERS=1,2,4 SCALE_RAY=1 …              other numbers of processes; the Ray engine beside them
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
_WHOLE = """\
- kind: truncation
- kind: refusal
- {kind: repetition, fields: [prompt]}
- kind: exact
- kind: minhash
- {kind: decontaminate, fields: [prompt], against: [{path: eval.jsonl, field: q}]}
- kind: pii
"""
_PROJECTED = 10_000_000


def main() -> None:
    sizes = [int(size) for size in os.environ.get("SCALE_ROWS", "100000,1000000").split(",")]
    many = int(os.environ.get("SCALE_MANY", "100000"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "dedup.yaml").write_text(_DEDUP)
        (folder / "whole.yaml").write_text(_WHOLE)
        _memory(folder, sizes)
        rows = folder / "rows.jsonl"
        _write(rows, many)
        _workers(folder, rows)
        _killed(folder, rows)


def _memory(folder: Path, sizes: list[int]) -> None:
    out: list[list[object]] = []
    peaks: list[float] = []
    for size in sizes:
        rows = folder / f"{size}.jsonl"
        _write(rows, size)
        run = _filter(folder, rows, "dedup.yaml", "--workers", "1")
        peaks.append(run.peak_mb)
        out.append([size, run.cpu, round(size / run.cpu), round(run.peak_mb), run.result["kept"]])
        rows.unlink()
    table(["rows", "CPU s", "rows/CPU-s", "peak MB", "kept"], out)
    if len(sizes) > 1:
        each = (peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0])
        projected = peaks[-1] + each * (_PROJECTED - sizes[-1])
        print(f"\n{each * 1e6:.0f} bytes a row; projected to {_PROJECTED:,} rows: {projected / 1e3:.1f} GB\n")


def _workers(folder: Path, rows: Path) -> None:
    out: list[list[object]] = []
    first = ""
    engines = [("--workers", count) for count in os.environ.get("SCALE_WORKERS", "1,2,8").split(",")]
    engines += [("--engine", "ray")] if os.environ.get("SCALE_RAY") else []
    for option, value in engines:
        run = _filter(folder, rows, "whole.yaml", option, value)
        made = _digest(folder)
        first = first or made
        most = run.result.get("worker_peak_mb", 0.0)
        out.append([f"{option} {value}", run.wall, run.cpu, round(run.result["peak_mb"]), round(most), made == first])
    table(["", "wall s", "CPU s", "peak MB", "peak MB of a worker", "same"], out)
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
                response = "Done." if number % 3 else f"Done, {number}: write to ann{number}@example.org."
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
