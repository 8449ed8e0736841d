"""What a user does at the command line, and the mistakes a user makes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.support.terminal import distill
from tests.support.workspaces import TAXONOMY, rehearsal

CANARY = "sk-canary-4f9d2c71"
HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\x9b31m[bold red]x[/] :smile: \u202eabc"
    "</pre><script>alert(1)</script><img src=http://evil.test/x onerror=alert(2)>"
)


def state_of(run: Path) -> str:
    return json.loads((run / "run.json").read_text())["state"]


def adds_up(told: dict[str, Any]) -> bool:
    rejected = sum(sum(reasons.values()) for reasons in told["rejected"].values())
    return told["planned"] == told["kept"] + rejected + sum(told["failed"].values()) + told["pending"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        server: Any = self.server
        server.asked += 1
        if server.status == 200:
            turn = {"role": "assistant", "content": server.text, "reasoning_content": server.text}
            value: dict[str, Any] = {
                "id": "x",
                "object": "chat.completion",
                "model": "mock",
                "choices": [{"index": 0, "finish_reason": "stop", "message": turn}],
                "usage": server.usage,
            }
        else:
            value = {"error": {"message": server.text, "type": "invalid_request_error"}}
        body = json.dumps(value).encode()
        self.send_response(server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 256


@pytest.fixture
def teacher() -> Iterator[Any]:
    """A server that answers every question with `text`, or with `status` and `text` for an error message."""
    server: Any = _Server(("127.0.0.1", 0), _Handler)
    server.text, server.status, server.asked = "All good.", 200, 0
    server.usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    server.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def served_by(server: Any, **fields: Any) -> dict[str, Any]:
    return {
        "provider": "openai",
        "base_url": server.base_url,
        "model": "mock",
        "simulate": {},
        "price": {"input": 0.15, "output": 0.60},
        **fields,
    }


# -- a workspace -----------------------------------------------------------------------------------------------------


def test_a_new_workspace_works_at_once(tmp_path: Path) -> None:
    made = distill("init", "my work", cwd=tmp_path)
    assert "cd 'my work' && distill check support" in made.stdout
    folder = tmp_path / "my work"
    for name in ("reasoning", "preference"):
        assert distill("check", name, cwd=folder).stdout.splitlines()[-1] == "ready"
        told = distill("generate", name, "--json", cwd=folder).json
        assert told["state"] == "complete"
        assert told["kept"] == yaml.safe_load((folder / f"recipes/{name}.yaml").read_text())["plan"]["target"]
        assert told["simulated"]
        assert adds_up(told)
        assert told["dataset"]["format"] == name
        assert "SIMULATED" in (Path(told["run"]) / "dataset/README.md").read_text()
        assert "Simulated" in (Path(told["run"]) / "report.html").read_text()
    reasoned = pq.read_table(folder / "runs/reasoning-1/rows.parquet")
    assert all(reasoned["reasoning"].to_pylist())
    assert all(float(answer) is not None for answer in reasoned["answer"].to_pylist())
    pairs = pq.read_table(folder / "runs/preference-1/rows.parquet").to_pylist()
    assert all(row["chosen"] != row["rejected"] for row in pairs)

    (folder / "recipes/reasoning.yaml").write_text("mine")
    again = distill("init", "my work", "--json", cwd=tmp_path).json
    assert again == {"workspace": "my work", "written": []}
    assert (folder / "recipes/reasoning.yaml").read_text() == "mine"


@pytest.mark.parametrize("recipe", sorted(Path("recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_recipe_needs_nothing_but_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Path
) -> None:
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "empty"))
    findings = distill("check", recipe.stem, "--json", cwd=Path.cwd(), code=None).json["findings"]
    errors = [finding["detail"] for finding in findings if finding["level"] == "error"]
    assert all("distill models pull" in error for error in errors)


# -- the recipe that harnesses use -----------------------------------------------------------------------------------

PROBE = """\
# probe.yaml
name: probe
seed: 7
teachers:
  main:
    provider: openai                      # or anthropic | local | simulated
    base_url: http://127.0.0.1:9911/v1
    model: mock
    api_key: ${TEACHER_KEY}
    max_concurrency: 256
    limits: {requests_per_minute: 600, tokens_per_minute: 200000}   # optional
    price: {input: 0.15, output: 0.60}    # USD per million tokens; optional when the model is known
    sampling: {temperature: 0.8, max_tokens: 64}
