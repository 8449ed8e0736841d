from __future__ import annotations

from pathlib import Path

from distill.cli import app
from distill.cli.reference import cli_markdown


def test_docs_say_what_the_commands_say(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    page = Path("docs/cli.md").read_text("utf-8")
    assert page == cli_markdown(), "run `make docs`"
    for command in app.registered_commands:
        assert f"## `distill {command.name}`" in page
    assert "## `distill models pull`" in page
