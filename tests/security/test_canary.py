"""An API key appears nowhere: in no file of the workspace, whatever its format, and on no stream, at debug level too.

The server answers with every kind of fault, and with some that quote the key back at us.
"""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from distill.engine import prepare
from distill.engine.preview import preview
from distill.errors import InputError
from distill.recipe import load_recipe
from tests.support.commands import Said, distill
from tests.support.faults import ECHOES, FAULTS
from tests.support.loopback import Loopback
from tests.support.postgres import PASSWORD, Server
from tests.support.sessions import session
from tests.support.workspaces import probe

CANARY = "sk-canary-51f0c9d2e7"
SPELLINGS = (
    CANARY.encode(),
    CANARY.encode("utf-16-le"),
    CANARY.encode().hex().encode(),
    base64.b64encode(CANARY.encode()).rstrip(b"="),
)


def found(folder: Path, *, but: str = "") -> list[str]:
    """Files that hold the key; `but` is one that may."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != but and any(spelling in path.read_bytes() for spelling in SPELLINGS)
    ]


def silent(said: Said) -> bool:
    return CANARY not in said.out + said.err


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", CANARY)


def test_the_search_would_find_it(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"\x00" + CANARY.encode() + b"\xff")
    assert found(tmp_path) == ["x.bin"]


async def test_the_server_did_see_it(tmp_path: Path) -> None:
    async with Loopback(record=True) as server:
        await session(probe(tmp_path, server.base_url, target=2))
    assert server.received[0][0]["authorization"] == f"Bearer {CANARY}"


@pytest.mark.parametrize("fault", [*ECHOES, "401", "400", "500", "truncated_json", "wrong_content_type", "redirect"])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_a_fault_leaves_no_trace_of_the_key(fault: str, provider: str, tmp_path: Path) -> None:
    for share in (1.0, 0.2):
        async with Loopback(faults={fault: share}) as server:
            url = server.base_url if provider == "openai" else server.anthropic_url
            teacher = {"provider": provider, "base_url": url, "max_attempts": 3}
            ended = await session(probe(tmp_path / str(share), url, target=30, teacher=teacher))
        assert server.hits[fault]
        assert CANARY not in f"{ended.told} {ended.error!s} {ended.error!r}"
    assert (tmp_path / "1.0/.distill/answers.sqlite").is_file()
    assert found(tmp_path) == []


async def test_a_quoted_key_is_masked_and_the_answer_kept(tmp_path: Path) -> None:
    async with Loopback(faults={"echo_key_answer": 1.0}) as server:
        ended = await session(probe(tmp_path, server.base_url, target=3))
    assert ended.told["kept"] == 3
    assert "Your request carried Bearer ***." in (ended.path / "dataset/train.jsonl").read_text()


async def test_the_command_line_at_debug_level_across_all_faults(tmp_path: Path) -> None:
    """Everything that can come back, in one run, and the report, the list and a preview of it."""
    stop = {"401", "403", "insufficient_quota", "429_daily", "echo_key_401", "timeout", "slow", "huge"}
    script = [name for name in (*ECHOES, *FAULTS) if name not in stop]
    async with Loopback(script=script) as server:
        probe(tmp_path, server.base_url, target=60)
        said = [await distill("--debug", "generate", "probe.yaml", "--json", cwd=tmp_path)]
        assert said[0].json["kept"] == 60
        assert len(server.hits) == len(script)
        run = said[0].json["run"]
        server.script.extend(["echo_key", "echo_key_answer"])
        said.append(await distill("--debug", "preview", "probe.yaml", "-n", "80", "--json", cwd=tmp_path))
        said.append(await distill("--debug", "report", run, cwd=tmp_path))
        server.faults = {"echo_key_401": 1.0}
        said.append(await distill("--debug", "generate", "probe.yaml", "--new", "--json", cwd=tmp_path))
    assert all(silent(one) for one in said)
    assert "DEBUG" in said[0].err
    assert found(tmp_path) == []


async def test_a_key_that_stands_in_the_recipe_stays_there(tmp_path: Path) -> None:
    """Against advice."""
    async with Loopback(script=["echo_key", "echo_key_500", "echo_key_401"]) as server:
        probe(tmp_path, server.base_url, target=20, teacher={"api_key": CANARY})
        first = await distill("--debug", "generate", "probe.yaml", "--json", cwd=tmp_path, env={"TEACHER_KEY": ""})
    assert first.code == 1
    assert silent(first)
    assert found(tmp_path, but="probe.yaml") == []


async def test_a_preview_leaves_no_trace(tmp_path: Path) -> None:
    async with Loopback(faults={"echo_key": 0.3, "echo_key_answer": 0.3, "echo_key_500": 0.1}) as server:
        recipe = load_recipe(probe(tmp_path, server.base_url, teacher={"max_attempts": 2}))
        specimens = await preview(prepare(recipe), 20)
        assert len(server.hits) == 3
    assert CANARY not in str(specimens)
    assert found(tmp_path) == []


@pytest.mark.parametrize("wrong", [{"api_key": [CANARY]}, {"api_key": {"value": CANARY}}, {"api_kee": CANARY}])
def test_a_mistake_beside_a_key_does_not_quote_it(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InputError) as problem:
        load_recipe(probe(tmp_path, "http://127.0.0.1:9/v1", teacher=wrong))
    assert CANARY not in str(problem.value)


async def test_the_password_of_a_store_appears_nowhere(tmp_path: Path, postgres_server: Server) -> None:
    """A run over a PostgreSQL store, every command that opens it, and errors of address, password and server."""
    good = postgres_server.fresh()
    for number, (url, code) in enumerate(
        ((good, 0), (good + "x", 1), (good.replace("@", "1@"), 1), (good.replace("postgresql:", "mysql:"), 2))
    ):
        folder = tmp_path / str(number)
        async with Loopback() as server:
            probe(folder, server.base_url, target=6, store="${TEAM_STORE}" if number else None)
            env = {"TEAM_STORE": url, "DISTILL_STORE": url}
            generate = ("--debug", "generate", "probe.yaml", "--json")
            said = [await distill(*generate, cwd=folder, env=env)]
            assert said[0].code == code
            if code == 0:
                assert said[0].json["kept"] == 6
                for command in (("runs", "--json"), ("answers", "stats"), ("answers", "verify")):
                    said.append(await distill("--debug", *command, cwd=folder, env=env))
                assert "6 answers" in said[2].out
        assert all(PASSWORD not in one.out + one.err for one in said)
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]
        assert not (folder / ".distill/answers.sqlite").exists()
