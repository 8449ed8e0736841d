"""A student with two layers learns what a teacher of its vocabulary would say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.errors import Halted, InputError
from distill.recipe import TrainConfig
from distill.train import Progress, TrainData, TrainResult, read_stored, train_distillation
from distill.train.data import Conversation
from distill.train.stored import Position, positions
from distill.train.targets import align, pieces
from distill.train.template import Encoder
from tests.support.tiny_student import CHATML, make_model, make_tokenizer

WORDS = ("lost", "stolen", "blocked", "declined")


def row(number: int) -> Conversation:
    question = {"role": "user", "content": f"my card was {WORDS[number % 4]}, please help {number}"}
    answer = {"role": "assistant", "content": json.dumps({"intent": WORDS[number % 4]})}
    return Conversation((question, answer), f"train.jsonl:{number + 1}")


DATA = TrainData(tuple(row(n) for n in range(12)), tuple(row(n) for n in range(20, 24)), ("train.jsonl",))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same tokens: wider, and with a padded output head."""
    folder = tmp_path_factory.mktemp("teacher") / "tiny-teacher"
    return make_tokenizer(make_model(folder, hidden_size=96, vocab_size=544, initializer_range=0.2))


def config(student: Path, teacher: Path | None, **over: Any) -> TrainConfig:
    loss = {"teacher": str(teacher) if teacher else None, **over.pop("distillation", {})}
    plain = {"batch_size": 4, "max_steps": 24, "learning_rate": 3e-3, "dtype": "float32", "method": "distill"}
    plain["adapter"] = "full"  # a random head of this size is hardly moved by an adapter
    return TrainConfig(model=str(student), **{**plain, **over, "distillation": loss})


@pytest.fixture(scope="module")
def trained(
    student: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainResult, list[Progress]]:
    seen: list[Progress] = []
    out = tmp_path_factory.mktemp("distill")
    return train_distillation(config(student, teacher), DATA, out, seed=1, progress=seen.append), seen


def test_the_student_comes_nearer_to_its_teacher_on_rows_it_was_not_trained_on(
    trained: tuple[TrainResult, list[Progress]],
) -> None:
    result, seen = trained
    held_out = result.facts["held_out"]
    assert held_out["divergence"] < 0.8 * held_out["divergence_before"]
    assert seen[-1].figures["divergence"] < seen[0].figures["divergence"]
    assert (result.facts["method"], result.facts["teacher"], result.facts["rows"]) == ("distill", "tiny-teacher", 12)
    assert result.facts["example"]["text"].endswith('⟦{"intent": "lost"}<|im_end|>⟧\n')


