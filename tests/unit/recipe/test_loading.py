from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

from distill.assets import find
from distill.errors import InputError
from distill.recipe import (
    MinHashStep,
    PlanConfig,
    Recipe,
    ResponseConfig,
    TeacherConfig,
    literal_secret,
    load_chain,
    load_recipe,
    parse,
    resolve_secret,
)

PROBE = """\
name: probe
seed: 7
teachers:
  main:
    provider: openai                      # or anthropic | local | simulated
    base_url: http://127.0.0.1:9911/v1
    model: mock
    api_key: ${TEACHER_KEY}
    max_concurrency: 256
    limits: {requests_per_minute: 600, tokens_per_minute: 200000}   # optional
    price: {input: 0.15, output: 0.60}    # USD per million tokens; optional when the model is known
    sampling: {temperature: 0.8, max_tokens: 64}
plan:
  taxonomy: taxonomies/probe.yaml
  target: 2000                            # accepted rows
method: {kind: response, teacher: main, prompt: prompts/probe.j2}
filters: []                               # a list of steps, or the name of a chain
budget: {usd: 5}
"""

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 30)
)


def load(folder: Path, text: str) -> Recipe:
    path = folder / "probe.yaml"
    path.write_text(text, "utf-8")
    return load_recipe(path)


def test_the_probe_recipe(tmp_path: Path) -> None:
    recipe = load(tmp_path, PROBE)
    assert recipe.folder == tmp_path.resolve()
    teacher = recipe.teachers["main"]
    assert teacher.price is not None
    assert (teacher.price.input, teacher.price.output) == (Decimal("0.15"), Decimal("0.6"))
    assert recipe.filters == ()
    assert recipe.budget.usd == 5


