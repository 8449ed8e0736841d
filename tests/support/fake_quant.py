"""A stand-in for the Python of the quantisation environment: same call, same files, and weights that are only copied,
or ruined where `FAKE_QUANT_RUINS` is set. Answers come from the real tool, in this environment."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any


def quantise(job: dict[str, Any]) -> dict[str, Any]:
    out = Path(job["out"])
    out.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(Path(job["model"]) / name, out / name)
    config = json.loads((out / "config.json").read_bytes())
    (out / "config.json").write_text(json.dumps({**config, "_name_or_path": job["model"]}))
    if os.environ.get("FAKE_QUANT_RUINS"):
        from safetensors.torch import load_file, save_file

        tensors = load_file(out / "model.safetensors")
        save_file({n: -t for n, t in tensors.items()}, out / "model.safetensors", metadata={"format": "pt"})
    return {"group_size": 64, "rows": len(job["rows"])}


def main() -> None:
    _, tool, file = sys.argv[1:]
    job = json.loads(Path(file).read_bytes())
    if job["do"] == "versions":
        found: dict[str, Any] = {"llmcompressor": "0", "torch": "0"}
    elif job["do"] == "quantise":
        found = quantise(job)
    else:
        found = runpy.run_path(tool)["answer"](job)
    Path(job["result"]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
