"""What is asked of an embedded model, and what of it is hashed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import FailureClass, InputError, TeacherError
from distill.io import canonical
from distill.recipe import TeacherConfig
from distill.teachers import Message, Request, SamplingParams
from distill.teachers.local import LocalTeacher

MODEL = "qwen2.5-coder-1.5b-instruct"


def make(**other: object) -> LocalTeacher:
    return LocalTeacher(TeacherConfig.model_validate({"provider": "local", "model": MODEL, **other}))


def request(text: str = "Write.", schema: dict[str, object] | None = None, **params: object) -> Request:
    return Request("t", (Message("user", text),), SamplingParams(**params), schema)  # type: ignore[arg-type]


def test_samples_differ_in_their_seed_alone_and_can_be_drawn_again() -> None:
    wires = [make().wire(request(), sample) for sample in range(50)]
    assert len({wire["seed"] for wire in wires}) == 50
    assert len({canonical({**wire, "seed": 0}) for wire in wires}) == 1
    assert [make().wire(request(), sample) for sample in range(50)] == wires


def test_the_engine_is_not_part_of_the_key() -> None:
    wires = [make(engine=engine).wire(request(), 0) for engine in ("auto", "llama.cpp", "transformers")]
    assert wires[0] == wires[1] == wires[2]


def test_nothing_is_left_to_an_engines_defaults() -> None:
    wire = make().wire(request(temperature=0.3), 0)
    assert (wire["temperature"], wire["top_p"], wire["top_k"], wire["min_p"]) == (0.3, 0.95, 40, 0.05)
    assert make().wire(request(extra={"top_k": 5}), 0)["top_k"] == 5
    assert wire["weights"].startswith("sha256:cc324af0")


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40), st.integers(0, 100), st.integers(0, 2**31) | st.none())
def test_seeds_are_ones_both_engines_take(text: str, sample: int, seed: int | None) -> None:
    wire = make().wire(request(text, seed=seed), sample)
    assert 0 <= wire["seed"] < 2**31
    if seed is not None:
        assert wire["seed"] != make().wire(request(text, seed=seed + 1), sample)["seed"]


def test_a_schema_is_asked_for() -> None:
    schema = {"type": "array", "items": {"type": "string"}}
    assert make().wire(request(schema=schema), 0)["response_format"]["json_schema"]["schema"] == schema


def test_weights_of_a_file_are_known_by_their_content(tmp_path: Path) -> None:
    first, second, copy = tmp_path / "a.gguf", tmp_path / "b.gguf", tmp_path / "c.gguf"
    first.write_bytes(b"GGUF" + b"a" * 100)
    second.write_bytes(b"GGUF" + b"b" * 100)
    copy.write_bytes(first.read_bytes())
    wires = [make(model=str(file)).wire(request(), 0) for file in (first, second, copy)]
    assert wires[0]["weights"] == wires[2]["weights"] != wires[1]["weights"]
    assert str(tmp_path) not in str(wires)


async def test_a_model_that_is_not_here_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=f"distill models pull {MODEL}"):
        await make(engine="llama.cpp").start()


async def test_asking_before_the_start_is_an_error_of_the_request() -> None:
    teacher = make()
    with pytest.raises(TeacherError) as caught:
        await teacher.send(teacher.wire(request(), 0), timeout=1)
    assert caught.value.failure is FailureClass.CONNECTION
    await teacher.close()
