"""Whole trainings of a student with two layers: what is left in the folder, and what must not change it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.errors import Halted, InputError, RunError
from distill.recipe import TrainConfig
from distill.train import Progress, TrainData, TrainResult, train
from distill.train.data import Conversation

WORDS = ("lost", "stolen", "blocked", "declined")


def row(number: int, length: int = 1) -> Conversation:
    word = WORDS[number % 4]
    turns = (
        {"role": "system", "content": "Route the message of the customer."},
        {"role": "user", "content": f"my card was {word}, please help {number}" * length},
        {"role": "assistant", "content": json.dumps({"intent": word})},
    )
    return Conversation(turns, f"rows.jsonl:{number}")


ROWS = tuple(row(number) for number in range(12))
DATA = TrainData(ROWS, sources=("rows.jsonl",))


def config(student: Path, **over: Any) -> TrainConfig:
    settings = {"batch_size": 4, "max_steps": 6, "learning_rate": 5e-3, "dtype": "float32", **over}
    return TrainConfig(model=str(student), **settings)


@pytest.fixture(scope="module")
def trained(student: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, list[Progress]]:
    seen: list[Progress] = []
    return train(config(student), DATA, tmp_path_factory.mktemp("lora"), seed=1, progress=seen.append), seen


def test_the_loss_falls_and_progress_tells_of_every_update(trained: tuple[TrainResult, list[Progress]]) -> None:
    result, seen = trained
    assert result.facts["loss_last"] < result.facts["loss_first"] - 0.2
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1].seconds_left == 0
    assert all(p.tokens_per_second > 0 for p in seen)


def test_the_folder_holds_what_is_promised(trained: tuple[TrainResult, list[Progress]]) -> None:
    result, _ = trained
    names = {str(path.relative_to(result.out)) for path in result.out.rglob("*") if path.is_file()}
    assert names == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/chat_template.jinja",
        "adapter/distill.json",
        "chat_template.jinja",
        "train.json",
        "log.jsonl",
    }
    facts = json.loads((result.out / "train.json").read_bytes())
    assert (facts["rows"], facts["steps"], facts["seed"], facts["data_digest"]) == (12, 6, 1, DATA.digest)
    assert facts["example"]["text"].endswith('⟦{"intent": "lost"}<|im_end|>⟧\n')
    assert facts["example"]["ends_with"] == "<|im_end|>"
    assert [point["step"] for point in facts["losses"]] == [1, 2, 3, 4, 5, 6]
    assert len((result.out / "log.jsonl").read_bytes().splitlines()) == 6


def test_no_file_names_a_path_of_this_machine(trained: tuple[TrainResult, list[Progress]], student: Path) -> None:
    result, _ = trained
    for file in result.out.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert str(student.parent).encode() not in content, file
            assert str(result.out).encode() not in content, file
    assert (
        json.loads((result.out / "adapter/adapter_config.json").read_bytes())["base_model_name_or_path"] == "tiny-llama"
    )


def test_the_seed_decides_the_weights(
    trained: tuple[TrainResult, list[Progress]], student: Path, tmp_path: Path
) -> None:
    again = train(config(student), DATA, tmp_path / "again", seed=1)
    other = train(config(student), DATA, tmp_path / "other", seed=2)
    assert again.facts["weights_digest"] == trained[0].facts["weights_digest"] != other.facts["weights_digest"]


def test_watching_the_validation_loss_does_not_change_the_training(
    trained: tuple[TrainResult, list[Progress]], student: Path, tmp_path: Path
) -> None:
    watched = train(config(student), TrainData(ROWS, (row(20), row(21))), tmp_path / "watched", seed=1)
    assert watched.facts["validation_loss"] > 0
    assert watched.facts["weights_digest"] == trained[0].facts["weights_digest"]


def test_a_smaller_micro_batch_makes_the_same_updates(
    trained: tuple[TrainResult, list[Progress]], student: Path, tmp_path: Path
) -> None:
    small = train(config(student, micro_batch_size=1), DATA, tmp_path / "small", seed=1)
    wanted = [point["loss"] for point in trained[0].facts["losses"]]
    assert [point["loss"] for point in small.facts["losses"]] == pytest.approx(wanted, rel=2e-3)


def test_an_interrupted_training_goes_on_to_the_same_weights(
    trained: tuple[TrainResult, list[Progress]], student: Path, tmp_path: Path
) -> None:
    steps: list[int] = []
    with pytest.raises(Halted, match="stopped at step 2 of 6"):
        train(
            config(student),
            DATA,
            tmp_path,
            seed=1,
            progress=lambda p: steps.append(p.step),
            stop=lambda: len(steps) >= 1,
        )
    result = train(config(student), DATA, tmp_path, seed=1, progress=lambda p: steps.append(p.step))
    assert steps == [1, 2, 3, 4, 5, 6]
    assert result.facts["resumed_from"] == 2
    assert result.facts["weights_digest"] == trained[0].facts["weights_digest"]
    assert [point["step"] for point in result.facts["losses"]] == [1, 2, 3, 4, 5, 6]
    assert not (tmp_path / "checkpoints").exists()


def test_a_finished_training_is_not_repeated_and_another_one_not_overwritten(
    trained: tuple[TrainResult, list[Progress]], student: Path
) -> None:
    result, _ = trained
    seen: list[Progress] = []
    assert train(config(student), DATA, result.out, seed=1, progress=seen.append).facts == result.facts
    assert seen == []
    with pytest.raises(InputError, match="holds another training") as caught:
        train(config(student), TrainData(ROWS[:4]), result.out, seed=1)
    assert "--overwrite" in str(caught.value)


def test_long_rows_are_counted_and_left_out_whole(student: Path, tmp_path: Path) -> None:
    data = TrainData((*ROWS, row(40, length=12)))
    result = train(config(student, max_length=128, max_steps=1), data, tmp_path / "some", seed=1)
    assert (result.facts["rows"], result.facts["dropped_long"]) == (12, 1)
    with pytest.raises(InputError, match="all 12 rows are longer than max_length"):
        train(config(student, max_length=16), DATA, tmp_path / "all", seed=1)
    # Nothing was trained there: the folder is free for other settings.
    assert train(config(student, max_length=128, max_steps=1), DATA, tmp_path / "all", seed=1).facts["steps"] == 1


def test_a_place_that_cannot_be_written_is_told_at_once(student: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(InputError, match="is a file, not a folder"):
            train(config(student), DATA, out, seed=1)


def test_qlora_trains_float32_adapters_on_a_4_bit_base(student: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    data = TrainData(ROWS, (row(20),))
    result = train(config(student, adapter="qlora", max_steps=4), data, tmp_path / "watched", seed=1)
    alone = train(config(student, adapter="qlora", max_steps=4), TrainData(ROWS), tmp_path / "alone", seed=1)
    assert result.facts["loss_last"] < result.facts["loss_first"]
    assert result.facts["weights_digest"] == alone.facts["weights_digest"]
    weights = load_file(tmp_path / "watched/adapter/adapter_model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.float32"}
    assert json.loads((tmp_path / "watched/adapter/distill.json").read_bytes())["four_bit"] is True


def test_a_full_fine_tune_leaves_a_model_folder(student: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    result = train(config(student, adapter="full", max_steps=2, dtype="bfloat16"), DATA, tmp_path, seed=1)
    assert result.adapter is None
    assert result.model is not None
    AutoModelForCausalLM.from_pretrained(result.model, local_files_only=True)
    for file in result.model.iterdir():
        assert str(student.parent).encode() not in file.read_bytes(), file


@pytest.mark.parametrize(("adapter", "kind"), [("full", "bfloat16"), ("full", "float32"), ("lora", "bfloat16")])
def test_products_are_made_in_the_number_type_asked_for(
    adapter: str, kind: str, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full fine-tune holds float32 and multiplies in bfloat16: accelerate's autocast has to reach our own loss."""
    from distill.train import loss

    honest, seen = loss.logits_of, set[str]()

    def logits_of(causal: Any, states: Any) -> Any:
        found = honest(causal, states)
        seen.add(str(found.dtype).removeprefix("torch."))
        return found

    monkeypatch.setattr(loss, "logits_of", logits_of)
    result = train(config(student, adapter=adapter, dtype=kind, max_steps=1), DATA, tmp_path, seed=1)
    assert result.facts["own_loss"]
    assert seen == {kind}


