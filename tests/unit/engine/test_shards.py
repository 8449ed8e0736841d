"""Shards of a run, made apart and united: one run, whatever happened in between."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from distill.cli import app
from distill.engine import open_run
from distill.engine.shards import budget_of, teachers_of
from distill.engine.unite import Merged, merge_shards
from distill.errors import InputError
from distill.planning import Shard
from distill.recipe import load_recipe
from tests.support.workspaces import rehearsal

OF = 3
REPEATS: dict[str, Any] = {
    "teacher": {"simulate": {"latency_s": 0.0, "pduplicate": 0.5}, "sampling": {"max_tokens": 24}},
    "filters": [{"kind": "exact", "fields": ["response"]}],
}


def laid_out(folder: Path, *, target: int = 30, **recipe: Any) -> Path:
    plan = {"taxonomy": "taxonomies/probe.yaml", "target": target}
    (folder / ".distill").mkdir(parents=True)
    return rehearsal(folder, plan=plan, **recipe)


async def made(path: Path, shard: str, *, run: Path | None = None) -> Path:
    summary = await open_run(path, shard=Shard.parse(shard), run=run).execute()
    return summary.run


async def all_made(path: Path) -> list[Path]:
    return [await made(path, f"{index}/{OF}") for index in range(1, OF + 1)]


def written(run: Path) -> dict[str, bytes]:
    files = [*run.glob("*.parquet"), *run.glob("dataset/*")]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


async def test_the_union_is_the_run_that_one_machine_would_have_made(tmp_path: Path) -> None:
    path = laid_out(tmp_path / "apart")
    shards = await all_made(path)
    ids = [pq.read_table(run / "rows.parquet")["id"].to_pylist() for run in shards]
    assert sum(map(len, ids)) == len({name for each in ids for name in each}) == 30
    merged = await merge_shards(shards, tmp_path / "apart/runs/probe-1")
    assert (merged.summary.state, merged.short, merged.lost) == ("complete", 0, {})
    assert merged.summary.requests == 0
    whole = await open_run(laid_out(tmp_path / "whole")).execute()
    assert written(merged.summary.run) == written(whole.run)
    assert open_run(path).finished() is not None  # the recipe's run, for every later command


async def test_repetitions_across_shards_fall_out_and_are_filled_by_going_on(tmp_path: Path) -> None:
    path = laid_out(tmp_path / "apart", **REPEATS)
    shards = await all_made(path)
    out = tmp_path / "apart/runs/probe-1"
    merged = await merge_shards(shards, out)
    assert merged.short > 0
    assert merged.lost["exact: duplicate"] > 0
    assert merged.summary.exit_code == 3
    texts = [str(turns) for turns in pq.read_table(out / "rows.parquet")["messages"].to_pylist()]
    assert len(set(texts)) == len(texts) == 30 - merged.short
    assert merged.fill == f"distill generate {path} --run {out}"
    topped = await open_run(path, run=out).execute()
    assert topped.state == "complete"
    assert 0 < topped.requests < 30
    whole = await open_run(laid_out(tmp_path / "whole", **REPEATS)).execute()
    assert written(out) == written(whole.run)


async def test_the_order_of_shards_and_where_they_were_made_change_nothing(tmp_path: Path) -> None:
    one = laid_out(tmp_path / "one", **REPEATS)
    together = await merge_shards(await all_made(one), tmp_path / "one/runs/probe-1")
    machines = []
    for index in range(1, OF + 1):  # each its own machine: own files, own store
        path = laid_out(tmp_path / f"machine{index}", **REPEATS)
        machines.append(await made(path, f"{index}/{OF}"))
    results: list[Merged] = []
    for number, order in enumerate(([2, 0, 1], [1, 2, 0])):
        home = laid_out(tmp_path / f"home{number}", **REPEATS)
        shards = [machines[place] for place in order]
        out = home.parent / "runs/probe-1"
        results.append(await merge_shards(shards, out, recipe=home))
        again = await merge_shards(shards[::-1], out, recipe=home)  # doing it again changes nothing
        assert again.answers.added == 0
    assert results[0].answers.added > 0
    assert written(results[0].summary.run) == written(results[1].summary.run) == written(together.summary.run)


async def test_a_copied_run_directory_brings_its_answers_along(tmp_path: Path) -> None:
    path = laid_out(tmp_path / "home")
    shards = [await made(path, f"1/{OF}"), await made(path, f"2/{OF}")]
    far = laid_out(tmp_path / "far")
    third = await made(far, f"3/{OF}")
    copied = tmp_path / "copied"
    shutil.copytree(third, copied)
    with pytest.raises(InputError, match=f"answers of shard 3/{OF} are not found"):
        await merge_shards([*shards, copied], tmp_path / "home/runs/probe-1")
    shutil.copy(tmp_path / "far/.distill/answers.sqlite", copied / "answers.sqlite")
    merged = await merge_shards([*shards, copied], tmp_path / "home/runs/probe-1")
    assert merged.summary.state == "complete"


async def test_a_lost_shard_is_made_again_for_nothing(tmp_path: Path) -> None:
    path = laid_out(tmp_path)
    first = await made(path, f"1/{OF}")
    before = written(first)
    shutil.rmtree(first)
    summary = await open_run(path, shard=Shard(1, OF)).execute()
    assert summary.requests == 0
    assert written(summary.run) == before


async def test_shards_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    path = laid_out(tmp_path)
    first, second, _ = shards = await all_made(path)
    out = tmp_path / "out"

    async def refused(runs: list[Path], words: str, **options: Any) -> None:
        with pytest.raises(InputError, match=words):
            await merge_shards(runs, out, **options)
        assert not out.exists()

    await refused([first], "missing: shard 2/3, 3/3")
    await refused([first, second, second], "shard 2/3 is there twice")
    await refused([*shards, tmp_path], "no run here")
    again = laid_out(tmp_path / "again")
    whole = (await open_run(again).execute()).run
    await refused([whole, first], "the run of a whole recipe")
    halves = await made(again, "2/2")
    await refused([first, halves], "divided in two ways")
    other = laid_out(tmp_path / "other", seed=8)
    await refused([first, await made(other, "2/3"), shards[2]], "shards of different runs")
    with pytest.raises(InputError, match="is one of the shards"):
        await merge_shards(shards, first)
    told = json.loads((second / "run.json").read_text())
    (second / "run.json").write_text(json.dumps({**told, "state": "running"}))
    await refused(shards, "not at its end: shard 2/3")
    (tmp_path / "taxonomies/probe.yaml").write_text("name: probe\ntopics: {a: {}}\n")
    with pytest.raises(InputError, match="not what the shards were made with"):
        await merge_shards([first, second], tmp_path / "more", partial=True)


async def test_what_is_there_of_a_run_is_united_on_request(tmp_path: Path) -> None:
    path = laid_out(tmp_path)
    shards = [await made(path, "1/3"), await made(path, "3/3")]
    partial = await merge_shards(shards, tmp_path / "runs/probe-1", partial=True)
    assert (partial.summary.state, partial.short, partial.summary.requests) == ("stopped", 10, 0)
    rest = await open_run(path).execute()
    assert (rest.state, rest.requests) == ("complete", 10)


async def test_a_shards_directory_is_no_others(tmp_path: Path) -> None:
    path = laid_out(tmp_path)
    first = await made(path, "1/3")
    with pytest.raises(InputError, match="the run of shard 1/3, not of the whole recipe"):
        await open_run(path, run=first).execute()
    with pytest.raises(InputError, match="the run of shard 1/3, not of shard 2/3"):
        await made(path, "2/3", run=first)


def test_caps_and_rates_are_divided(tmp_path: Path) -> None:
    limits = {"requests_per_minute": 600, "tokens_per_minute": 9000, "requests_per_day": 100, "tokens_per_day": 2}
    path = laid_out(tmp_path, teacher={"limits": limits}, budget={"usd": 10, "tokens": 10_000, "hours": 3})
    recipe = load_recipe(path)
    parts = [budget_of(recipe.budget, Shard(index, 3)) for index in (1, 2, 3)]
    assert sum(part.usd or 0 for part in parts) <= 10
    assert all(part.usd and part.usd > 3.33 and part.tokens == 3333 and part.hours == 3 for part in parts)
    shared = teachers_of(recipe, Shard(1, 3))["main"].limits
    assert (shared.requests_per_minute, shared.tokens_per_minute) == (200, 3000)
    assert (shared.requests_per_day, shared.tokens_per_day) == (33, 1)
    assert teachers_of(recipe, None)["main"].limits.requests_per_minute == 600


# -- the command line --------------------------------------------------------------------------------------------


def test_the_command_unites_shards_and_mixtures_are_refused(tmp_path: Path) -> None:
    path = laid_out(tmp_path)
    runner = CliRunner()
    runs = []
    for index in range(1, OF + 1):
        said = runner.invoke(app, ["generate", str(path), "--shard", f"{index}/{OF}", "--json", "-q"])
        assert said.exit_code == 0
        runs.append(json.loads(said.stdout)["run"])
    assert [Path(run).name for run in runs] == [f"probe-shard-{index}-of-3-1" for index in (1, 2, 3)]
    for command in ("unite", "merge"):
        out = tmp_path / "runs" / command
        said = runner.invoke(app, [command, *runs, "--out", str(out), "--json"])
        assert said.exit_code == 0
        told = json.loads(said.stdout.splitlines()[-1])
        assert (told["kept"], told["shards"], told["short_rows"]) == (30, ["1/3", "2/3", "3/3"], 0)
        assert (out / "report.html").is_file()
    for arguments, words in (
        ([*runs, "--out", "x", "--model", "m"], "--model: goes with an adapter"),
        ([*runs, "--out", "x", "--adapter", "a", "--gate", "kl <= 1"], "--adapter: goes with an adapter"),
        (["--out", "x", "--model", "m", "--adapter", "a", "--partial"], "--partial: goes with the run directories"),
        (["--out", "x", "--model", "m"], "Missing option '--adapter'"),
        (["--out", "x"], "Missing option '--adapter'"),
    ):
        said = runner.invoke(app, ["merge", *arguments])
        assert isinstance(said.exception, InputError), arguments
        assert words in said.exception.message
