"""An update cut into forward passes stays the same update, and packed rows do not see each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import InputError, RunError
from distill.recipe import TrainConfig
from distill.train import TrainData, TrainResult, train
from distill.train.data import Conversation
from distill.train.passes import cut, flat, fuller, gather, keeps_apart, pack
from distill.train.template import IGNORE
from distill.train.trainer import collate

LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 64))
def test_every_row_is_packed_once_and_no_bin_overflows(lengths: list[int], room: int) -> None:
    bins = pack(lengths, room)
    assert sorted(row for rows in bins for row in rows) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in rows) <= room or len(rows) == 1 for rows in bins)
    if max(lengths) <= room:
        assert sum(1 for rows in bins if 2 * sum(lengths[row] for row in rows) <= room) <= 1


@given(LENGTHS, st.integers(1, 9), st.integers(1, 80), st.booleans())
def test_a_finer_cut_has_the_same_rows(lengths: list[int], at_once: int, count: int, packed: bool) -> None:
    coarse = cut(lengths, at_once, room=64 if packed else None)
    assert all(len(part) <= at_once for part in coarse)
    fine = fuller(coarse, count)
    assert sorted(row for part in fine for rows in part for row in rows) == list(range(len(lengths)))
    assert len(fine) == max(len(coarse), min(count, len(lengths)))


@pytest.fixture
def model(student: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32, attn_implementation="sdpa").eval()


def update() -> dict[str, Any]:
    rows = []
    for number, size in enumerate((9, 23, 14, 5, 17)):
        ids = [10 + (7 * number + 3 * place) % 400 for place in range(size)]
        rows.append({"input_ids": ids, "labels": [IGNORE] * (size - 3) + ids[-3:]})
    return collate(rows, 2)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("flattened", [False, True])
def test_the_logits_of_a_packed_row_are_those_of_the_row_alone(model: Any, attention: str, flattened: bool) -> None:
    model.set_attn_implementation(attention)
    inputs = update()
    lengths = inputs["attention_mask"].sum(1).tolist()
    (sequences,) = cut(lengths, 8, room=32)
    assert max(len(rows) for rows in sequences) > 1
    batch = gather(inputs, sequences, packed=True, pad=2)
    if flattened:
        longest = batch["input_ids"].size(1)
        batch = flat(batch)
    with torch.no_grad():
        got = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        running = torch.arange(batch["input_ids"].size(1)).expand_as(batch["input_ids"])
        seen = model(input_ids=batch["input_ids"], position_ids=running, use_cache=False).logits
        if flattened:
            got, seen = got.view(len(sequences), longest, -1), seen.view(len(sequences), longest, -1)
        for place, rows in enumerate(sequences):
            at = 0
            for number, row in enumerate(rows):
                alone = model(input_ids=inputs["input_ids"][row : row + 1, : lengths[row]], use_cache=False).logits[0]
                end = at + lengths[row]
                torch.testing.assert_close(got[place, at:end], alone, rtol=1e-4, atol=1e-5)
                # Positions that run on let a row see the one before it: then the check above would fail.
                if number and not flattened:
                    assert not torch.allclose(seen[place, at:end], alone, rtol=1e-2, atol=1e-2)
                at = end


def test_no_token_is_trained_across_the_border_of_two_rows() -> None:
    rows = [{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}, {"input_ids": [8, 9], "labels": [8, 9]}]
    inputs = collate(rows, 2)
    batch = gather(inputs, [[0, 1]], packed=True, pad=2)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert batch["labels"].tolist() == [[IGNORE, 6, 7, IGNORE, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert (batch["labels"] != IGNORE).sum() == (inputs["labels"][:, 1:] != IGNORE).sum()


def test_a_model_that_mixes_rows_is_found_out(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keeps_apart(model, update(), tolerance=1e-3)
    forward = model.forward

    def without_borders(*args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", without_borders)
    assert not keeps_apart(model, update(), tolerance=1e-3)


def test_in_bfloat16_rounding_is_not_taken_for_mixing(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tolerance that no rounding keeps: what counts is how far apart rows are that do see each other."""
    from distill.train.student import load_model

    model = load_model(student, dtype="bfloat16")
    forward = model.forward

    def rounded(*args: Any, **kwargs: Any) -> Any:
        found = forward(*args, **kwargs)
        draw = torch.Generator().manual_seed(found.logits.size(1))
        noise = torch.randn(found.logits.shape, generator=draw)
        found.logits = (found.logits.float() + 0.02 * found.logits.float().std() * noise).bfloat16()
        return found

    monkeypatch.setattr(model, "forward", rounded)
    assert keeps_apart(model, update(), tolerance=1e-3)

    def without_borders(*args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return rounded(*args, **kwargs)

    monkeypatch.setattr(model, "forward", without_borders)
    assert not keeps_apart(model, update(), tolerance=1e-3)


WORDS = ("lost", "stolen", "blocked", "declined")


def data() -> TrainData:
    rows: list[Conversation] = []
    for number in range(12):
        word = WORDS[number % 4]
        question = {"role": "user", "content": f"my card was {word}, please help {number} " * (1 + number % 3)}
        rows.append(
            Conversation((question, {"role": "assistant", "content": json.dumps({"intent": word})}), str(number))
        )
    return TrainData(tuple(rows))


def config(student: Path, **over: Any) -> TrainConfig:
    settings = {"batch_size": 4, "max_steps": 5, "learning_rate": 5e-3, "dtype": "float32", **over}
    return TrainConfig(model=str(student), **settings)


def losses(result: TrainResult) -> list[float]:
    return [point["loss"] for point in result.facts["losses"]]


@pytest.fixture(scope="module")
def plain(student: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(config(student), data(), tmp_path_factory.mktemp("plain"), seed=1)


@pytest.mark.parametrize("over", [{}, {"micro_batch_size": 1}, {"gradient_checkpointing": True}])
def test_packing_makes_the_same_updates(
    student: Path, plain: TrainResult, tmp_path: Path, over: dict[str, Any]
) -> None:
    packed = train(config(student, packing="bfd", max_length=160, **over), data(), tmp_path, seed=1)
    assert losses(packed) == pytest.approx(losses(plain), rel=2e-3)
    assert packed.facts["trained_tokens"] == plain.facts["trained_tokens"]
    assert packed.facts["tokens"] == plain.facts["tokens"]


def test_packing_is_refused_where_rows_would_see_each_other(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.train.supervised.keeps_apart", lambda *_, **__: False)
    with pytest.raises(InputError, match=r"train\.packing: packed rows see each other"):
        train(config(student, packing="bfd"), data(), tmp_path, seed=1)


def memory_for(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device on which no more than so many rows fit."""
    from distill.train import supervised

    honest = supervised.token_loss

    def loss(model: Any, inputs: dict[str, Any], **options: Any) -> Any:
        found = honest(model, inputs, **options)
        if len(inputs["input_ids"]) > rows:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 20.00 GiB")
        return found

    monkeypatch.setattr(supervised, "token_loss", loss)


def test_when_memory_runs_out_fewer_rows_are_passed_and_the_update_stays(
    student: Path, plain: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_for(1, monkeypatch)
    result = train(config(student), data(), tmp_path, seed=1)
    assert losses(result) == pytest.approx(losses(plain), rel=2e-3)
    assert result.facts["tokens"] == plain.facts["tokens"]
    assert result.facts["micro_batch"] == 1
    assert (
        result.facts["micro_batch_reason"] == "1 rows at once in place of 4: memory ran out; the updates are the same"
    )
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_bytes().splitlines()]
    assert [line["micro_batch_size"] for line in lines if line.get("out_of_memory")] == [2, 1]
    assert (plain.facts["micro_batch"], plain.facts["micro_batch_reason"]) == (4, None)


def test_when_one_row_is_too_much_the_way_out_is_named(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_for(0, monkeypatch)
    with pytest.raises(RunError, match="out of memory with 1 rows at once") as caught:
        train(config(student), data(), tmp_path, seed=1)
    assert "gradient_checkpointing" in str(caught.value)


def test_on_a_cpu_the_step_is_predicted_before_it_is_tried(
    student: Path, plain: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distill.train import forecast, plan

    def needed(rows: int) -> int:
        found = plan(config(student, micro_batch_size=rows), data(), seed=1, timed=False)
        return found.bytes - found.parts["libraries"]

    room = (needed(4) + needed(2)) // 2
    monkeypatch.setattr(forecast, "_plenty", lambda *_: False)
    monkeypatch.setattr(forecast, "_available", lambda job: job.libraries + room)
    result = train(config(student), data(), tmp_path, seed=1)
    assert result.facts["micro_batch"] == 2
    assert "GB with 2 rows at once, and more with 4; the updates are the same" in result.facts["micro_batch_reason"]
    assert losses(result) == pytest.approx(losses(plain), rel=2e-3)


def test_other_failures_are_not_taken_for_memory(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("distill.train.supervised.gather", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(config(student), data(), tmp_path, seed=1)
