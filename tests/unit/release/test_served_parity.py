"""`distill eval --endpoint` against the real endpoint of a release: what is served is what was measured."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
import uvicorn

from distill.evaluate.holdout import Holdout
from distill.release.app import make_app
from distill.release.export import write_gguf
from distill.release.make import add_release
from distill.release.record import Release
from distill.release.registry import Listed, Registry
from distill.release.serving import Answer, Backend, Sampling, open_backends
from tests.support.terminal import distill

KEY = "a-key-of-sixteen"


class Served:
    """A server in a thread of its own, with its own loop."""

    def __init__(self, backends: Callable[[], AbstractAsyncContextManager[Mapping[str, Backend]]]) -> None:
        self._backends = backends
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._server: Any = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)

    async def _serve(self) -> None:
        async with self._backends() as backends:
            app = make_app(backends, key=KEY, hosts=("127.0.0.1",))
            config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off")
            self._server = uvicorn.Server(config)
            self._ready.set()
            await self._server.serve(sockets=[self._socket])


@pytest.fixture
def served(student: Path, lora: Path, tmp_path: Path) -> Iterator[Served]:
    registry = Registry(tmp_path / "releases")
    add_release(registry, "router", lora, base=str(student), force=True)
    with Served(lambda: open_backends([registry.find("router")], base=str(student))) as server:
        yield server


def write(holdout: Holdout, path: Path) -> Path:
    rows = [{"id": i.id, "messages": list(i.messages), "answer": i.answer} for i in holdout.items]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_is_served_is_what_was_measured(
    served: Served, student: Path, lora: Path, holdout: Holdout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVED_KEY", KEY)
    (tmp_path / ".distill").mkdir()
    file = write(holdout, tmp_path / "test.jsonl")
    common = ("--holdout", file, "--metric", "exact_match", "--max-tokens", "12", "--json", "--quiet")
    weights = ("--model", student, "--adapter", lora, "--latency-items", "0")
    measured = distill("eval", *weights, *common, "--out", "measured", cwd=tmp_path).json
    there = ("--endpoint", served.url, "--endpoint-model", "router", "--endpoint-key", "${SERVED_KEY}")
    asked = ("eval", *there, *common, "--parity", "measured#student", "--gate", "parity >= 1", "--out", "served")
    found = distill(*asked, cwd=tmp_path).json
    assert found["parity"]["equal"] == 1.0
    assert found["parity"]["measured"] == "student"
    assert found["metrics"] == measured["metrics"]
    about = found["systems"]["endpoint"]["about"]
    assert about["served"]["weights_digest"] == measured["systems"]["student"]["about"]["adapter_digest"]
    assert KEY not in json.dumps(found)
    # Its answers are stored: another folder asks nothing, and is not timed.
    again = distill(*asked[:-1], "again", cwd=tmp_path).json
    assert again["systems"]["endpoint"]["latency"] is None
    assert again["systems"]["endpoint"]["tokens_per_second"] is None
    # Other weights under the same name are other answers: parity fails with exit code 4.
    rows = [json.loads(line) for line in (tmp_path / "measured/predictions.jsonl").read_text().splitlines()]
    rows[0]["prediction"] = "something else"
    (tmp_path / "measured/predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    failed = distill(*asked, cwd=tmp_path, code=4)
    assert "parity >= 1 does not hold: 0.7500" in failed.stderr


@dataclass
class Same:
    """Says the same to everything, and counts."""

    listed: Listed
    text: str
    asked: int = 0

    async def answer(self, messages: Sequence[dict[str, str]], sampling: Sampling) -> Answer:
        self.asked += 1
        return Answer(self.text, "stop", 3, 2)


def test_another_model_behind_the_same_name_is_asked_again(
    holdout: Holdout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVED_KEY", KEY)
    release = Release(
        name="router",
        version=1,
        created="2026-01-01T00:00:00Z",
        kind="adapter",
        weights="adapter",
        weights_digest="aaaa",
        base="tiny",
        template="t",
    )
    same = Same(Listed(release, tmp_path, True), "first")

    @asynccontextmanager
    async def backends() -> AsyncGenerator[Mapping[str, Backend]]:
        yield {"router": same}

    (tmp_path / ".distill").mkdir()
    file = write(holdout, tmp_path / "test.jsonl")
    with Served(backends) as server:

        def answers(out: str) -> set[str]:
            there = ("--endpoint", server.url, "--endpoint-model", "router", "--endpoint-key", "${SERVED_KEY}")
            distill("eval", *there, "--holdout", file, "--metric", "exact_match", "--out", out, "-q", cwd=tmp_path)
            rows = [json.loads(line) for line in (tmp_path / out / "predictions.jsonl").read_text().splitlines()]
            return {row["prediction"] for row in rows}

        assert answers("one") == {"first"}
        assert answers("two") == {"first"}
        assert same.asked == 4  # what is stored is not asked again
        same.text = "second"
        same.listed = replace(same.listed, release=release.model_copy(update={"weights_digest": "bbbb"}))
        assert answers("one") == {"second"}
        assert same.asked == 8


def test_an_endpoint_that_cannot_be_asked_says_why(
    served: Served, holdout: Holdout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVED_KEY", KEY)
    file = write(holdout, tmp_path / "test.jsonl")
    common = ("--holdout", file, "--metric", "exact_match", "--out", "out", "--quiet")
    there = ("--endpoint", served.url)
    unknown = distill(
        "eval", *there, "--endpoint-model", "rooter", "--endpoint-key", "${SERVED_KEY}", *common, cwd=tmp_path, code=2
    )
    assert "it serves: router" in unknown.stderr
    shown = distill("eval", *there, "--endpoint-model", "router", "--endpoint-key", KEY, *common, cwd=tmp_path, code=2)
    assert "name of a variable" in shown.stderr
    assert KEY not in shown.text
    missing = distill(
        "eval", *there, "--endpoint-model", "router", "--endpoint-key", "${NO_SUCH}", *common, cwd=tmp_path, code=2
    )
    assert "NO_SUCH is not set" in missing.stderr
    nobody = distill(
        "eval", "--endpoint", "http://127.0.0.1:9/v1", "--endpoint-model", "router", *common, cwd=tmp_path, code=1
    )
    assert "does not answer" in nobody.stderr
    budget = distill(
        "eval",
        *(*there, "--endpoint-model", "router", "--endpoint-key", "${SERVED_KEY}", "--max-usd", "1", *common),
        cwd=tmp_path,
        code=2,
    )
    assert "price" in budget.stderr


def test_any_systems_stand_side_by_side(student: Path, lora: Path, holdout: Holdout, tmp_path: Path) -> None:
    """The base, its adapter, the student of a run and a release, in one table."""
    registry = Registry(tmp_path / "releases")
    add_release(registry, "router", lora, base=str(student), force=True)
    shutil.copytree(lora, tmp_path / "runs/support-1/train/tiny-lora")
    (tmp_path / ".distill").mkdir()
    file = write(holdout, tmp_path / "test.jsonl")
    systems = [
        f"plain={student}",
        f"trained={lora}",  # finds its base by itself
        f"kept=release:router#{student}",
        f"run:support-1/tiny-lora#{student}",
    ]
    flags = [argument for system in systems for argument in ("--system", system)]
    common = ("--holdout", file, "--metric", "exact_match", "--max-tokens", "12", "--latency-items", "0")
    found = distill("eval", *flags, *common, "--subject", "trained", "--out", "out", "--json", cwd=tmp_path)
    values = {name: system["metrics"]["exact_match"]["value"] for name, system in found.json["systems"].items()}
    assert list(values) == ["plain", "trained", "kept", "tiny-lora"]
    assert values["trained"] == values["kept"] == values["tiny-lora"] > values["plain"]
    # A report of its own stands beside the figures.
    assert "wrong by exact_match" in Path(tmp_path / found.json["report"]).read_text()
    assert "plain: 4 of 4 wrong by exact_match" in found.stderr


@pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs xllamacpp")
def test_a_gguf_file_stands_beside_the_model_it_was_made_from(student: Path, holdout: Holdout, tmp_path: Path) -> None:
    write_gguf(str(student), tmp_path / "tiny.gguf", "f32")
    file = write(holdout, tmp_path / "test.jsonl")
    common = ("--holdout", file, "--metric", "exact_match", "--max-tokens", "6", "--latency-items", "1", "--json")
    weights = ("--system", f"whole={student}", "--system", f"rounded=tiny.gguf#{student}")
    found = distill("eval", *weights, *common, "--out", "out", "--quiet", cwd=tmp_path).json
    rows = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    answers = {name: [row["prediction"] for row in rows if row["system"] == name] for name in ("whole", "rounded")}
    assert answers["whole"] == answers["rounded"]
    assert found["systems"]["rounded"]["about"]["engine"] == "llama.cpp"
    unknown = distill("eval", "--system", "tiny.gguf", *common, "--out", "out", cwd=tmp_path, code=2)
    assert "tiny.gguf#MODEL" in unknown.stderr