@pytest.mark.parametrize("kind", ["bfloat16", "float32"])
def test_products_are_made_in_the_number_type_asked_for(
    kind: str, student: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full fine-tune holds float32 and multiplies in bfloat16."""
    from distill.train import distilling

    honest, seen = distilling.logits_of, set[str]()

    def logits_of(causal: Any, states: Any) -> Any:
        found = honest(causal, states)
        if found.requires_grad:
            seen.add(str(found.dtype).removeprefix("torch."))
        return found

    monkeypatch.setattr(distilling, "logits_of", logits_of)
    train_distillation(config(student, teacher, dtype=kind, max_steps=1), DATA, tmp_path / "out", seed=1)
    assert seen == {kind}


def test_the_folder_holds_the_student_and_nothing_of_this_machine(
    trained: tuple[TrainResult, list[Progress]], student: Path, teacher: Path
) -> None:
    out = trained[0].out
    assert {path.name for path in out.iterdir()} == {"model", "chat_template.jinja", "train.json", "log.jsonl"}
    for file in out.rglob("*"):
        if file.is_file():
            assert str(student.parent).encode() not in file.read_bytes(), file
            assert str(teacher.parent).encode() not in file.read_bytes(), file


def test_an_interrupted_distillation_goes_on_to_the_same_weights(
    trained: tuple[TrainResult, list[Progress]], student: Path, teacher: Path, tmp_path: Path
) -> None:
    steps: list[int] = []

    def count(progress: Progress) -> None:
        steps.append(progress.step)

    with pytest.raises(Halted, match="stopped at step 2 of 24"):
        train_distillation(
            config(student, teacher), DATA, tmp_path, seed=1, progress=count, stop=lambda: len(steps) >= 1
        )
    result = train_distillation(config(student, teacher), DATA, tmp_path, seed=1, progress=count)
    assert steps == list(range(1, 25))
    assert result.facts["weights_digest"] == trained[0].facts["weights_digest"]


def test_a_teacher_equal_to_the_student_leaves_nothing_to_learn(student: Path, tmp_path: Path) -> None:
    same = config(student, student, max_steps=2, adapter="lora", distillation={"cross_entropy": 0.0})
    result = train_distillation(same, DATA, tmp_path, seed=1)
    assert result.facts["losses"][0]["loss"] == pytest.approx(0, abs=1e-6)
    assert result.facts["held_out"]["divergence_before"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("over", [{"top_k": 16}, {"top_k": 16, "temperature": 2.0}, {"divergence": "jsd"}])
def test_every_way_of_asking_brings_it_nearer(
    student: Path, teacher: Path, tmp_path: Path, over: dict[str, Any]
) -> None:
    result = train_distillation(config(student, teacher, distillation=over), DATA, tmp_path, seed=1)
    held_out = result.facts["held_out"]
    assert held_out["divergence"] < 0.97 * held_out["divergence_before"]
    assert result.facts["loss_last"] < 0.85 * result.facts["loss_first"]


def test_a_teacher_of_another_vocabulary_is_refused_by_its_first_token(student: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other")
    make_tokenizer(other, CHATML, additional_special_tokens=["<|endoftext|>", "<|im_start|>", "<|extra|>"])
    with pytest.raises(InputError, match=r"other has another vocabulary than the student: 1 of .*'<\|extra\|>' is"):
        train_distillation(config(student, other), DATA, tmp_path / "out")


def test_settings_that_would_be_ignored_are_refused(student: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train.packing: is for method: sft"):
        train_distillation(config(student, teacher, packing="bfd"), DATA, tmp_path)
    with pytest.raises(InputError, match="on-policy needs a local teacher"):
        train_distillation(config(student, None, method="on-policy"), DATA, tmp_path)
    with pytest.raises(ValueError, match="stored log-probabilities are of temperature 1"):
        config(student, None, distillation={"temperature": 2.0})


# -- stored log-probabilities --------------------------------------------------------------------------------------


def said(tokenizer: Any, rows: tuple[Conversation, ...], *, likely: str = "lost") -> dict[str, tuple[Position, ...]]:
    """What a provider would have given along: each token with 0.7, and `likely` with 0.2 beside it."""
    import math

    known, encoder = pieces(tokenizer), Encoder(tokenizer)
    other = likely.encode()
    found: dict[str, tuple[Position, ...]] = {}
    for item in rows:
        ids = encoder.last(item)[1][:-1]  # the end of the turn is not among them
        best = [(piece, ((piece, math.log(0.7)), (other, math.log(0.2)))) for i in ids if (piece := known[i])]
        found[item.where] = tuple(Position(piece, math.log(0.7), tokens) for piece, tokens in best)
    return found


@pytest.fixture
def tokenizer(student: Path) -> Any:
    from distill.train.student import load_tokenizer

    return load_tokenizer(student)


def test_stored_probabilities_are_learned(student: Path, tokenizer: Any, tmp_path: Path) -> None:
    told = said(tokenizer, DATA.train + DATA.validation)
    del told["train.jsonl:1"]
    result = train_distillation(config(student, None), DATA, tmp_path, said=told, seed=1)
    held_out = result.facts["held_out"]
    assert held_out["divergence"] < 0.8 * held_out["divergence_before"]
    assert (result.facts["teacher"], result.facts["rows_without"]) == ("stored log-probabilities", 1)


def test_tokens_line_up_with_the_answer_and_its_end_is_left_to_cross_entropy(student: Path, tokenizer: Any) -> None:
    import torch

    example = Encoder(tokenizer)(row(0))[0]
    told = said(tokenizer, (row(0),))
    (target,) = align([example], told, tokenizer, head=512).targets
    trained = [label for label in example.labels[1:] if label >= 0]
    assert target.ids[:-1, 0].tolist() == trained[:-1]
    assert torch.isfinite(target.logs).any(-1).tolist() == [True] * (len(trained) - 1) + [False]
    # White space that was taken off the answer's ends is passed over.
    spaced = (Position(b"\n", -0.1), *told[example.where], Position(b" ", -0.1))
    again = align([example], {example.where: spaced}, tokenizer, head=512)
    assert again.targets[0].ids.tolist() == target.ids.tolist()


def test_tokens_of_another_tokenizer_are_refused_with_the_first_row(
    student: Path, tokenizer: Any, tmp_path: Path
) -> None:
    told = {
        item.where: tuple(Position(char.encode(), -0.1) for char in item.turns[-1]["content"]) for item in DATA.train
    }
    with pytest.raises(InputError, match=r"not the student's in 12 of 12 rows; train.jsonl:1: token \d+ of the answer"):
        train_distillation(config(student, None), DATA, tmp_path, said=told)
    with pytest.raises(InputError, match="no row holds log-probabilities"):
        train_distillation(config(student, None), DATA, tmp_path, said={}, overwrite=True)


def test_rows_are_read_in_the_shape_of_the_chat_completions_api(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    best = [{"token": "a", "logprob": -0.1, "bytes": [97]}, {"token": "b", "logprob": -2.5}]
    value = [{"token": "a", "logprob": -0.1, "top_logprobs": best}, {"token": "bytes:\\xe2\\x80", "logprob": -1}]
    path.write_text(json.dumps({"messages": [], "logprobs": value}) + "\n" + json.dumps({"messages": []}) + "\n")
    wanted = (Position(b"a", -0.1, ((b"a", -0.1), (b"b", -2.5))), Position(b"\xe2\x80", -1.0))
    assert read_stored(path) == {"rows.jsonl:1": wanted}
    for wrong in (1.5, None, "x", True):
        with pytest.raises(InputError, match=r"rows.jsonl:7: logprobs.0.logprob: should be a logarithm"):
            positions([{"token": "a", "logprob": wrong}], path=path, line=7)


def test_pieces_of_a_byte_level_vocabulary_join_to_the_text(tokenizer: Any) -> None:
    known = pieces(tokenizer)
    text = "the card – naïve 🙂 was lost"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert b"".join(known[i] or b"?" for i in ids) == text.encode()
