"""How a system is named on the command line and in a recipe: `NAME=WHAT`, or `WHAT` alone.

smollm2-135m-instruct          a model of the catalogue
FOLDER                         a model's folder, an adapter's, or the output of a training or a merge
FILE.gguf[#MODEL]              a GGUF file in llama.cpp; MODEL gives tokenizer and template, if the file beside it
                               (`FILE.gguf.json`) does not say which
FOLDER#MODEL                   an adapter over another place of its base
run:ID[/STUDENT]               the student of a run, by path or name
release:NAME[@VERSION]         a release of the workspace
http://HOST/v1#MODEL           a model behind an OpenAI-compatible endpoint
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distill.errors import InputError

__all__ = ["SystemSpec", "parse_system"]

_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][\w.@ -]*)=(?P<what>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SystemSpec:
    """A system that is to be scored."""

    name: str
    kind: Literal["weights", "run", "release", "endpoint"]
    what: str
    """Model, folder, file, run, release, or address."""
    model: str | None = None
    """What stood behind `#`: the endpoint's model, or the base."""


def parse_system(text: str) -> SystemSpec:
    """Read one system.

    Raises:
        InputError: nothing stands behind the name, or an endpoint without its model.
    """
    match = _NAMED.fullmatch(text)
    # A path may hold an equals sign; a name holds no slash.
    name, what = (match["name"].strip(), match["what"].strip()) if match else ("", text.strip())
    if not what:
        raise InputError(f"names no system: {text!r}", hint="write NAME=WHAT, such as before=smollm2-135m-instruct")
    if re.match(r"https?://", what):
        url, _, model = what.partition("#")
        if not model:
            raise InputError(f"which model of {url}?", hint=f"write {url}#MODEL")
        return SystemSpec(name or model, "endpoint", url, model)
    for kind in ("run", "release"):
        if what.startswith(f"{kind}:"):
            target, _, model = what.removeprefix(f"{kind}:").partition("#")
            return SystemSpec(name or Path(target).name, kind, target, model or None)
    place, _, model = what.partition("#")
    return SystemSpec(name or Path(place).name, "weights", place, model or None)
