"""Preference training of a student with two layers: the right tokens, the right reference, and what is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill.errors import Halted, InputError
from distill.recipe import TrainConfig
from distill.train import Pair, PairData, Progress, TrainData, TrainResult, read_pairs, train, train_preferences
from distill.train.data import Conversation
from distill.train.pairing import build, encode, settings
from distill.train.pairs import pair as read_pair
from distill.train.watch import Watch

WORDS = ("lost", "stolen", "blocked", "declined")
SYSTEM = {"role": "system", "content": "Route the message of the customer."}


def question(number: int, length: int = 1) -> dict[str, str]:
    return {"role": "user", "content": f"my card was {WORDS[number % 4]}, please help {number}" * length}


def pair(number: int, length: int = 1) -> Pair:
    word = WORDS[number % 4]
    return Pair(
        (SYSTEM, question(number, length)), json.dumps({"intent": word}), f"It was {word}.", f"pairs.jsonl:{number}"
    )


PAIRS = tuple(pair(number) for number in range(12))
DATA = PairData(PAIRS, tuple(pair(number) for number in range(20, 26)), sources=("pairs.jsonl",))


def config(student: Path | None, **over: Any) -> TrainConfig:
    plain = {"batch_size": 4, "max_steps": 6, "learning_rate": 5e-3, "dtype": "float32", "method": "dpo"}
    return TrainConfig(model=str(student) if student else "", **{**plain, **over})


def supervised(student: Path, out: Path, **over: Any) -> TrainResult:
    turns = (SYSTEM, question(0), {"role": "assistant", "content": json.dumps({"intent": "lost"})})
    return train(config(student, method="sft", max_steps=2, **over), TrainData((Conversation(turns),) * 4), out, seed=1)


@pytest.fixture(scope="module")
def adapter(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return supervised(student, tmp_path_factory.mktemp("sft")).out


@pytest.fixture(scope="module")
def trained(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, list[Progress]]:
    seen: list[Progress] = []
    out = tmp_path_factory.mktemp("dpo")
    return train_preferences(config(None), DATA, out, adapter=adapter, seed=1, progress=seen.append), seen


def test_held_out_pairs_are_told_apart_after_training(trained: tuple[TrainResult, list[Progress]]) -> None:
    result, seen = trained
    held_out = result.facts["held_out"]
    assert held_out["pairs"] == 6
    assert held_out["accuracy"] == 1
    assert held_out["margin"] > 0.1
    assert held_out["chosen_change"] > held_out["rejected_change"]
    assert result.facts["loss_last"] < result.facts["loss_first"] == pytest.approx(0.693, abs=0.05)
    assert [p.step for p in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1].figures["accuracy"] == 1
    assert seen[-1].figures["margin"] > 0


def test_the_first_update_starts_at_the_reference(trained: tuple[TrainResult, list[Progress]]) -> None:
    # Policy and reference are the same student there, so the loss is ln 2 and the margin nothing.
    losses = trained[0].facts["losses"]
    assert losses[0]["loss"] == pytest.approx(0.693147, abs=1e-4)


def test_the_folder_holds_one_adapter_and_no_copy_of_the_reference(
    trained: tuple[TrainResult, list[Progress]], student: Path, adapter: Path
) -> None:
    result, _ = trained
    names = {str(path.relative_to(result.out)) for path in result.out.rglob("*")}
    assert names == {
        "adapter",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/chat_template.jinja",
        "adapter/distill.json",
        "chat_template.jinja",
        "train.json",
        "log.jsonl",
    }
    for file in result.out.rglob("*"):
        if file.is_file():
            assert str(student.parent).encode() not in file.read_bytes(), file
            assert str(adapter).encode() not in file.read_bytes(), file
    facts = json.loads((result.out / "train.json").read_bytes())
    assert (facts["method"], facts["model"], facts["rows"]) == ("dpo", "tiny-llama", 12)
    assert facts["example"]["text"].endswith('⟦{"intent": "lost"}<|im_end|>⟧\nrejected: ⟦It was lost.<|im_end|>⟧')


def test_without_our_way_of_saving_a_ref_folder_would_be_left(student: Path, adapter: Path, tmp_path: Path) -> None:
    trainer = built(student, adapter, tmp_path)
    trainer.save_model(tmp_path / "plain")
    assert (tmp_path / "plain/ref/adapter_model.safetensors").is_file()  # the trap itself


def built(student: Path, adapter: Path | None, folder: Path, *, four_bit: bool = False) -> Any:
    from distill.train import student as students

    tokenizer = students.load_tokenizer(student)
    rows, _ = encode(PAIRS, tokenizer, max_length=512)
    model = students.load_model(student, dtype="float32", four_bit=four_bit)
    chosen = config(student)
    if adapter is not None:
        model = students.load_adapter(model, adapter / "adapter", trainable=True)
    peft = None if adapter is not None else students.adapter_config(chosen.lora, model)
    arguments = settings(chosen, folder, seed=1, dtype="float32", rows=12, watched=0)
    return build(chosen, arguments, model, tokenizer, rows, [], Watch(), peft=peft, tolerance=1e-3)


def test_answers_are_scored_as_trl_scores_them(student: Path, adapter: Path, tmp_path: Path) -> None:
    import torch
    from trl.trainer.utils import add_fused_lm_head

    trainer = built(student, adapter, tmp_path)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, -100)
    causal = trainer.model.get_base_model()
    names = ("log_probs", "entropy", "mean_logits", "is_top1")
    ours = causal(**batch, labels=labels, fused_lm_head=True)
    grads = torch.autograd.grad(ours.log_probs.sum(), [p for p in causal.parameters() if p.requires_grad])
    del causal.forward
    add_fused_lm_head(causal, outputs=names)
    theirs = causal(**batch, labels=labels, fused_lm_head=True)
    wanted = torch.autograd.grad(theirs.log_probs.sum(), [p for p in causal.parameters() if p.requires_grad])
    for name in names:
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-4, atol=1e-4)
    for found, right in zip(grads, wanted, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-3, atol=1e-4)


def test_only_the_answers_and_their_ends_count(student: Path, adapter: Path, tmp_path: Path) -> None:
    trainer = built(student, adapter, tmp_path)
    batch = trainer.data_collator([trainer.train_dataset[0]])
    decode = trainer.processing_class.decode
    said = [decode(row[mask == 1]) for row, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)]
    assert said == ['{"intent": "lost"}<|im_end|>', "It was lost.<|im_end|>"]
    prompt = decode(batch["input_ids"][0][batch["completion_mask"][0] == 0])
    assert prompt.startswith("<|im_start|>system\n")
    assert prompt.replace("<|im_end|>", "").endswith("<|im_start|>assistant\n")  # then padding, of the id of EOS


@pytest.mark.parametrize("four_bit", [False, True])
def test_the_reference_is_frozen_and_the_student_starts_exactly_there(
    student: Path, tmp_path: Path, four_bit: bool
) -> None:
    kind = "qlora" if four_bit else "lora"
    begun = supervised(student, tmp_path / "sft", adapter=kind)
    trainer = built(student, begun.out, tmp_path / "dpo", four_bit=four_bit)
    from distill.train.ready import make_ready

    make_ready(trainer.model, config(student, adapter=kind))
    policy = {name: p for name, p in trainer.model.named_parameters() if ".default." in name}
    reference = {name: p for name, p in trainer.model.named_parameters() if ".ref." in name}
    assert len(policy) == len(reference) == 28
    assert all(p.requires_grad and str(p.dtype) == "torch.float32" for p in policy.values())
    for name, parameter in policy.items():
        assert parameter.equal(reference[name.replace(".default.", ".ref.")])
    frozen = {name: p.clone() for name, p in reference.items()}
    trainer.train()
    assert all(p.equal(frozen[name]) and not p.requires_grad for name, p in reference.items())
    assert not all(p.equal(reference[name.replace(".default.", ".ref.")]) for name, p in policy.items())


def test_a_qlora_adapter_goes_on_on_its_4_bit_base(student: Path, tmp_path: Path) -> None:
    begun = supervised(student, tmp_path / "sft", adapter="qlora")
    result = train_preferences(config(student, max_steps=4), DATA, tmp_path / "dpo", adapter=begun.out, seed=1)
    notes = json.loads((tmp_path / "dpo/adapter/distill.json").read_bytes())
    assert (notes["four_bit"], notes["dtype"], result.facts["adapter"]) == (True, "float32", "qlora")
    assert result.facts["losses"][0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert result.facts["held_out"]["accuracy"] > 0.8


def test_without_an_adapter_the_base_is_the_reference(student: Path, tmp_path: Path) -> None:
    result = train_preferences(config(student), DATA, tmp_path, seed=1)
    assert result.facts["reference"] == "the base"
    assert result.facts["held_out"]["accuracy"] == 1
    assert result.facts["losses"][0]["loss"] == pytest.approx(0.693147, abs=1e-4)


def test_ipo_and_the_sft_term_are_what_is_minimised(adapter: Path, tmp_path: Path) -> None:
    ipo = train_preferences(
        config(None, max_steps=2, preference={"loss": "ipo", "beta": 0.5}), DATA, tmp_path / "ipo", adapter=adapter
    )
    assert ipo.facts["losses"][0]["loss"] == pytest.approx((1 / (2 * 0.5)) ** 2, abs=1e-4)
    held = train_preferences(config(None), DATA, tmp_path / "none", adapter=adapter, seed=1).facts["held_out"]
    both = train_preferences(config(None, preference={"sft": 1.0}), DATA, tmp_path / "sft", adapter=adapter, seed=1)
    assert both.facts["losses"][0]["loss"] > 0.7
    assert both.facts["held_out"]["chosen_change"] > held["chosen_change"]


def test_an_interrupted_training_goes_on_to_the_same_weights(
    trained: tuple[TrainResult, list[Progress]], adapter: Path, tmp_path: Path
) -> None:
    steps: list[int] = []

    def count(progress: Progress) -> None:
        steps.append(progress.step)

    with pytest.raises(Halted, match="stopped at step 2 of 6"):
        train_preferences(
            config(None), DATA, tmp_path, adapter=adapter, seed=1, progress=count, stop=lambda: len(steps) >= 1
        )
    result = train_preferences(config(None), DATA, tmp_path, adapter=adapter, seed=1, progress=count)
    assert steps == [1, 2, 3, 4, 5, 6]
    assert result.facts["resumed_from"] == 2
    assert result.facts["weights_digest"] == trained[0].facts["weights_digest"]


def test_pairs_that_are_too_long_are_counted_and_left_out_whole(adapter: Path, tmp_path: Path) -> None:
    data = PairData((*PAIRS, pair(40, length=12)), equal=3)
    result = train_preferences(config(None, max_length=128, max_steps=1), data, tmp_path / "some", adapter=adapter)
    assert (result.facts["rows"], result.facts["dropped_long"], result.facts["dropped_equal"]) == (12, 1, 3)
    with pytest.raises(InputError, match="all 12 pairs are longer than max_length"):
        train_preferences(config(None, max_length=16), PairData(PAIRS), tmp_path / "all", adapter=adapter)


def test_the_base_of_an_adapter_is_found_again_and_another_is_refused(
    student: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.tiny_student import make_model, make_tokenizer

    other = make_tokenizer(make_model(tmp_path / "other", intermediate_size=64))
    with pytest.raises(InputError, match="trained on other weights than those of other"):
        train_preferences(config(other), DATA, tmp_path / "out", adapter=adapter)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "empty"))
    with pytest.raises(InputError, match="the adapter's base tiny-llama is not known") as caught:
        train_preferences(config(None), DATA, tmp_path / "out", adapter=adapter)
    assert "--model" in str(caught.value)
    with pytest.raises(InputError, match="not an adapter"):
        train_preferences(config(student), DATA, tmp_path / "out", adapter=tmp_path)


PROMPT = [{"role": "user", "content": "Where is my card?"}]
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("In the post.", "No idea."))
LAYOUTS: dict[str, dict[str, Any]] = {
    "text": {"prompt": "Where is my card?", "chosen": "In the post.", "rejected": "No idea."},
    "messages": {"prompt": PROMPT, "chosen": [GOOD], "rejected": [BAD]},
    "answers repeat the prompt": {"prompt": PROMPT, "chosen": [*PROMPT, GOOD], "rejected": [*PROMPT, BAD]},
    "text prompt, whole conversations": {
        "prompt": "Where is my card?",
        "chosen": [*PROMPT, GOOD],
        "rejected": [*PROMPT, BAD],
    },
    "conversations": {"chosen": [*PROMPT, GOOD], "rejected": [*PROMPT, BAD]},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_pairs_is_the_same_pair(layout: str) -> None:
    assert read_pair(LAYOUTS[layout]) == Pair(tuple(PROMPT), "In the post.", "No idea.")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "a", "completion": "b"}, "no preference pair in the keys prompt, completion"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "rejected: the answer is empty"),
        ({"prompt": "a", "chosen": "b", "rejected": 3}, "rejected: should be text, not int"),
        ({"chosen": "b", "rejected": "c"}, "prompt: the prompt has no user turn"),
        ({"prompt": PROMPT, "chosen": [GOOD, *PROMPT], "rejected": [BAD]}, "chosen: should be one assistant turn"),
        ({"prompt": [*PROMPT, GOOD], "chosen": "b", "rejected": "c"}, "prompt: the prompt ends with an assistant turn"),
        ({"chosen": [*PROMPT, GOOD], "rejected": [*PROMPT, *PROMPT, BAD]}, "differ before their last turn"),
    ],
)
def test_what_is_no_pair_is_named_with_its_line(row: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(LAYOUTS["text"]) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(InputError) as caught:
        list(read_pairs(path))
    assert str(caught.value).startswith(f"{path}:2: ")
    assert says in str(caught.value)


def test_equal_answers_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    same = {**LAYOUTS["text"], "rejected": "In the post."}
    path.write_text(json.dumps(LAYOUTS["text"]) + "\n" + json.dumps(same) + "\n")
    data = PairData.read(path)
    assert (len(data.train), data.equal) == (1, 1)
    path.write_text(json.dumps(same) + "\n")
    with pytest.raises(InputError, match="holds no pair whose answers differ"):
        PairData.read(path)


def test_earlier_answers_of_the_prompt_are_not_trained(tokenizer_with: Callable[..., Any]) -> None:
    tokenizer = tokenizer_with()
    talk = ({"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}, *PROMPT)
    ((encoded,), _) = encode([Pair(talk, "In the post.", "No idea.")], tokenizer, max_length=200)
    assert tokenizer.decode(encoded.chosen_ids) == "In the post.<|im_end|>"
    assert "hello<|im_end|>" in tokenizer.decode(encoded.prompt_ids)


def test_settings_of_supervised_training_are_refused_not_ignored(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train.neftune: is for method: sft"):
        train_preferences(config(None, neftune=5.0), DATA, tmp_path, adapter=adapter)
    with pytest.raises(InputError, match="trains an adapter"):
        train_preferences(config(None, adapter="full"), DATA, tmp_path, adapter=adapter)
