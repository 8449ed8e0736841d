"""What was trained is what is scored: template, number type and 4-bit base travel with the adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from distill.evaluate import Student
from distill.evaluate.holdout import Item
from distill.recipe import TrainConfig
from distill.train import TrainData, train
from distill.train.data import Conversation
from distill.train.student import load_model, load_tokenizer

WORDS = ("lost", "stolen")
ITEMS = [Item(w, ({"role": "user", "content": f"my card was {w}"},), json.dumps({"i": w})) for w in WORDS]
ROWS = tuple(Conversation((*i.messages, {"role": "assistant", "content": i.answer}), i.id) for i in ITEMS) * 4


def config(student: Path, **over: Any) -> TrainConfig:
    settings = {"batch_size": 8, "max_steps": 20, "learning_rate": 5e-3, "schedule": "linear", "dtype": "float32"}
    return TrainConfig.model_validate({"model": str(student), **settings, **over})


def test_a_fully_trained_student_gives_the_answers_it_was_taught_and_stops(student: Path, tmp_path: Path) -> None:
    result = train(config(student, adapter="full", max_steps=40), TrainData(ROWS), tmp_path, seed=1)
    found = Student(str(result.model), max_tokens=12, latency_items=0).generate(ITEMS).predictions
    assert [(p.text, p.finish) for p in found] == [(item.answer, "stop") for item in ITEMS]


@pytest.mark.parametrize("kind", ["lora", "qlora"])
def test_an_adapter_answers_on_the_base_it_was_trained_on(kind: str, student: Path, tmp_path: Path) -> None:
    """Wherever the folder is moved, and as PEFT itself would answer."""
    import torch
    from peft import PeftModel

    result = train(config(student, adapter=kind), TrainData(ROWS), tmp_path / "out", seed=1)
    assert result.adapter is not None
    adapter = shutil.copytree(result.adapter, tmp_path / "elsewhere")
    system = Student(str(student), adapter, max_tokens=12, latency_items=0)
    assert system.four_bit == (kind == "qlora")
    found = system.generate(ITEMS).predictions
    tokenizer = load_tokenizer(student)
    model = PeftModel.from_pretrained(load_model(student, dtype="float32", four_bit=kind == "qlora"), adapter).eval()
    for item, prediction in zip(ITEMS, found, strict=True):
        prompt = tokenizer.apply_chat_template(list(item.messages), add_generation_prompt=True, return_tensors="pt")
        ids = prompt["input_ids"]
        with torch.no_grad():
            made = model.generate(input_ids=ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        assert prediction.text == tokenizer.decode(made, skip_special_tokens=True)
        assert prediction.text.startswith("{")


def test_a_penalty_in_the_models_settings_is_no_part_of_the_score(student: Path, tmp_path: Path) -> None:
    """Many models come with one for chatting; over a prompt with the labels in it, it forbids the right answer."""
    item = Item("1", ({"role": "user", "content": '{"i": "lost"} or {"i": "stolen"}'},), '{"i": "lost"}')
    row = Conversation((*item.messages, {"role": "assistant", "content": item.answer}), "1")
    made = train(config(student, adapter="full", max_steps=40), TrainData((row,) * 8), tmp_path / "out", seed=1)
    assert made.model is not None
    file = made.model / "generation_config.json"
    settings = {**json.loads(file.read_text()), "repetition_penalty": 1.5, "no_repeat_ngram_size": 2}
    file.write_text(json.dumps(settings))
    found = Student(str(made.model), max_tokens=12, latency_items=0).generate([item]).predictions
    assert found[0].text == item.answer


THINKING = [{"role": "assistant", "content": f"<think>\na {w} card\n</think>\n\n{json.dumps({'i': w})}"} for w in WORDS]
EMPTY_THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and '<think>' not in m['content'] %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("thoughts", ["a card", ""])
def test_what_a_student_thinks_is_not_its_answer(thoughts: str, student: Path, tmp_path: Path) -> None:
    """Thoughts it was taught, and the empty ones that some templates put before every answer."""
    folder = shutil.copytree(student, tmp_path / "base")
    (folder / "chat_template.jinja").write_text(EMPTY_THOUGHTS)
    taught = THINKING if thoughts else [{"role": "assistant", "content": item.answer} for item in ITEMS]
    rows = tuple(Conversation((*i.messages, turn), i.id) for i, turn in zip(ITEMS, taught, strict=True)) * 4
    result = train(config(folder, adapter="full", max_steps=60), TrainData(rows), tmp_path / "out", seed=1)
    found = Student(str(result.model), max_tokens=60, latency_items=0).generate(ITEMS).predictions
    assert [p.text for p in found] == [item.answer for item in ITEMS]
    assert [p.reasoning for p in found] == ([f"a {w} card" for w in WORDS] if thoughts else ["", ""])
    assert all(p.tokens > len("<think>") for p in found)


def test_the_adapters_template_is_used(student: Path, tmp_path: Path) -> None:
    result = train(config(student, max_steps=1), TrainData(ROWS), tmp_path, seed=1)
    before = Student(str(student), tmp_path).about()
    assert result.adapter is not None
    template = result.adapter / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert Student(str(student), tmp_path).about()["template"] != before["template"]
    assert before["adapter_digest"] == result.facts["weights_digest"]
