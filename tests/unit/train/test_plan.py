"""What a training will need, known before any weight is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill.errors import InputError
from distill.recipe import TrainConfig
from distill.train import Marked, MarkedData, Pair, PairData, Plan, TrainData, plan
from distill.train.data import Conversation


def row(number: int) -> Conversation:
    turns = (
        {"role": "user", "content": f"my card was lost, please help {number} " + "again " * (number % 5)},
        {"role": "assistant", "content": "blocked"},
    )
    return Conversation(turns, f"rows.jsonl:{number}")


DATA = TrainData(tuple(row(number) for number in range(16)))


def config(student: Path, **over: Any) -> TrainConfig:
    return TrainConfig(model=str(student), **{"batch_size": 8, "epochs": 2, "dtype": "float32", **over})


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    from tests.support.tiny_student import make_model, make_tokenizer

    return make_tokenizer(make_model(tmp_path / "teacher", hidden_size=96))


@pytest.fixture
def big_student(tmp_path: Path) -> Path:
    """Four layers wide enough that a step is more than noise."""
    from tests.support.tiny_student import make_model, make_tokenizer

    return make_tokenizer(make_model(tmp_path / "big", hidden_size=256, intermediate_size=1024, num_hidden_layers=4))


@pytest.mark.parametrize(
    ("adapter", "dtype", "more"),
    [
        ("lora", "float32", {}),
        ("lora", "bfloat16", {"gradient_checkpointing": True}),
        ("lora", "float32", {"method": "dpo"}),
        ("lora", "bfloat16", {"method": "kto"}),
        ("lora", "float32", {"method": "distill", "distillation": {"divergence": "jsd"}}),
        ("full", "bfloat16", {"method": "distill", "distillation": {"top_k": 8}}),
        ("full", "float32", {}),
        ("full", "bfloat16", {}),
        ("full", "bfloat16", {"gradient_checkpointing": True}),
    ],
)
@pytest.mark.parametrize("size", [(8, 40, 0, 64), (8, 40, 12, 64), (2, 16, 0, 20)])
def test_the_traced_update_is_what_an_update_allocates(
    big_student: Path, adapter: str, dtype: str, more: dict[str, Any], size: tuple[int, int, int, int]
) -> None:
    """The same updates with real tensors hold as much at their peak."""
    from transformers import AutoConfig

    from distill.train.step import Shape
    from distill.train.tracing import measure, small_model, trace

    if size[2] and more.get("gradient_checkpointing"):
        pytest.skip("checkpointed rows share nothing")
    chosen, shape = config(big_student, adapter=adapter, **more), Shape(*size)
    loaded = AutoConfig.from_pretrained(big_student)
    options: dict[str, Any] = {"dtype": dtype, "attention": "eager", "cpu": True}
    sizes = trace(chosen, loaded, shape, **options)
    model = small_model(chosen, loaded, layers=4, **options)
    assert sizes.parameters == sum(p.numel() for p in model.parameters())
    assert sizes.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    real = measure(chosen, model, shape, device="cpu", dtype=dtype, passes=1, look=True)
    assert sizes.step == pytest.approx(real, rel=0.03)


@pytest.mark.parametrize("size", [(8, 40, 0, 64), (8, 40, 12, 300)])
def test_a_teacher_that_reads_along_is_traced_with_the_student(
    student: Path, big_student: Path, size: tuple[int, int, int, int]
) -> None:
    from transformers import AutoConfig

    from distill.train.step import Shape
    from distill.train.tracing import frozen_model, measure, small_model, trace

    chosen, shape = config(student, method="distill"), Shape(*size)
    small, large = (AutoConfig.from_pretrained(folder) for folder in (student, big_student))
    layers = small.num_hidden_layers
    options: dict[str, Any] = {"dtype": "float32", "attention": "eager"}
    alone = trace(chosen, small, shape, cpu=True, **options)
    sizes = trace(chosen, small, shape, cpu=True, teacher_config=large, **options)
    model = small_model(chosen, small, layers=layers, cpu=True, **options)
    teacher = frozen_model(large, layers=4, **options)
    assert sizes.teacher == sum(p.numel() for p in teacher.parameters())
    assert sizes.step > alone.step
    real = measure(chosen, model, shape, device="cpu", dtype="float32", passes=1, look=True, teacher=teacher)
    assert sizes.step == pytest.approx(real, rel=0.03)


def test_a_teacher_is_planned_for(student: Path, big_student: Path) -> None:
    def planned(**how: Any) -> Plan:
        chosen = config(student, method="distill", distillation={"teacher": str(big_student), **how})
        return plan(chosen, DATA)

    beside = planned()
    assert beside.parts["teacher"] > 2 * beside.parts["weights"]
    once = planned(top_k=4)  # the larger of two times counts, here that with the teacher
    assert once.parts["teacher"] == beside.parts["teacher"]
    assert (once.parts["adapter"], once.parts["optimiser"]) == (0, 0)
    assert once.bytes - once.parts["libraries"] < beside.bytes - beside.parts["libraries"]
    assert all(found.seconds is not None for found in (beside, once))


def test_answers_of_the_student_itself_are_planned_as_long_as_they_may_be(student: Path, teacher: Path) -> None:
    def planned(tokens: int) -> Plan:
        asked = {"teacher": str(teacher), "max_tokens": tokens}
        return plan(config(student, method="on-policy", distillation=asked), DATA)

    short, long = planned(16), planned(64)
    assert long.longest == short.longest + 48
    assert long.parts["step"] > short.parts["step"]
    assert long.seconds is None


def test_marked_answers_are_planned(student: Path) -> None:
    marked = MarkedData(tuple(Marked(row(n).prompt, "blocked", n % 2 == 0) for n in range(16)))
    found = plan(config(student, method="kto"), marked)
    assert (found.rows, found.parts["adapter"]) == (16, 2 * plan(config(student), DATA, timed=False).parts["adapter"])
    assert found.seconds is not None


def test_settings_that_training_refuses_are_not_planned(student: Path) -> None:
    with pytest.raises(InputError, match="needs a local teacher"):
        plan(config(student, method="on-policy"), DATA)
    with pytest.raises(InputError, match="no row fits into 16 tokens"):
        plan(config(student, method="on-policy", max_length=16, distillation={"teacher": str(student)}), DATA)


def test_the_parts_are_those_of_the_training(student: Path) -> None:
    lora = plan(config(student), DATA, timed=False)
    assert set(lora.parts) == {"libraries", "weights", "adapter", "optimiser", "step"}
    assert lora.parts["optimiser"] == 2 * lora.parts["adapter"]
    assert (lora.steps, lora.rows, lora.micro_batch, lora.fits) == (4, 16, 8, True)
    full = plan(config(student, adapter="full"), DATA, timed=False)
    assert full.parts["optimiser"] > full.parts["weights"] > lora.parts["weights"] * 0.9
    small = plan(config(student, micro_batch_size=1), DATA, timed=False)
    assert small.parts["step"] < lora.parts["step"]


def test_of_an_embedding_that_is_no_head_only_rows_are_read(tmp_path: Path) -> None:
    from tests.support.tiny_student import make_model, make_tokenizer

    tied, apart = (
        make_tokenizer(make_model(tmp_path / str(one), hidden_size=96, tie_word_embeddings=one))
        for one in (True, False)
    )
    found, other = (plan(config(folder), DATA, timed=False) for folder in (tied, apart))
    assert other.parts["weights"] == found.parts["weights"]  # one more matrix, and it stays in the file
    found, other = (plan(config(folder, dtype="bfloat16"), DATA, timed=False) for folder in (tied, apart))
    assert other.parts["weights"] > found.parts["weights"]  # converted, so it is read


def test_pairs_are_planned_with_both_answers_and_their_reference(student: Path) -> None:
    pairs = PairData(tuple(Pair(row(n).prompt, "blocked", "no idea at all") for n in range(16)))
    found = plan(config(student, method="dpo"), pairs)
    answers = plan(config(student), DATA)
    assert found.parts["adapter"] == 2 * answers.parts["adapter"]
    assert found.parts["step"] > answers.parts["step"]
    time = found.seconds
    assert time is not None
    assert 0 < time.least <= time.usual <= time.most
    assert time.processor is not None
    said = found.as_json()
    assert said["seconds_between"][0] <= said["seconds"] <= said["seconds_between"][1]


def test_where_it_does_not_fit_the_change_that_does_is_named(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = plan(config(student), DATA, timed=False)
    smaller = plan(config(student, micro_batch_size=2), DATA, timed=False)
    room = (needed.bytes - needed.parts["libraries"] + smaller.bytes - smaller.parts["libraries"]) // 2

    def available(job: Any) -> int:
        return job.libraries + room

    monkeypatch.setattr("distill.train.forecast._available", available)
    found = plan(config(student), DATA, timed=False)
    assert not found.fits
    assert found.as_json()["changes"][-1]["set"] in ("micro_batch_size: 4", "micro_batch_size: 2")
    assert found.changes[-1][1] <= found.available