def test_filters_may_name_a_chain(tmp_path: Path) -> None:
    assert load(tmp_path, PROBE.replace("[] ", "strict ")).filters == "strict"
    assert load(tmp_path, PROBE.replace("filters: []", "description: x")).filters == "default"


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("provider: openai", "provider: openia", 5, "no such value: 'openia'; did you mean openai?"),
        ("requests_per_minute", "request_per_minute", 10, "no such field; did you mean requests_per_minute?"),
        (":9911/v1", ":99111/v1", 6, "teachers.main.base_url: not an http(s) address"),
        ("http://127.0.0.1:9911/v1", "http://127.0.0.1 :9911/v1", 6, "teachers.main.base_url: not an http(s) address"),
        ("http://127.0.0.1:9911/v1", "http://[::1:9911/v1", 6, "teachers.main.base_url: not an http(s) address"),
        ("http://127.0.0.1:9911/v1", "http://:9911/v1", 6, "teachers.main.base_url: not an http(s) address"),
        ("${TEACHER_KEY}", "${TEACHER-KEY}", 8, "teachers.main.api_key: no name of a variable: write ${NAME}"),
        ("${TEACHER_KEY}", "$TEACHER_KEY", 8, "teachers.main.api_key: no name of a variable: write ${NAME}"),
        ("temperature: 0.8", "temperature: hot", 12, "teachers.main.sampling.temperature: should be a valid number"),
        ("taxonomy:", "taxonmy:", 14, "plan.taxonmy: no such field; did you mean taxonomy?"),
        ("target: 2000", "target: -1", 15, "plan.target: should be greater than or equal to 1, not -1"),
        ("kind: response", "kind: respond", 16, "method: no such kind: 'respond'; did you mean response?"),
        ("kind: response, ", "", 16, "method: needs `kind`: response, reasoning, preference"),
        ("teacher: main", "teacher: mian", 16, "method.teacher: no such teacher: 'mian'; did you mean main?"),
        (
            "filters: []",
            "filters: [{kind: exact}, {kind: minhash, treshold: 0.5}]",
            17,
            "filters.1.treshold: no such field; did you mean threshold?",
        ),
        ("filters: []", "filters: [{kind: minhsh}]", 17, "filters.0: no such kind: 'minhsh'; did you mean minhash?"),
        ("filters: []", "filters: [exact]", 17, "filters.0"),
        ("filters: []", "filters: {kind: exact}", 17, "filters: should be a list"),
        ("filters: []", "filters: [{kind: length}]", 17, "filters.0.min_chars: give at least one bound"),
        ("usd: 5", "usd: yes", 18, "budget.usd: should be a number, not true"),
        ("name: probe", "name: pro/be", 1, "name: not usable as a folder name"),
        ("http://127.0.0.1:9911/v1", "${URL}", 6, "teachers.main.base_url: ${…} stands only in api_key"),
        ("name: probe", "name: probe\ndescription: '${HOME}'", 2, "description: ${…} stands only in api_key"),
        ("seed: 7", "sede: 7", 2, "sede: no such field; did you mean seed?"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    assert old in PROBE
    with pytest.raises(InputError) as caught:
        load(tmp_path, PROBE.replace(old, new))
    problems = [p for p in str(caught.value).splitlines() if "this field is needed" not in p]
    assert len(problems) == 1
    assert problems[0].startswith(f"{tmp_path / 'probe.yaml'}:{line}: ")
    assert said in problems[0]


def test_a_key_stands_in_no_message(tmp_path: Path) -> None:
    for key in ("12345678", "[sk-canary]", "{a: sk-canary}"):
        with pytest.raises(InputError) as caught:
            load(tmp_path, PROBE.replace("${TEACHER_KEY}", key))
        assert "canary" not in str(caught.value)
        assert "12345678" not in str(caught.value)
        assert "api_key" in str(caught.value)


def test_a_literal_key_is_allowed_and_seen(tmp_path: Path) -> None:
    key = load(tmp_path, PROBE.replace("${TEACHER_KEY}", "sk-literal")).teachers["main"].api_key
    assert literal_secret(key)
    assert resolve_secret(key) == "sk-literal"
    assert not literal_secret(SecretStr("Bearer ${TOKEN}"))
    assert not literal_secret(None)


def test_a_key_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = load(tmp_path, PROBE).teachers["main"].api_key
    monkeypatch.setenv("TEACHER_KEY", "sk-secret")
    assert resolve_secret(key) == "sk-secret"
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(LookupError, match="TEACHER_KEY"):
        resolve_secret(key)


def test_a_recipe_of_objects_is_the_same_recipe(tmp_path: Path) -> None:
    built = Recipe(
        name="probe",
        seed=7,
        teachers={"main": TeacherConfig(model="mock", price=parse(_price(), {"input": 0.15, "output": 0.6}))},
        plan=PlanConfig(taxonomy="taxonomies/probe.yaml", target=2000),
        method=ResponseConfig(teacher="main", prompt="prompts/probe.j2"),
        filters=(MinHashStep(kind="minhash", threshold=0.8),),
    ).at(tmp_path)
    assert built.folder == tmp_path
    assert parse(Recipe, built.public()).digest == built.digest


def _price() -> type:
    from distill.recipe import Price

    return Price


def test_what_does_not_decide_the_rows_is_not_in_the_digest(tmp_path: Path) -> None:
    one = load(tmp_path, PROBE)
    assert load(tmp_path, PROBE.replace("usd: 5", "usd: 9").replace("9911", "9912")).digest == one.digest
    assert load(tmp_path, PROBE.replace("0.8", "0.7")).digest != one.digest
    assert "TEACHER_KEY" not in str(one.public())


def test_a_chain_is_a_list_of_steps(tmp_path: Path) -> None:
    (tmp_path / "filters").mkdir()
    path = tmp_path / "filters" / "mine.yaml"
    path.write_text("- kind: exact\n- {kind: minhash, threshold: 0.6}\n")
    assert [step.kind for step in load_chain("mine", tmp_path)] == ["exact", "minhash"]
    assert load_chain(str(path)) == load_chain("mine", tmp_path)
    path.write_text("- kind: exact\n- {kind: minhash, treshold: 0.6}\n")
    with pytest.raises(InputError, match=r"mine\.yaml:2: 1\.treshold: no such field; did you mean threshold\?"):
        load_chain("mine", tmp_path)
    path.write_text("kind: exact\n")
    with pytest.raises(InputError, match="should be a list"):
        load_chain("mine", tmp_path)
    with pytest.raises(InputError, match="did you mean mine"):
        load_chain("mien", tmp_path)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "- a\n", "a: [1\n", "a: 1\na: 2\n", "just text\n", "a: &a [*a]\n", LAUGHS]
)
def test_what_is_no_recipe_at_all(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"probe\.yaml"):
        load(tmp_path, text)


def test_a_bare_name_is_looked_for_in_the_folder_of_its_kind(tmp_path: Path) -> None:
    """`taxonomy: support` in recipes/support.yaml does not mean that recipe."""
    for folder in ("recipes", "taxonomies"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "support.yaml").write_text("x: 1\n")
    found = find("taxonomies", "support", base=tmp_path / "recipes")
    assert found == tmp_path / "taxonomies" / "support.yaml"
    assert find("taxonomies", "support.yaml", base=tmp_path / "taxonomies") == found
