"""The catalogue: which models distill knows by name, where their bytes come from and what they must hash to.

It is the file `data/models.yaml` (the workspace's own, else the one that is shipped). Everything that becomes a
path is checked here, so that no catalogue can write outside the cache.
"""

from __future__ import annotations

import difflib
import functools
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from distill import assets
from distill.errors import InputError
from distill.io.yamlfile import read_yaml

__all__ = ["File", "Hub", "Model", "Part", "Sources", "catalogue", "entry"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def _relative(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in value or "\0" in value:
        raise ValueError(f"not a relative path inside a folder: {value!r}")
    return value


RelativePath = Annotated[str, AfterValidator(_relative)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Requirement = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class File(_Entry):
    """One file of a model as it lies in the cache."""

    name: RelativePath
    size: int = Field(ge=1)
    """Bytes."""
    sha256: Sha256


class Hub(_Entry):
    """Where the files stand on the model hub, under the same names."""

    repository: str = Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")
    revision: str = Field(pattern=r"^[A-Za-z0-9._-]+$")


class Part(_Entry):
    """A wheel of the package index, and what is taken out of it: one `member`, or every file under `folder`."""

    package: Requirement
    version: Requirement
    sha256: Sha256
    """Of the wheel."""
    member: RelativePath | None = None
    size: int | None = Field(None, ge=1)
    """Bytes of the member."""
    member_sha256: Sha256 | None = None
    folder: RelativePath | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Part:
        if (self.member is None) == (self.folder is None):
            raise ValueError("member: give it or `folder`, not both")
        if self.member is not None and (self.size is None or self.member_sha256 is None):
            raise ValueError("member: needs `size` and `member_sha256`")
        return self


class Sources(_Entry):
    hub: Hub | None = None
    index: tuple[Part, ...] = ()
    """Joined in this order."""


class Model(_Entry):
    """One model of the catalogue."""

    description: str
    kind: Literal["gguf", "folder"]
    roles: tuple[Literal["teacher", "student", "embedding"], ...]
    parameters: int = Field(ge=1)
    context: int = Field(ge=1)
    """Tokens."""
    licence: str
    publisher: str = ""
    note: str = ""
    files: tuple[File, ...] = Field(min_length=1)
    sources: Sources

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @model_validator(mode="after")
    def _parts_fit(self) -> Model:
        if self.kind == "gguf" and len(self.files) != 1:
            raise ValueError("files: a gguf model is one file")
        joined = [part.size for part in self.sources.index if part.size is not None]
        if joined and (self.kind != "gguf" or sum(joined) != self.files[0].size):
            raise ValueError("sources.index: the members do not add up to the file's size")
        return self


@dataclass(frozen=True, slots=True)
class _Read:
    path: Path
    changed: int


def catalogue() -> dict[str, Model]:
    """Name -> model, in the file's order.

    Raises:
        InputError: `data/models.yaml` is not a catalogue; names the field.
    """
    path = assets.find("data", "models.yaml")
    return dict(_load(_Read(path, path.stat().st_mtime_ns)))


def entry(name: str) -> Model:
    """The model called `name`.

    Raises:
        InputError: there is none; names the nearest.
    """
    models = catalogue()
    if name not in models:
        close = difflib.get_close_matches(name, models, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else "`distill models list` shows the names"
        raise InputError(f"no such model: {name}", hint=hint)
    return models[name]


@functools.lru_cache(maxsize=4)
def _load(read: _Read) -> dict[str, Model]:
    value, lines = read_yaml(read.path)
    if not isinstance(value, dict) or set(value) != {"models"} or not isinstance(value["models"], dict):  # pyright: ignore[reportUnknownArgumentType]
        raise InputError("should hold one mapping, `models`", path=read.path)
    models: dict[str, Model] = {}
    for name, body in value["models"].items():  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InputError("a name is lower-case letters, digits, dot, dash", path=read.path, field=f"models.{name}")
        try:
            models[name] = Model.model_validate(body)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(["models", name, *(str(part) for part in first["loc"])])
            message = first["msg"].removeprefix("Value error, ")
            line = lines.get(("models", name))
            raise InputError(message, path=read.path, line=line, field=field) from None
    return models
