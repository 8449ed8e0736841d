from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from distill.errors import InputError
from distill.planning import Planner, Seed, Slot, compile_taxonomy
from distill.prompting import Prompt, PromptBook, load_prompt

TAXONOMY: dict[str, Any] = {
    "name": "probe",
    "dimensions": {"tone": {"calm": {"description": "at ease"}}},
    "topics": {"cards": {"labels": {"product": "card"}, "topics": {"lost": {"description": "gone"}, "declined": {}}}},
    "adversarial": {"share": 0.5, "two": {"pair": True, "description": "two at once"}},
}
SEEDS = [Seed("s1", "it's <gone> {{ 7*7 }}", None, {"answer": "42"})]


def slots() -> list[Slot]:
    return list(itertools.islice(Planner("probe", compile_taxonomy(TAXONOMY), SEEDS, seed=7).slots(), 8))


def standard() -> Slot:
    return next(slot for slot in slots() if slot.twist is None and slot.leaf[-1] == "lost")


def twisted() -> Slot:
    return next(slot for slot in slots() if slot.twist is not None)


def prompt(folder: Path, text: str) -> Prompt:
    path = folder / "p.j2"
    path.write_text(text, "utf-8")
    return load_prompt(path)


def test_the_probe_prompt(tmp_path: Path) -> None:
    text = '{# prompts/probe.j2 #}\nWrite about {{ leaf | join(" > ") }}, tone {{ tone }}, number {{ slot.index }}.\n'
    slot = standard()
    assert prompt(tmp_path, text).render(slot) == f"Write about cards > lost, tone calm, number {slot.index}."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ topic.name }}: {{ topic.description }} {{ topic.path | join('/') }}", "lost: gone cards/lost"),
        ("{{ dims.tone }} {{ dims['tone'] }} {{ describe.tone }}", "calm calm at ease"),
        ("{{ kind }}{% if other %} and {{ other.name }}{% endif %}", "standard"),
        ("{{ seeds[0].text }}", "it's <gone> {{ 7*7 }}"),
        ("{% for s in seeds %}- {{ s.text }} ({{ s.data.answer }})\n{% endfor %}", "- it's <gone> {{ 7*7 }} (42)"),
        ("{% for s in seeds %}{{ loop.index }}/{{ loop.length }}{% endfor %}", "1/1"),
        ("{{ seeds | map(attribute='text') | join('; ') }}", "it's <gone> {{ 7*7 }}"),
        ("{{ labels | tojson }}", '{"product": "card"}'),
        (
            "{{ {'text': seeds[0].text, 'wörter': [leaf[0], 1]} | tojson }}",
            '{"text": "it\'s <gone> {{ 7*7 }}", "wörter": ["cards", 1]}',
        ),
        ("{% for key, value in labels.items() %}{{ key }}={{ value }}{% endfor %}", "product=card"),
        ("{{ labels.get('none', 'x') }}{{ labels.none is defined }}", "xFalse"),
        ("{{ persona | default('anyone') }}", "anyone"),
        ("{{ leaf[-1] | replace('_', ' ') | upper }} {{ leaf | length }} {{ leaf[1:] | first }}", "LOST 2 lost"),
        ("{% set n = 1 + 2 * 3 %}{{ n }} {{ 'a' ~ n ~ 'b' }}", "7 a7b"),
        ("{{ 'yes' if kind == 'standard' and tone in ['calm'] else 'no' }}", "yes"),
        ("{% raw %}{{ not me }}{% endraw %}", "{{ not me }}"),
        ("\n\n   text   \n\n", "text"),
    ],
)
def test_what_prompts_can_do(tmp_path: Path, text: str, expected: str) -> None:
    assert prompt(tmp_path, text).render(standard()) == expected


def test_adversarial_slots_say_so(tmp_path: Path) -> None:
    slot = twisted()
    assert slot.other is not None
    text = "{{ kind }}: {{ twist }}{% if other %}, {{ other.path | join('/') }}{% endif %}"
    assert prompt(tmp_path, text).render(slot) == f"two: two at once, cards/{slot.other.name}"


def test_values_are_never_templates(tmp_path: Path) -> None:
    asked = prompt(tmp_path, "{{ input }}|{{ seeds[0].text }}")
    assert (
        asked.render(standard(), input="{% for x in y %}{{ 1/0 }}") == "{% for x in y %}{{ 1/0 }}|it's <gone> {{ 7*7 }}"
    )


HEAD = """\
---
description: one line
role: user
system: |
  You are at {{ leaf[0] }}.
  Tone: {{ tone }}.
variables: [tone, input]
schema: {type: object, required: [intent]}
---
{# a comment #}
Say {{ input }}.
"""


