"""Three processes make one run on one store of a server, one of them killed half way."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Said, distill, ended, started
from tests.support.loopback import Loopback
from tests.support.workspaces import probe

OF = 3
TARGET = 900
AT_ONCE = 16


def laid_out(folder: Path, url: str) -> Path:
    (folder / ".distill").mkdir(parents=True)
    return probe(folder, url, target=TARGET, teacher={"max_concurrency": AT_ONCE})


def written(run: Path) -> dict[str, bytes]:
    files = [*run.glob("*.parquet"), *run.glob("dataset/*")]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


@pytest.mark.heavy
async def test_three_processes_on_one_server_one_of_them_killed(tmp_path: Path, postgres_server: Any) -> None:
    shared, own = ({"DISTILL_STORE": postgres_server.fresh()} for _ in range(2))
    async with Loopback(latency=0.05, words=6) as server:
        machines = [laid_out(tmp_path / f"machine{index}", server.base_url).parent for index in range(1, OF + 1)]
        shards = [("generate", "probe.yaml", "--shard", f"{index}/{OF}", "--json", "-q") for index in range(1, OF + 1)]
        going = [await started(*shard, cwd=cwd, env=shared) for shard, cwd in zip(shards, machines, strict=True)]
        while server.stats()["requests"] < TARGET // 2:  # noqa: ASYNC110 - a counter of the server
            await asyncio.sleep(0.01)
        going[1].send_signal(signal.SIGKILL)
        said: list[Said] = list(await asyncio.gather(*(ended(process) for process in going)))
        assert [each.code for each in said] == [0, -signal.SIGKILL, 0]
        assert (await distill(*shards[1], cwd=machines[1], env=shared)).code == 0
        stats = server.stats()
        assert stats["distinct"] == TARGET
        assert stats["paid_twice"] <= AT_ONCE * 5 // 4 + 8  # the slots of the killed one: each waits for one answer
        home = laid_out(tmp_path / "home", server.base_url)
        runs = [str(machine / f"runs/probe-shard-{index}-of-3-1") for index, machine in enumerate(machines, 1)]
        merge = ("merge", *runs, "--out", str(home.parent / "runs/probe-1"), "--recipe", str(home), "--json", "-q")
        merged = await distill(*merge, cwd=tmp_path, env=shared)
        assert (merged.code, merged.json["kept"], merged.json["answers_added"]) == (0, TARGET, 0)
        assert server.stats()["requests"] == stats["requests"]
        alone = laid_out(tmp_path / "alone", server.base_url).parent
        whole = await distill("generate", "probe.yaml", "--json", "-q", cwd=alone, env=own)
    assert whole.code == 0
    assert written(home.parent / "runs/probe-1") == written(Path(whole.json["run"]))
