from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.support.terminal import distill
from tests.support.workspaces import rehearsal

CANARY = "sk-canary-0b7c55e1f2"


@pytest.mark.parametrize("command", [("check",), ("preview", "-n", "1"), ("estimate", "-n", "5"), ("generate",)])
def test_a_key_in_the_recipe_stands_in_no_debug_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """Whatever a library logs of what it was given."""
    import distill.teachers.simulated as simulated

    real = simulated.SimulatedTeacher.__init__

    def talkative(self: Any, config: Any, **given: Any) -> None:
        logging.getLogger("library").debug("opening with key %s", config.api_key.get_secret_value())
        real(self, config, **given)

    monkeypatch.setattr(simulated.SimulatedTeacher, "__init__", talkative)
    recipe = rehearsal(tmp_path, teacher={"api_key": CANARY})
    name, *options = command
    said = distill("--debug", name, recipe, *options, cwd=tmp_path)
    assert "opening with key ***" in said.stderr
    assert CANARY not in said.text
