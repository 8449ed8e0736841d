"""Files that start other engines on a release: vLLM, Ollama, llama.cpp. All listen on loopback until told otherwise."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from distill.io import loads, write_text
from distill.release.ollama import read_pieces
from distill.release.record import Release

__all__ = ["write_serve_files"]

_PLAINLY = """--override-generation-config '{"temperature": 0, "repetition_penalty": 1}'"""
"""As it was scored, where a request says nothing else: greedily, without the penalty of many bases' settings."""


def write_serve_files(release: Release, folder: Path, tokenizer: Any) -> list[str]:
    """Write what fits the release into `folder/serve/`; returns the names. Paths in them are relative to `folder`.

    Args:
        tokenizer: with the chat template of the release.
    """
    serve = folder / "serve"
    if release.kind == "gguf":
        write_text(serve / "llama-server.sh", _llama(release))
        written = ["serve/llama-server.sh"]
        modelfile = _modelfile(release, tokenizer)
        if modelfile is not None:
            write_text(serve / "Modelfile", modelfile)
            written.append("serve/Modelfile")
        return written
    write_text(serve / "vllm.sh", _vllm(release, folder))
    return ["serve/vllm.sh"]


def _vllm(release: Release, folder: Path) -> str:
    template = f"{release.weights}/chat_template.jinja"
    name = shlex.quote(release.name)
    if release.kind == "model":
        return _script(
            f"vllm serve ./{release.weights} --served-model-name {name} --chat-template ./{template} \\\n"
            f"  {_PLAINLY} --host 127.0.0.1 --port 8000"
        )
    rank = int(loads((folder / release.weights / "adapter_config.json").read_bytes())["r"])
    # vLLM knows these ranks only; a larger one than the adapter's costs a little memory.
    most = next((known for known in (8, 16, 32, 64, 128, 256, 512) if known >= rank), rank)
    note = ""
    if release.four_bit:
        note = (
            "# The adapter was trained on a 4-bit base (NF4): vLLM quantises the base in the same format here.\n"
            "# Without --quantization it answers on the full-precision base, which is not what was measured.\n"
        )
    quantise = " --quantization bitsandbytes" if release.four_bit else ""
    return _script(
        f'vllm serve "${{BASE:?the folder or hub name of {release.base}}}"{quantise} \\\n'
        f"  --enable-lora --max-lora-rank {most} --lora-modules {name}=./{release.weights} \\\n"
        f"  --chat-template ./{template} {_PLAINLY} \\\n"
        "  --host 127.0.0.1 --port 8000",
        note,
    )


def _llama(release: Release) -> str:
    return _script(
        f"llama-server --model ./{release.weights} --alias {shlex.quote(release.name)} --jinja --temp 0 \\\n"
        "  --host 127.0.0.1 --port 8080"
    )


def _modelfile(release: Release, tokenizer: Any) -> str | None:
    """None where the chat template is more than text around turns: a wrong template is worse than none."""
    pieces = read_pieces(tokenizer)
    if pieces is None:
        return None
    template = pieces.go(without=tokenizer.bos_token if _adds_bos(tokenizer) else "")
    stop = tokenizer.eos_token
    return (
        f"# ollama create {release.name} -f Modelfile\n"
        f"FROM ../{release.weights}\n"
        f'TEMPLATE """{template}"""\n'
        + (f'PARAMETER stop "{stop}"\n' if stop else "")
        + "PARAMETER temperature 0\nPARAMETER repeat_penalty 1\n"  # its own default is a penalty
    )


def _adds_bos(tokenizer: Any) -> bool:
    """Ollama puts BOS before a prompt where the file asks for it: the template must not write it once more."""
    from distill.release.vocabulary import adds_bos

    return adds_bos(tokenizer)


def _script(command: str, note: str = "") -> str:
    return f'#!/bin/sh\n{note}cd "$(dirname "$0")/.." || exit 1\nexec {command} "$@"\n'