def test_the_head(tmp_path: Path) -> None:
    asked = prompt(tmp_path, HEAD)
    slot = standard()
    assert asked.render_system(slot, input="x") == "You are at cards.\nTone: calm."
    assert asked.render(slot, input="x") == "Say x."
    assert (asked.description, asked.role) == ("one line", "user")
    assert asked.schema == {"type": "object", "required": ["intent"]}
    assert asked.variables == ("leaf", "tone", "input")
    assert prompt(tmp_path, "plain").render_system(slot) is None


def test_the_schema_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "array"}')
    assert prompt(tmp_path, "---\nschema: s.json\n---\nx").schema == {"type": "array"}


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    digest = prompt(tmp_path, HEAD).digest
    assert prompt(tmp_path, HEAD.replace("one line", "another")).digest == digest
    for old, new in (("Say", "Tell"), ("Tone:", "Mood:"), ("intent", "urgency")):
        assert prompt(tmp_path, HEAD.replace(old, new)).digest != digest


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a\n{{ tine }}", 2, "no such variable: tine; did you mean tone?"),
        ("a\nb {{ topic.nmae }}", 2, "no such field: nmae; did you mean name?"),
        ("{{ labels.prodct }}", 1, "no such field: prodct; did you mean product?"),
        ("{{ seeds[3].text }}", 1, "no such field: 3"),
        ("---\ndescription: x\n---\n\n{{ tine }}", 5, "no such variable: tine"),
        ("---\nsystem: |\n  a\n  {{ tine }}\n---\nx", 4, "no such variable: tine"),
        ("{% if kind == 'never' %}\n{{ tine }}\n{% endif %}x", 2, "no such variable: tine"),
        ("{{ other.name }}", 1, "name: there is nothing to take it from; test that first"),
        ("{{ seeds }}", 1, "use `join` or `tojson`"),
        ("{{ topic }}", 1, "name one of its fields"),
        ("x\n{{ 1 / 0 }}", 2, "division by zero"),
        ("{% if false %}x{% endif %}", None, "renders to nothing"),
    ],
)
def test_check_names_line_and_nearest(tmp_path: Path, text: str, line: int | None, said: str) -> None:
    asked = prompt(tmp_path, text)
    with pytest.raises(InputError) as caught:
        asked.check(standard())
    assert said in str(caught.value)
    assert (caught.value.path, caught.value.line) == (tmp_path / "p.j2", line)


def test_a_fault_while_rendering_names_the_slot(tmp_path: Path) -> None:
    slot = standard()
    with pytest.raises(InputError, match=f"in slot {slot.id}: cards > lost, standard"):
        prompt(tmp_path, "{{ tine }}").render(slot)


def test_check_has_stand_ins_for_what_methods_add(tmp_path: Path) -> None:
    text = prompt(tmp_path, "{{ input }} {{ n }} {{ question }} {{ a }} {{ b }} {{ answer }}").check(standard())
    assert text.startswith("(the written input) 1 (the question)")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("---\nvariables: [tone]\n---\n{{ tone }}\n{{ input }}", 5, "input is used and not declared in `variables`"),
        ("---\nvariabls: [tone]\n---\nx", 2, "variabls: no such field; did you mean variables?"),
        ("---\nrole: bot\n---\nx", 2, "role: no such value: 'bot'"),
        ("---\nrole: user\nx", 1, "does not end"),
        ("---\na: [\n---\nx", 3, "not valid YAML"),
        ("---\nschema: {type: objct}\n---\nx", None, "not a JSON Schema"),
        ("---\nschema: none.json\n---\nx", None, "none.json: cannot be read"),
        ("a\n{{ tone", 2, "not a template: unexpected end of template"),
        ("a\n{% if tone %}\nb", 3, "not a template"),
        ("\n{{ tone | uper }}", 2, "no such filter: uper; there are:"),
        ("{{ tone is uper }}", 1, "no such test: uper; there are:"),
    ],
)
def test_mistakes_found_when_the_file_is_read(tmp_path: Path, text: str, line: int | None, said: str) -> None:
    with pytest.raises(InputError) as caught:
        prompt(tmp_path, text)
    assert said in str(caught.value)
    assert caught.value.line == line


def test_the_book_finds_prompts_as_recipes_name_them(tmp_path: Path) -> None:
    (tmp_path / "prompts" / "mine").mkdir(parents=True)
    (tmp_path / "prompts" / "mine" / "ask.j2").write_text("Ask {{ tone }}")
    book = PromptBook(tmp_path)
    for name in ("prompts/mine/ask.j2", "mine/ask.j2", "mine/ask"):
        assert book.get(name).render(standard()) == "Ask calm"
    assert book.get("mine/ask") is book.get("mine/ask")
    with pytest.raises(InputError, match="did you mean mine/ask"):
        book.get("mine/aks.j2")


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "prompts").rglob("*.j2")), ids=str)
def test_shipped_prompts_compile(path: Path) -> None:
    assert load_prompt(path).digest