plan:
  taxonomy: taxonomies/probe.yaml
  target: 2000                            # accepted rows
method: {kind: response, teacher: main, prompt: prompts/probe.j2}   # the rendered prompt is the user turn
filters: []                               # a list of steps, or the name of a chain
budget: {usd: 5}
"""


def test_the_contract_recipe_works_as_written(tmp_path: Path, teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", CANARY)
    rehearsal(tmp_path)  # for its taxonomy and prompt
    assert (tmp_path / "taxonomies/probe.yaml").read_text() == TAXONOMY
    recipe = PROBE.replace("9911", str(teacher.server_port)).replace("target: 2000", "target: 8")
    (tmp_path / "probe.yaml").write_text(recipe)
    done = distill("generate", "probe.yaml", "--json", "--run", "out", cwd=tmp_path)
    told = done.json
    assert len(done.stdout.splitlines()) == 1
    names = {"run", "planned", "kept", "rejected", "failed", "cost_usd", "seconds", "resumed_answers"}
    assert names <= set(told)
    assert (told["planned"], told["kept"], told["rejected"], told["failed"]) == (8, 8, {}, {})
    assert told["cost_usd"] == pytest.approx(8 * (9 * 0.15 + 9 * 0.60) / 1e6)
    assert (tmp_path / told["run"]).samefile(tmp_path / "out")
    again = distill("generate", "probe.yaml", "--json", "--run", "out", cwd=tmp_path).json
    assert again["already_complete"]
    assert teacher.asked == 8
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file


# -- taxonomies and plans --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("taxonomy", "plan", "leaves"),
    [
        ("topics: {Bücher: {}, 銀行: {topics: {口座: {}, हिन्दी: {}}}}", {"target": 8}, 3),
        ("topics: {only: {}}", {"target": 5}, 1),
        ("topics: {a: {topics: {b: {topics: {c: {}, d: {}}}}}, e: }", {"target": 8}, 3),
        ("topics: {a: {}, b: {}, c: {}, d: {}}", {"target": 3}, 3),
        ("topics: {a: {}, b: {}, c: {}, d: {}}", {"target": 1}, 1),
        ("topics: {a: {}, b: {}}", {"target": 7, "balance": "none"}, 2),
        (
            "topics: {a: {}, b: {}}\n"
            "adversarial: {share: 0.5, typo: {}, nothing: {standalone: true}, two: {pair: true}}",
            {"target": 24},
            3,
        ),
    ],
    ids=["unicode", "one leaf", "three levels", "more leaves than rows", "one row", "no balance", "adversarial"],
)
def test_odd_plans_are_filled(tmp_path: Path, taxonomy: str, plan: dict[str, Any], leaves: int) -> None:
    recipe = rehearsal(tmp_path, plan={"taxonomy": "taxonomies/odd.yaml", **plan})
    (tmp_path / "taxonomies/odd.yaml").write_text(f"name: odd\n{taxonomy}\n", "utf-8")
    (tmp_path / "prompts/probe.j2").write_text('{{ leaf | join("/") }} {{ slot.index }}')
    told = distill("generate", recipe, "--json", cwd=tmp_path).json
    rows = pq.read_table(Path(told["run"]) / "rows.parquet").to_pylist()
    assert len(rows) == told["kept"] == plan["target"]
    assert adds_up(told)
    assert len({tuple(row["leaf"]) for row in rows}) == leaves
    assert all(row["messages"][0]["content"].startswith("/".join(row["leaf"])) for row in rows)


def test_leaves_that_stop_yielding_are_named_and_cost_little(tmp_path: Path) -> None:
    recipe = rehearsal(
        tmp_path,
        filters=[{"kind": "length", "min_words": 5000}],
        plan={
            "taxonomy": "taxonomies/probe.yaml",
            "target": 60,
            "max_rounds": 1000,
        },
    )
    done = distill("generate", recipe, "--json", cwd=tmp_path, code=3)
    told = done.json
    assert told["state"] == "short"
    assert told["kept"] == 0
    assert told["short"] == {"cards/declined": 20, "cards/lost": 20, "loans/early_repayment": 10, "loans/rate": 10}
    assert "cards/declined" in told["reason"]
    assert "short of 20: cards/lost" in done.stderr
    assert adds_up(told)
    assert told["requests"] <= 60 * 9


def test_one_dry_leaf_does_not_keep_the_others_from_their_quota(tmp_path: Path, teacher: Any) -> None:
    # The teacher always says the same, so each leaf keeps one row at most where rows must differ by their answers.
    recipe = rehearsal(
        tmp_path,
        teacher=served_by(teacher),
        plan={"taxonomy": "taxonomies/probe.yaml", "target": 8},
        filters=[{"kind": "exact", "fields": ["response"]}],
    )
    told = distill("generate", recipe, "--json", cwd=tmp_path, code=3).json
    assert told["kept"] == 1
    assert told["rejected"]["exact"]["duplicate"] == told["planned"] - 1
    assert teacher.asked < 500


# -- mistakes in files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"methods": {}}, "probe.yaml:21: methods: no such field; did you mean method?"),
        ({"teachers": {"main": {"provider": "opnai", "model": "x"}}}, "did you mean openai?"),
        (
            {"teachers": {"main": {"provider": "simulated", "model": "x", "sampling": {"temprature": 1}}}},
            "teachers.main.sampling.temprature: no such field; did you mean temperature?",
        ),
        ({"plan": {"taxonomy": "taxonomies/probe.yaml", "target": "many"}}, "plan.target: should be a valid integer"),
        ({"plan": {"taxonomy": "taxonomies/prob.yaml", "target": 2}}, "did you mean probe.yaml"),
        ({"plan": {"taxonomy": "taxonomies", "target": 2}}, "no such file in taxonomies: taxonomies"),
        ({"method": {"kind": "responce"}}, "method: no such kind: 'responce'; did you mean response?"),
        ({"method": {"kind": "response", "teacher": "mein", "prompt": "p"}}, "did you mean main?"),
        ({"filters": [{"kind": "minhsh"}]}, "filters.0: no such kind: 'minhsh'; did you mean minhash?"),
        ({"filters": [{"kind": "minhash", "treshold": 1}]}, "filters.0.treshold: no such field"),
        ({"filters": ["minhash"]}, "filters.0: should be a mapping"),
        ({"filters": "strct"}, "did you mean strict.yaml"),
        ({"budget": {"usd": "5 USD"}}, "budget.usd: should be a valid decimal"),
        ({"name": "../x"}, "name: not usable as a folder name"),
        ({"description": "${HOME}"}, "${…} stands only in api_key"),
        ({"dataset": {"format": "preference"}}, "dataset.format: the method response makes no pairs"),
        (
            {"evaluate": {"holdout": "h.jsonl", "metrics": ["exact_match"], "gates": ["exact_match >= 2"]}},
            "gate 'exact_match >= 2' can never hold",
        ),
        (
            {"evaluate": {"holdout": "h.jsonl", "metrics": ["exact_mtch"]}},
            "no such metric: exact_mtch",
        ),
        (
            {"evaluate": {"holdout": "h.jsonl", "metrics": ["exact_match"], "gates": ["macro_f1 >= 0.5"]}},
            "gate 'macro_f1 >= 0.5': no such metric",
        ),
        ({"train": {"model": "smollm2"}}, "did you mean smollm2-135m-instruct?"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_check_names_what_is_wrong(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    recipe = rehearsal(tmp_path, **change)
    (tmp_path / "h.jsonl").write_text('{"messages": [{"role": "user", "content": "q"}], "answer": "a"}\n')
    done = distill("check", recipe.name, cwd=tmp_path, code=2)
    assert said in done.text
    assert "Traceback" not in done.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"- a\n", "should be a mapping of: name"),
        (b"a: [1\nb: }", "not valid YAML"),
        (b"a:\n\tb: 1", "broken.yaml:2: not valid YAML"),
        ("name: café".encode("latin-1"), "not UTF-8"),
        ("name: x".encode("utf-16"), "not UTF-8"),
        (b'name: "a\x00b"', "not valid YAML"),
        (b"name: a\nname: b\n", "broken.yaml:2: name: the key stands twice"),
        (b"name: !!python/object/apply:os.system [echo]", "not valid YAML"),
        (b"[" * 5000, "not valid YAML"),
    ],
    ids=["empty", "list", "torn", "tab", "latin-1", "utf-16", "nul", "twice", "tag", "deep"],
)
def test_a_file_that_is_no_recipe_is_said_to_be_none(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "broken.yaml").write_bytes(content)
    for command in ("check", "generate", "preview"):
        assert said in distill(command, "broken.yaml", cwd=tmp_path, code=2).stderr


def test_windows_files_are_read(tmp_path: Path) -> None:
    recipe = rehearsal(tmp_path)
    recipe.write_bytes(b"\xef\xbb\xbf" + recipe.read_bytes().replace(b"\n", b"\r\n"))
    assert distill("check", recipe, cwd=tmp_path).stdout.endswith("ready\n")


def test_missing_things_are_named(tmp_path: Path) -> None:
    recipe = rehearsal(tmp_path)
    assert "no such file in recipes: nope.yaml" in distill("check", "nope.yaml", cwd=tmp_path, code=2).stderr
    assert "is a folder" in distill("check", "taxonomies", cwd=tmp_path, code=2).stderr
    (tmp_path / "prompts/probe.j2").write_text("{{ leaf | join }} {{ tonne }}")
    assert "no such variable: tonne" in distill("check", recipe, cwd=tmp_path, code=2).text
    (tmp_path / "prompts/probe.j2").write_text(" \n")
    assert "renders to nothing" in distill("generate", recipe, cwd=tmp_path, code=2).stderr
    (tmp_path / "taxonomies/probe.yaml").write_text("name: probe\ntopics: {}\n")
    assert "topics: should hold at least one" in distill("check", recipe, cwd=tmp_path, code=2).text
    (tmp_path / "taxonomies/probe.yaml").write_text("name: probe\ntopics: {1: {}, a: {}}\n")
    said = distill("check", recipe, cwd=tmp_path, code=2).text
    assert "topics.1: the name should be text, not 1; write it in quotes" in said


def test_check_finds_what_generate_would_refuse(tmp_path: Path) -> None:
    bad = {
        "base_url": ("http://me:pass-word-1234@127.0.0.1:9/v1", "base_url: holds a user name or password"),
        "api_key": ("no such\nkey", "api_key: the key is empty, or holds characters that no key has"),
        "headers": ({"X Y": "z"}, "headers.X Y: not fit for an HTTP header"),
    }
    for field, (value, words) in bad.items():
        teacher = {"provider": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m", "simulate": {}}
        recipe = rehearsal(tmp_path, teacher={**teacher, "price": {"input": 1, "output": 1}, field: value})
        for command in ("check", "generate"):
            said = distill(command, recipe, cwd=tmp_path, code=2).text
            assert f"teachers.main.{words}" in " ".join(said.split())
            assert "pass-word" not in said
    plan = {"taxonomy": "taxonomies/probe.yaml", "target": 8, "adversarial_share": 0.3}
    recipe = rehearsal(tmp_path, plan=plan)
    assert distill("check", recipe, cwd=tmp_path, code=2).text.count("names no adversarial kind") == 1


def test_a_key_in_the_recipe_is_advised_against_and_shown_nowhere(tmp_path: Path, teacher: Any) -> None:
    recipe = rehearsal(tmp_path, teacher=served_by(teacher, api_key=CANARY))
    checked = distill("check", recipe, cwd=tmp_path)
    assert "api_key stands in the recipe: write ${NAME}" in checked.stdout
    outputs = [checked.text, distill("--debug", "generate", recipe, "--json", cwd=tmp_path).text]
    teacher.status, teacher.text = 401, f"Incorrect API key provided: {CANARY}"
    outputs.append(distill("generate", recipe, "--new", cwd=tmp_path, code=None).text)
    (tmp_path / "prompts/probe.j2").write_text("Another {{ slot.index }}")
    outputs.append(distill("generate", recipe, "--json", cwd=tmp_path, code=1).text)
    assert not [text for text in outputs if CANARY in text]
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file != recipe]
    assert not [file for file in written if CANARY.encode() in file.read_bytes()]


# -- paths -----------------------------------------------------------------------------------------------------------


def test_paths_start_where_the_user_expects_them_to(tmp_path: Path) -> None:
    recipe = rehearsal(tmp_path / "a b" / "work", file="my probe.yaml")
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    told = distill("generate", "../a b/work/my probe.yaml", "--json", cwd=elsewhere).json
    assert Path(told["run"]) == recipe.parent / "runs/probe-1"
    assert not list(elsewhere.iterdir())
    done = distill("generate", "../a b/work/my probe.yaml", "--run", "out [x] :smile: [bold", cwd=elsewhere)
    run = elsewhere / "out [x] :smile: [bold"
    assert run.name in done.stderr
    assert (run / "rows.parquet").is_file()
    assert distill("report", run.name, cwd=elsewhere).stdout.strip().endswith("[bold/report.html")
    again = distill("generate", "../a b/work/my probe.yaml", "--run", run.name, cwd=elsewhere)
    assert "already complete" in again.stderr


def test_a_run_directory_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    recipe = rehearsal(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/rows.parquet").write_text("precious")
    assert "not a run of distill" in distill("generate", recipe, "--run", "mine", cwd=tmp_path, code=2).stderr
    assert (tmp_path / "mine/rows.parquet").read_text() == "precious"
    (tmp_path / "file").write_text("x")
    assert "Not a directory" in distill("generate", recipe, "--run", "file", cwd=tmp_path, code=2).stderr
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/run.json").write_text('{"inputs": ')
    assert "cannot be read" in distill("generate", recipe, "--run", "torn", cwd=tmp_path, code=2).stderr
    error = distill("generate", recipe, "--run", "file/below", "--json", cwd=tmp_path, code=None)
    assert error.code in (1, 2)
    assert "Not a directory" in error.json["message"]
    assert "file: is a file" in distill("init", "file", cwd=tmp_path, code=2).stderr


def test_a_server_that_reports_no_usage_cannot_pass_the_cap(tmp_path: Path, teacher: Any) -> None:
    teacher.usage = None
    recipe = rehearsal(tmp_path, teacher=served_by(teacher), budget={"usd": 0.0005})
    stopped = distill("generate", recipe, "--json", cwd=tmp_path, code=3)
    assert "the budget is reached" in stopped.json["reason"]
    assert (stopped.json["cost_usd"], teacher.asked < 12) == (0, True)
    assert 0 < stopped.json["unknown_cost_usd"] <= 0.0005
    assert "that may have been billed" in stopped.stderr


@pytest.mark.parametrize("gone", ["rejected.parquet", "failed.parquet", "metrics.json", "dataset/README.md", "dataset"])
def test_what_is_gone_of_a_complete_run_is_written_again(tmp_path: Path, gone: str) -> None:
    recipe = rehearsal(tmp_path)
    made = distill("generate", recipe, "--json", cwd=tmp_path).json
    path = Path(made["run"]) / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    again = distill("generate", recipe, "--json", cwd=tmp_path).json
    assert (again["run"], again["kept"], again["requests"]) == (made["run"], made["kept"], 0)
    assert path.exists()


# -- what is shown ---------------------------------------------------------------------------------------------------


def test_a_model_cannot_speak_to_the_terminal_or_the_browser(tmp_path: Path, teacher: Any) -> None:
    teacher.text = HOSTILE
    recipe = rehearsal(tmp_path, teacher=served_by(teacher))
    shown = distill("preview", recipe, "-n", "2", cwd=tmp_path).stdout
    made = distill("generate", recipe, cwd=tmp_path)
    for text in (shown, made.text):
        assert not [character for character in text if character < " " and character != "\n"]
        assert "\u202e" not in text
        assert "\x9b" not in text
    assert "\\x1b]0;owned\\x07" in shown.replace("\n", "")
    assert ":smile:" in shown
    slots = distill("preview", recipe, "-n", "2", "--json", cwd=tmp_path).json["slots"]
    assert [slot["exchanges"][0]["answer"] for slot in slots] == [HOSTILE] * 2
    assert teacher.asked == 12  # what was previewed was not asked for again
    page = (tmp_path / "runs/probe-1/report.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    teacher.status = 400
    (tmp_path / "prompts/probe.j2").write_text("Another {{ slot.index }}")
    for command in ("preview", "generate"):
        text = distill(command, recipe, cwd=tmp_path, code=None).text
        assert "400" in text
        assert not [character for character in text if character < " " and character != "\n"]


def test_preview_shows_slots_from_prompt_to_fate(tmp_path: Path) -> None:
    recipe = rehearsal(tmp_path, filters=[{"kind": "length", "min_words": 5000}])
    slots = distill("preview", recipe, "-n", "2", "--json", cwd=tmp_path).json["slots"]
    assert len(slots) == 2
    for slot in slots:
        (exchange,) = slot["exchanges"]
        (row,) = slot["rows"]
        assert exchange["messages"][0]["content"].startswith("Write one customer message about ")
        assert row["messages"][-1]["content"] == exchange["answer"]
        assert (row["fate"]["filter"], row["fate"]["reason"]) == ("length", "too_short")
    shown = distill("preview", recipe, "-n", "1", cwd=tmp_path).stdout
    assert "rejected by length" in " ".join(shown.split())
    assert not (tmp_path / "runs").exists()


def test_runs_lists_every_run_whatever_became_of_it(tmp_path: Path) -> None:
    recipe = rehearsal(tmp_path)
    assert "no runs in" in distill("runs", cwd=tmp_path).stdout
    distill("generate", recipe, cwd=tmp_path)
    distill("generate", recipe, "--new", cwd=tmp_path)
    runs = tmp_path / "runs"
    shutil.copytree(runs / "probe-1", runs / "probe-3")
    description = json.loads((runs / "probe-3/run.json").read_text())
    (runs / "probe-3/run.json").write_text(json.dumps({**description, "state": "running"}))
    for name, content in (("other-1", "{"), ("other-2", "{}"), ("other-3", '{"inputs": 1, "state": 3}')):
        (runs / name).mkdir()
        (runs / name / "run.json").write_text(content)
    told = distill("runs", "--json", cwd=tmp_path).json["runs"]
    assert {run["run"]: run["state"] for run in told} == {
        "other-1": "damaged",
        "other-2": "damaged",
        "other-3": "damaged",
        "probe-1": "complete",
        "probe-2": "complete",
        "probe-3": "interrupted",
    }
    shown = distill("runs", cwd=tmp_path).stdout
    assert "probe-2" in shown
    assert "interrupted" in shown
    assert distill("runs", "--workspace", tmp_path, "--json", cwd=Path("/")).json["runs"] == told
    assert "no such folder" in distill("runs", "--workspace", tmp_path / "no", cwd=tmp_path, code=2).stderr


def test_report_takes_a_path_or_a_name(tmp_path: Path) -> None:
    recipe = rehearsal(tmp_path)
    distill("generate", recipe, cwd=tmp_path)
    report = tmp_path / "runs/probe-1/report.html"
    for name in ("probe-1", "runs/probe-1"):
        report.unlink()
        path = distill("report", name, "--json", cwd=tmp_path).json["report"]
        assert (tmp_path / path).samefile(report)
    wrong = distill("report", "prob-1", cwd=tmp_path, code=2)
    assert "did you mean probe-1?" in wrong.stderr
    assert "no such run" in distill("report", recipe.name, cwd=tmp_path, code=2).stderr
    (tmp_path / "runs/probe-1/run.json").write_text("[1")
    assert "not JSON" in distill("report", "probe-1", cwd=tmp_path, code=2).stderr


def test_another_layout_is_written_without_asking_again(tmp_path: Path, teacher: Any, monkeypatch: Any) -> None:
    """One paid run, and `load_dataset` opens it in every layout that its rows fit."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    columns = {
        "messages": ["id", "messages"],
        "prompt_completion": ["id", "prompt", "completion"],
        "alpaca": ["id", "instruction", "input", "output"],
        "sharegpt": ["id", "conversations"],
        "reasoning": ["id", "messages"],
    }
    for layout, names in columns.items():
        recipe = rehearsal(tmp_path, teacher=served_by(teacher), dataset={"format": layout})
        told = distill("generate", recipe, "--json", cwd=tmp_path).json
        assert told["dataset"]["format"] == layout
        loaded = datasets.load_dataset(str(Path(told["run"]) / "dataset"), cache_dir=str(tmp_path / "cache"))
        assert loaded["train"].column_names == names
        assert sum(split.num_rows for split in loaded.values()) == 12
    assert teacher.asked == 12


