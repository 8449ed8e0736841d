"""Traps of the libraries underneath: each test shows the trap itself, and that training here does not step into it.

Others stand where their subject is: evaluation on a 4-bit base and rotary frequencies in `test_kernels.py`, early
stopping on the task metric in `test_task_metric.py`, the copy of the reference in `test_dpo.py`, padding with the
EOS token in `test_loss.py`, local paths in `test_sft.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.recipe import TrainConfig
from distill.train import TrainData
from distill.train.data import Conversation
from distill.train.examples import prepare
from distill.train.student import offline
from distill.train.template import Encoder
from distill.train.trainer import settings

TURNS = ({"role": "user", "content": "lost my card"}, {"role": "assistant", "content": "blocked"})


def chosen(student: Path, folder: Path, **over: Any) -> Any:
    config = TrainConfig(model=str(student), **over)
    return settings(config, folder, seed=1, dtype="float32", rows=32, watched=0)


def test_the_mask_needs_no_marks_in_the_template(tokenizer_with: Callable[..., Any]) -> None:
    tokenizer = tokenizer_with()
    theirs = tokenizer.apply_chat_template(
        list(TURNS), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert not any(theirs["assistant_masks"])  # the trap: zeros, and nothing would be trained
    (ours,) = Encoder(tokenizer)(Conversation(TURNS, "rows.jsonl:1"))
    assert ours.trained == 2 + len(tokenizer("blocked", add_special_tokens=False)["input_ids"]) - 1


def test_no_row_is_cut(student: Path, tmp_path: Path, tokenizer_with: Callable[..., Any]) -> None:
    from trl.trainer.sft_config import SFTConfig

    assert SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False).max_length == 1024  # the trap
    assert chosen(student, tmp_path).max_length is None
    long = ({"role": "user", "content": "lost my card " * 600}, TURNS[1])
    data = TrainData((Conversation(TURNS, "rows.jsonl:1"), Conversation(long, "rows.jsonl:2")))
    whole = prepare(data, tokenizer_with(), max_length=1 << 20)
    assert [example.input_ids[-2:] for example in whole.train] == [whole.train[0].input_ids[-2:]] * 2
    assert len(whole.train[1].input_ids) > 1024
    assert whole.dropped == 0
    short = prepare(data, tokenizer_with(), max_length=1024)
    assert (len(short.train), short.dropped) == (1, 1)


@pytest.mark.parametrize("micro", [None, 1, 2, 4, 8])
def test_the_rows_of_an_update_do_not_depend_on_memory(student: Path, tmp_path: Path, micro: int | None) -> None:
    found = chosen(student, tmp_path, batch_size=8, micro_batch_size=micro)
    assert found.per_device_train_batch_size * found.gradient_accumulation_steps == 8
    assert found.auto_find_batch_size is False  # the trap: it would halve the first factor and leave the second


def test_the_products_of_batches_of_all_lengths_are_not_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled for a shape, with scratch memory each: a gigabyte after thirty updates of a 135M model."""
    names = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    offline()
    assert [os.environ[name] for name in names] == ["64", "64"]
    monkeypatch.setenv(names[0], "5")
    offline()
    assert os.environ[names[0]] == "5"


def test_waiting_threads_spin_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    offline()
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"]) == ("PASSIVE", "10000")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