def test_a_loss_that_is_not_finite_ends_the_training(student: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the loss is nan at step"):
        train(config(student, learning_rate=1e30, max_steps=8, warmup=0), DATA, tmp_path, seed=1)


def test_a_model_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"no \*.safetensors"):
        train(config(tmp_path), DATA, tmp_path / "out", seed=1)


def test_rows_per_update_cannot_change_by_accident(student: Path) -> None:
    with pytest.raises(ValueError, match="does not divide batch_size"):
        config(student, micro_batch_size=3)


@pytest.mark.parametrize("kind", ["rslora", "dora"])
def test_other_scales_of_the_adapter_are_trained_and_saved(student: Path, tmp_path: Path, kind: str) -> None:
    result = train(config(student, lora={"r": 4, kind: True}, max_steps=3), DATA, tmp_path, seed=1)
    saved = json.loads((tmp_path / "adapter/adapter_config.json").read_bytes())
    assert saved[f"use_{kind}"] is True
    assert result.facts["loss_last"] < result.facts["loss_first"]


def test_noise_on_the_embeddings_changes_training_and_stays_out_of_what_is_saved(
    trained: tuple[TrainResult, list[Progress]], student: Path, tmp_path: Path
) -> None:
    data = TrainData(ROWS, (row(20),))
    noisy = train(config(student, neftune=5.0), data, tmp_path / "noisy", seed=1)
    again = train(config(student, neftune=5.0), TrainData(ROWS), tmp_path / "again", seed=1)
    assert noisy.facts["weights_digest"] != trained[0].facts["weights_digest"]
    assert noisy.facts["weights_digest"] == again.facts["weights_digest"]
    assert noisy.facts["shared_prefix"] is False


def test_thinking_is_kept_or_dropped_as_declared(student: Path, tmp_path: Path) -> None:
    turns = (*ROWS[0].turns[:-1], {"role": "assistant", "content": "<think>it is gone</think>\n\nlost"})
    data = TrainData((Conversation(turns, "rows.jsonl:1"),))
    kept = train(config(student, max_steps=1), data, tmp_path / "kept").facts
    assert kept["example"]["text"].endswith("⟦<think>it is gone</think>\n\nlost<|im_end|>⟧\n")
    assert kept["thinking_lost"] == 0
    dropped = train(config(student, max_steps=1, thinking="drop"), data, tmp_path / "dropped").facts
    assert dropped["example"]["text"].endswith("⟦lost<|im_end|>⟧\n")


def test_a_setting_that_came_later_does_not_disown_an_older_training(student: Path) -> None:
    from distill.io import digest
    from distill.train.folder import identity

    plain = config(student)
    older = plain.model_dump(
        mode="json",
        include={
            *("adapter", "lora", "epochs", "max_steps", "learning_rate", "schedule", "warmup", "batch_size"),
            *("micro_batch_size", "weight_decay", "max_grad_norm", "max_length", "dtype", "gradient_checkpointing"),
        },
    )
    assert identity(plain, seed=1) == digest({"config": older, "seed": 1})
    assert identity(config(student, neftune=5.0), seed=1) != identity(plain, seed=1)
