"""On-policy distillation: the student answers, the teacher scores; a student with two layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill.errors import InputError
from distill.recipe import TrainConfig
from distill.train import TrainData, train_distillation
from distill.train.data import Conversation
from tests.support.tiny_student import make_model, make_tokenizer

WORDS = ("lost", "stolen", "blocked", "declined")


def row(number: int) -> Conversation:
    question = {"role": "user", "content": f"my card was {WORDS[number % 4]}"}
    return Conversation((question, {"role": "assistant", "content": WORDS[number % 4]}), f"train.jsonl:{number + 1}")


DATA = TrainData(tuple(row(n) for n in range(8)), tuple(row(n) for n in range(20, 24)), ("train.jsonl",))


def config(student: Path, teacher: Path, **over: Any) -> TrainConfig:
    loss = {"teacher": str(teacher), "divergence": "forward-kl", "max_tokens": 8, **over.pop("distillation", {})}
    plain = {"batch_size": 4, "max_steps": 32, "learning_rate": 3e-3, "dtype": "float32", "method": "on-policy"}
    plain["adapter"] = "full"  # a random head of this size is hardly moved by an adapter
    return TrainConfig(model=str(student), **{**plain, **over, "distillation": loss})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "tiny-teacher"
    return make_tokenizer(make_model(folder, hidden_size=96, initializer_range=0.2))


def test_the_student_comes_nearer_to_its_teacher_on_its_own_answers(
    student: Path, teacher: Path, tmp_path: Path
) -> None:
    result = train_distillation(config(student, teacher, micro_batch_size=2), DATA, tmp_path, seed=1)
    facts = result.facts
    assert (facts["method"], facts["teacher"], facts["rows"], facts["steps"]) == ("on-policy", "tiny-teacher", 8, 32)
    losses = [point["loss"] for point in facts["losses"]]
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])
    assert len(facts["validation_losses"]) > 0
    assert 0 < facts["trained_tokens"] <= 32 * 4 * 8  # its own answers, and no token of the rows'
    assert {path.name for path in tmp_path.iterdir()} == {"model", "chat_template.jinja", "train.json", "log.jsonl"}


def test_what_is_asked_is_the_prompt_of_evaluation(student: Path, teacher: Path, tmp_path: Path) -> None:
    from distill.train import onpolicy
    from distill.train import student as students
    from distill.train.template import stop_tokens
    from distill.train.watch import Watch

    chosen = config(student, teacher)
    tokenizer = students.load_tokenizer(student)
    model, above = (students.load_model(folder, dtype="float32") for folder in (student, teacher))
    arguments = onpolicy.settings(chosen, tmp_path, seed=1, dtype="float32", rows=8, watched=0)
    peft = students.adapter_config(chosen.lora, model)
    trainer = onpolicy.build(chosen, arguments, model, above, tokenizer, DATA.train, (), Watch(), peft=peft)
    ids, _, _ = trainer._tokenize_prompts(["0/3"])
    assert tokenizer.decode(ids[0]) == "<|im_start|>user\nmy card was declined<|im_end|>\n<|im_start|>assistant\n"
    assert trainer.generation_config.eos_token_id == list(stop_tokens(tokenizer, [2]))


def test_heads_of_two_widths_and_too_few_prompts_are_refused(student: Path, teacher: Path, tmp_path: Path) -> None:
    wider = make_tokenizer(make_model(tmp_path / "wider", vocab_size=544))
    with pytest.raises(InputError, match="output head has 512 entries, the teacher's 544"):
        train_distillation(config(student, wider), DATA, tmp_path / "one")
    with pytest.raises(InputError, match=r"8 prompts have at most .* an update takes 16"):
        train_distillation(config(student, teacher, batch_size=16), DATA, tmp_path / "two")
