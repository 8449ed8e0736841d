"""A cluster says, row for row, what one machine says."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
from collections.abc import Iterator

import pytest

from distill.errors import InputError
from distill.filters import FilterContext
from distill.filters.building import build_chain
from distill.filters.near.index import NearIndex
from distill.filters.parallel.copies import Orders
from tests.support.filtering import results, run, steps, write_rows

LONG = [{"kind": "exact", "fields": ["prompt"]}, {"kind": "minhash", "fields": ["prompt"], "short_threshold": 0}]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two nodes on this machine."""
    ray = pytest.importorskip("ray", reason="the library ray is not installed (extra `ray`)")
    patient = {"RAY_worker_register_timeout_seconds": "600", "RAY_health_check_failure_threshold": "60"}
    command = [sys.executable, "-m", "tests.support.ray_cluster"]
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder,
    ):
        assert holder.stdin is not None
        assert holder.stdout is not None
        for name, value in patient.items():  # machines are shared and slow at times
            patch.setenv(name, value)
        address = holder.stdout.readline().strip()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        assert len([each for each in ray.nodes() if each["Alive"]]) == 2
        yield address
        ray.shutdown()
        holder.stdin.close()


@pytest.mark.heavy
def test_two_nodes_give_what_one_machine_gives(cluster, tmp_path):
    source = write_rows(tmp_path, 1100)
    expected = results(run(source, tmp_path / "one"), tmp_path / "one")
    assert results(run(source, tmp_path / "two", engine="ray"), tmp_path / "two") == expected


@pytest.mark.heavy
def test_rows_of_all_lengths_and_rows_of_another_dataset(cluster, tmp_path):
    rng = random.Random(8)
    words = ["".join(rng.choices("etaoinshr", k=5)) for _ in range(300)]
    texts: list[str] = []
    for n in range(700):
        base = (
            rng.choice(texts).split() if texts and n % 3 == 0 else rng.choices(words, k=rng.choice([6, 40, 250, 320]))
        )
        base[rng.randrange(len(base))] = rng.choice(words)
        texts.append(" ".join(base))
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    (tmp_path / "other.jsonl").write_text("".join(json.dumps({"prompt": text + " x"}) + "\n" for text in texts[:50]))
    chain = steps(LONG[0], {**LONG[1], "against": [{"path": "other.jsonl"}]})
    expected = results(run(source, tmp_path / "one", chain=chain), tmp_path / "one")
    assert results(run(source, tmp_path / "two", chain=chain, engine="ray"), tmp_path / "two") == expected
    assert expected["calibrated"]["minhash"]["long_rows"] > 50
    assert expected["rejected"]["minhash"]["near_duplicate"] > 100


def test_rows_that_repeat_each_other_share_a_key():
    rng = random.Random(4)
    words = ["".join(rng.choices("etaoinshrdlu", k=6)) for _ in range(500)]
    rows = [" ".join(rng.choices(words, k=rng.choice([8, 60, 290, 310]))) for _ in range(60)]
    rows += [" ".join(row.split()[:-1]) for row in rows]  # some of them across the border of the units
    index = NearIndex()
    matches = index.judge(rows, [str(n) for n in range(len(rows))])
    owners, keys = index.keys(rows)
    held = [set(keys[owners == row].tolist()) for row in range(len(rows))]
    found = [(row, int(match.id)) for row, match in enumerate(matches) if match is not None]
    assert len(found) >= 40  # one word of eight is too many
    assert all(held[row] & held[other] for row, other in found)
    stranger = index.keys(["A text about another thing: how bridges are built, and why some of them fall."])[1]
    assert not set(stranger.tolist()) & set(keys.tolist())


def test_what_only_one_machine_can_do_is_refused(tmp_path):
    pytest.importorskip("ray", reason="the library ray is not installed (extra `ray`)")
    from distill.filters.cluster.engine import Cluster

    for wrong in ({"index": "kept.parquet"}, {"keep": "longest"}):
        chain = steps({"kind": "exact", **wrong})
        context = FilterContext(folder=tmp_path)
        built = build_chain(chain, context)
        with pytest.raises(InputError, match=next(iter(wrong))):
            Cluster(built, chain, Orders.of(chain, built, context))