def test_models_and_doctor_tell_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    models = distill("models", "list", "--json", cwd=tmp_path).json["models"]
    assert {"qwen2.5-coder-1.5b-instruct", "smollm2-135m-instruct"} <= {model["name"] for model in models}
    assert all(not model["present"] and model["size"] > 10**7 and model["licence"] for model in models)
    assert "smollm2-135m-instruct" in distill("models", "list", cwd=tmp_path).stdout
    absent = distill("models", "path", "smollm2-135m-instruct", "--json", cwd=tmp_path, code=2).json
    assert "distill models pull smollm2-135m-instruct" in absent["hint"]
    assert "did you mean smollm2" in distill("models", "pull", "smollm2", cwd=tmp_path, code=2).stderr


# -- the command line itself -----------------------------------------------------------------------------------------


def test_usage_errors_are_short_and_json_where_it_was_asked_for(tmp_path: Path) -> None:
    assert "did you mean" in distill("genrate", cwd=tmp_path, code=2).stderr.lower()
    assert "Missing argument" in distill("generate", cwd=tmp_path, code=2).stderr
    wrong = distill("generate", "x", "--jsn", "--json", cwd=tmp_path, code=2)
    assert "--jsn" in wrong.json["message"]
    assert "Invalid value" in distill("preview", "x", "-n", "0", cwd=tmp_path, code=2).stderr
    for group in ((), ("models",)):
        told = distill(*group, cwd=tmp_path, code=2)
        assert told.stderr.startswith("Usage: ")
        assert "error" not in told.stderr


