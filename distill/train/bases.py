"""Which base an adapter belongs to, and where on this machine that base lies.

What leaves this machine must not name its folders, so an adapter names its base and the digest of its weights only
(`distill.json`). Where weights of a digest were last seen is kept in the user's cache:

    <cache>/bases.json      {digest: folder}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson

from distill.errors import DistillError, InputError
from distill.io import loads, write_bytes
from distill.train.student import Place, locate, weights_digest

__all__ = ["Start", "remember", "require_base", "start_from"]


@dataclass(frozen=True)
class Start:
    """An adapter that training goes on from, and its base."""

    adapter: Path
    base: Place
    dtype: str
    four_bit: bool


def remember(base: Place, digest: str) -> None:
    """Keep where the weights of `digest` lie. A cache that cannot be written is no reason to fail."""
    from distill.models import cache_root

    file = cache_root() / "bases.json"
    known = _known(file)
    if known.get(digest) != str(base.folder):
        here = {key: folder for key, folder in known.items() if Path(folder).is_dir()}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(file, orjson.dumps({**here, digest: str(base.folder)}))
        except OSError:
            return


def start_from(adapter: Path, model: str | None = None) -> Start:
    """The adapter in `adapter` (or `adapter/adapter`) and its base: `model`, else the one it was trained on.

    Raises:
        InputError: no adapter, its base is not found, or `model` is another base.
    """
    from distill.models import cache_root

    places = [place for place in (adapter, adapter / "adapter") if (place / "adapter_config.json").is_file()]
    if not places or not (places[0] / "adapter_model.safetensors").is_file():
        raise InputError("not an adapter: no adapter_config.json and adapter_model.safetensors", path=adapter)
    folder = places[0]
    notes = _notes(folder)
    wanted = notes.get("base_digest")
    name = str(notes.get("base") or loads((folder / "adapter_config.json").read_bytes())["base_model_name_or_path"])
    base = locate(model) if model is not None else _find(name, wanted, _known(cache_root() / "bases.json"))
    require_base(folder, base)
    return Start(folder, base, str(notes.get("dtype", "auto")), bool(notes.get("four_bit")))


def require_base(adapter: Path, base: Place) -> None:
    """Make sure that `base` is what the adapter in the folder `adapter` was trained on, where that is written down.

    Raises:
        InputError: it has other weights. Where the shapes fit, nothing else would tell.
    """
    notes = _notes(adapter)
    wanted = notes.get("base_digest")
    if wanted is not None and weights_digest(base.folder) != wanted:
        raise InputError(
            f"the adapter was trained on other weights than those of {base.name}",
            path=adapter,
            hint=f"pass its base, {notes.get('base') or 'the model it was trained on'}, as --model",
        )


def _find(name: str, digest: str | None, known: dict[str, str]) -> Place:
    for candidate in (known.get(digest or ""), name):
        try:
            if candidate:
                place = locate(candidate)
                return Place(place.folder, name)
        except DistillError:
            continue
    raise InputError(f"the adapter's base {name} is not known on this machine", hint="pass its folder as --model")


def _known(file: Path) -> dict[str, str]:
    try:
        value = loads(file.read_bytes())
    except (OSError, DistillError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {str(key): str(folder) for key, folder in cast("dict[Any, Any]", value).items()}


def _notes(folder: Path) -> dict[str, Any]:
    file = folder / "distill.json"
    return loads(file.read_bytes()) if file.is_file() else {}
