"""Four machines make one run: each shard a process with files and answers of its own, one of them killed half way."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.commands import Said, distill, ended, started
from tests.support.loopback import Loopback
from tests.support.workspaces import probe

OF = 4
TARGET = 2_000


def laid_out(folder: Path, url: str) -> Path:
    (folder / ".distill").mkdir(parents=True)
    return probe(folder, url, target=TARGET, filters=[{"kind": "exact", "fields": ["response"]}])


def written(run: Path) -> dict[str, bytes]:
    files = [*run.glob("*.parquet"), *run.glob("dataset/*")]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


@pytest.mark.heavy
async def test_four_processes_one_of_them_killed_and_made_again(tmp_path: Path) -> None:
    async with Loopback(latency=0.02, words=6) as server:
        machines = [laid_out(tmp_path / f"machine{index}", server.base_url).parent for index in range(1, OF + 1)]
        shards = [("generate", "probe.yaml", "--shard", f"{index}/{OF}", "--json", "-q") for index in range(1, OF + 1)]
        going = [await started(*shard, cwd=cwd) for shard, cwd in zip(shards, machines, strict=True)]
        while server.stats()["requests"] < TARGET // 4:  # noqa: ASYNC110 - a counter of the server
            await asyncio.sleep(0.05)
        going[1].send_signal(signal.SIGKILL)
        said: list[Said] = list(await asyncio.gather(*(ended(process) for process in going)))
        assert [each.code for each in said] == [0, -signal.SIGKILL, 0, 0]
        runs = [machine / f"runs/probe-shard-{index}-of-4-1" for index, machine in enumerate(machines, 1)]
        home = laid_out(tmp_path / "home", server.base_url)
        out = home.parent / "runs/probe-1"
        merge = ("merge", *map(str, runs), "--out", str(out), "--recipe", str(home), "--json", "-q")
        refused = await distill(*merge, cwd=tmp_path)
        assert refused.code == 2
        assert "2/4" in refused.json["message"]
        again = await distill(*shards[1], cwd=machines[1])
        assert again.code == 0
        asked = server.stats()["requests"]
        merged = await distill(*merge, cwd=tmp_path)
        assert merged.code in (0, 3)
        assert server.stats()["requests"] == asked  # nobody was asked
        assert merged.json["kept"] + merged.json["short_rows"] == TARGET
        first = written(out)
        shutil.rmtree(out)
        backwards = ("merge", *map(str, reversed(runs)), *merge[OF + 1 :])
        assert (await distill(*backwards, cwd=tmp_path)).code == merged.code
        assert written(out) == first
        if merged.code == 3:  # repetitions across shards: the command that was told fills them
            assert merged.json["fill"] == f"distill generate {home} --run {out}"
            topped = await distill("generate", str(home), "--run", str(out), "--json", "-q", cwd=tmp_path)
            assert topped.json["kept"] == TARGET
        whole = await distill(
            "generate", "probe.yaml", "--json", "-q", cwd=laid_out(tmp_path / "w", server.base_url).parent
        )
    assert written(out) == written(Path(whole.json["run"]))
    assert len(set(pq.read_table(out / "rows.parquet")["id"].to_pylist())) == TARGET
