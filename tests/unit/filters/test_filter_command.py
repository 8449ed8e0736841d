from __future__ import annotations

import json

import typer
from typer.testing import CliRunner

from distill.cli.filter import filter_
from distill.errors import InputError

app = typer.Typer()
app.command()(filter_)


def test_json_is_alone_on_stdout_and_the_table_on_stderr(tmp_path):
    source = tmp_path / "rows.csv"
    source.write_text("text\nWhere is my card?\nwhere is my card\nSomething else [bold]here[/bold]\n")
    chain = tmp_path / "chain.yaml"
    chain.write_text("- kind: exact\n- {kind: decontaminate, against: [{path: eval.jsonl, field: q, name: gold}]}\n")
    (tmp_path / "eval.jsonl").write_text('{"q": "something else bold here bold"}\n')
    arguments = [str(source), "--chain", str(chain), "--out", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert (report["in"], report["kept"], report["invalid"]) == (3, report["in"] - report["rejected_total"], 0)
    assert report["rejected"]["exact"] == {"duplicate": 1}
    assert "duplicate" in result.stderr
    assert (tmp_path / "out" / "kept.parquet").is_file()


def test_what_is_wrong_is_raised_for_the_command_line_to_print(tmp_path):
    arguments = [str(tmp_path / "no.jsonl"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, InputError)
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    result = CliRunner().invoke(app, [str(tmp_path / "a.jsonl"), "--chain", "defualt", "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, InputError)
    assert "default" in str(result.exception)


def test_a_folder_is_not_called_missing(tmp_path):
    result = CliRunner().invoke(app, [str(tmp_path), "--out", str(tmp_path / "out")])
    assert "is a folder" in str(result.exception)