def test_long_paths_are_not_broken_where_no_terminal_is(tmp_path: Path) -> None:
    folder = tmp_path / ("long " * 30).strip()
    recipe = rehearsal(folder)
    distill("generate", recipe, "--quiet", cwd=tmp_path)
    printed = distill("report", folder / "runs/probe-1", cwd=tmp_path).stdout
    assert printed == f"{folder}/runs/probe-1/report.html\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("empty.jsonl", "--out", "o"), "the file holds no rows"),
        (("missing.jsonl", "--out", "o"), "no such file"),
        (("prompts", "--out", "o"), "prompts: "),
        (("notes.txt", "--out", "o"), "unknown ending .txt"),
        (("bad.parquet", "--out", "o"), "not a Parquet file"),
        (("bad.jsonl", "--out", "o"), "bad.jsonl:2: not valid JSON"),
        (("rows.jsonl", "--out", "rows.jsonl"), "is not a folder"),
        (("rows.jsonl", "--out", "o", "--chain", "nope"), "no such file in filters: nope"),
        (("rows.jsonl", "--out", "o", "--against", "nope.jsonl"), "nope.jsonl"),
        (("kept.jsonl", "--out", ".", "--format", "jsonl"), "would be replaced by its own result"),
        (("rows.jsonl",), "Missing option '--out'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_filter_refuses_odd_input_and_writes_nothing(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    row = '{"text": "a message of some words"}\n'
    files = {"empty.jsonl": "", "notes.txt": "x", "bad.parquet": "x", "bad.jsonl": row + "{", "rows.jsonl": row}
    for name, content in {**files, "kept.jsonl": row * 3}.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "prompts").mkdir()
    before = {path: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert said in distill("filter", *arguments, cwd=tmp_path, code=2).stderr
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == before


# -- in processes of their own ---------------------------------------------------------------------------------------


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)


