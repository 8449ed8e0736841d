from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from distill.cli import app
from distill.cli.reference import cli_markdown


def test_docs_say_what_the_commands_say(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    page = Path("docs/cli.md").read_text("utf-8")
    assert page == cli_markdown(), "run `make docs`"
    for command in app.registered_commands:
        assert f"## `distill {command.name}`" in page
    assert "## `distill models pull`" in page


def test_every_command_can_answer_a_program() -> None:
    silent = [name for name, command in _commands(get_command(app), "distill") if "--json" not in _options(command)]
    assert silent == []


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", {})
    if not below:
        yield name, command
    for part, inner in below.items():
        yield from _commands(inner, f"{name} {part}")


def _options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}
