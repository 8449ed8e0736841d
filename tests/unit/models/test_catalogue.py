"""The catalogue: the shipped one is whole, and a bad one is refused with the place of the fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill import models
from distill.errors import InputError

GOOD = """
models:
  tiny:
    description: A model.
    kind: gguf
    roles: [student]
    parameters: 10
    context: 128
    licence: MIT
    files:
      - {name: tiny.gguf, size: 3, sha256: %s}
    sources: {}
""" % ("a" * 64)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data" / "models.yaml"


def test_shipped_catalogue_names_what_the_quickstart_needs() -> None:
    shipped = models.catalogue()
    assert {"qwen2.5-coder-1.5b-instruct", "smollm2-135m-instruct", "all-minilm-l6-v2"} <= set(shipped)
    assert "teacher" in shipped["qwen2.5-coder-1.5b-instruct"].roles
    assert "student" in shipped["smollm2-135m-instruct"].roles
    for model in shipped.values():
        assert model.licence == "Apache-2.0"
        assert model.sources.hub is not None
        assert model.sources.index


def test_the_workspace_may_bring_its_own(workspace: Path) -> None:
    workspace.write_text(GOOD, "utf-8")
    assert list(models.catalogue()) == ["tiny"]


def test_a_typo_names_the_nearest_model() -> None:
    with pytest.raises(InputError, match="smollm2-135m-instruct"):
        models.entry("smollm-135m-instruct")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("tiny.gguf", "../../escape.gguf", "not a relative path"),
        ("tiny.gguf", "/etc/passwd", "not a relative path"),
        ("a" * 64, "abc", "models.tiny.files.0.sha256"),
        ("kind: gguf", "kind: zip", "models.tiny.kind"),
        ("  tiny:", "  ../tiny:", "lower-case letters"),
        ("    licence: MIT\n", "    licence: MIT\n    run: rm -rf /\n", "models.tiny.run"),
        ("models:", "model:", "one mapping"),
    ],
)
def test_a_bad_catalogue_is_refused(workspace: Path, old: str, new: str, said: str) -> None:
    workspace.write_text(GOOD.replace(old, new), "utf-8")
    with pytest.raises(InputError, match=said):
        models.catalogue()


def test_parts_must_add_up(workspace: Path) -> None:
    part = (
        "{package: p, version: '1', sha256: %s, member: p/part.bin, size: 2, member_sha256: %s}"  # noqa: UP031
        % ("b" * 64, "c" * 64)
    )
    workspace.write_text(GOOD.replace("sources: {}", f"sources: {{index: [{part}]}}"), "utf-8")
    with pytest.raises(InputError, match="do not add up"):
        models.catalogue()