def loaded(code: str) -> set[str]:
    """Modules that a program has loaded in the end."""
    done = python("-c", f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)")
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


def test_importing_distill_loads_no_library_that_is_not_used() -> None:
    heavy = {"torch", "transformers", "openai", "anthropic", "pyarrow", "numpy", "pandas", "scipy", "datasets"}
    assert not heavy & loaded("import distill")
    help_ = "import distill.cli\nsys.argv = ['distill', '--help']\ntry: distill.cli.main()\nexcept SystemExit: pass"
    assert not (heavy | {"pydantic", "aiohttp", "jinja2"}) & loaded(help_)
    engine = loaded("import distill\ndistill.generate, distill.Recipe")
    assert not engine & (heavy - {"pyarrow", "numpy"} | {"genai_prices", "jsonschema", "datasketch", "aiohttp"})


def test_a_reader_that_leaves_and_a_full_disk_end_without_a_traceback(tmp_path: Path) -> None:
    rehearsal(tmp_path)
    command = f"'{sys.executable}' -m distill preview probe.yaml --json -n 100"
    done = subprocess.run(["bash", "-c", f"{command} | head -c 1"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("{", "")
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            ended = subprocess.run(
                [sys.executable, "-m", "distill", "runs", "--json"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE
            )
        assert ended.returncode == 1
        assert b"the disk is full" in ended.stderr
        assert b"Traceback" not in ended.stderr
