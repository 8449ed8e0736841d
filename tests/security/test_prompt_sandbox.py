"""What a prompt file from a stranger cannot do: reach Python, read files, or eat time and memory."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.errors import InputError
from distill.planning import Planner, Seed, Slot, compile_taxonomy
from distill.prompting import load_prompt

TAXONOMY: dict[str, Any] = {
    "name": "t",
    "dimensions": {"tone": ["calm", "angry"]},
    "topics": {"cards": {"labels": {"product": "card"}, "topics": {"lost": {}, "declined": {}}}},
}
SEEDS = [Seed(f"s{n}", "a message", None, {"answer": "42", "deep": {"list": [1, [2, 3]]}}) for n in range(3)]


def slot() -> Slot:
    return next(itertools.islice(Planner("r", compile_taxonomy(TAXONOMY), SEEDS).slots(), 1))


def attempt(folder: Path, text: str, **extra: Any) -> str:
    path = folder / "p.j2"
    path.write_text(text, "utf-8")
    return load_prompt(path).render(slot(), **extra)


ESCAPES = [
    # attributes
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ tone['__class__'] }}",
    "{{ leaf.__class__ }}",
    "{{ leaf['__class__'] }}",
    "{{ slot.__class__ }}",
    "{{ slot['__class__'] }}",
    "{{ slot['__init__'] }}",
    "{{ slot[('__cla','ss__')|join] }}",
    "{{ slot['__cla' ~ 'ss__'] }}",
    "{{ seeds[0].__dataclass_fields__ }}",
    "{{ seeds[0]['__dataclass_fields__'] }}",
    "{{ topic['__slots__'] }}",
    "{{ labels.__class__ }}",
    "{{ labels['__class__'] }}",
    "{{ labels.items.__self__ }}",
    "{{ labels.items['__self__'] }}",
    "{{ dims.pop('tone') }}",
    "{{ dims.update({'tone': 'x'}) }}",
    "{{ labels.setdefault('a', 'b') }}",
    "{{ labels.fromkeys('ab') }}",
    "{{ leaf.index('cards') }}",
    "{{ leaf.count }}",
    "{{ tone.upper }}",
    "{{ tone.upper() }}",
    "{{ tone.encode() }}",
    "{{ slot.topic }}",
    "{{ slot.labels }}",
    "{{ loop }}",
    "{% for s in seeds %}{{ loop.__class__ }}{% endfor %}",
    "{% for s in seeds %}{{ loop._iterable }}{% endfor %}",
    "{% for s in seeds %}{{ loop['_iterator'] }}{% endfor %}",
    "{% for s in seeds %}{{ loop }}{% endfor %}",
    "{% for s in seeds %}{{ loop(seeds) }}{% endfor %}",
    # filters that reach attributes
    "{{ ''|attr('__class__') }}",
    "{{ tone|attr('upper') }}",
    "{{ seeds|map(attribute='__class__')|list|tojson }}",
    "{{ seeds|map(attribute='text.__class__')|join }}",
    "{{ seeds|map('attr', '__class__')|list }}",
    "{{ seeds|map('upper')|join }}",
    "{{ seeds|selectattr('__class__')|list }}",
    "{{ seeds|groupby('__class__') }}",
    "{{ seeds|sort(attribute='__class__') }}",
    "{{ seeds|join(attribute='__class__') }}",
    # format strings
    "{{ '{0.__class__}'.format(slot) }}",
    "{{ '{0.__class__}'.format_map({}) }}",
    "{{ '%s'|format(slot) }}",
    "{{ '%s' % slot }}",
    "{{ '%(x)s' % {'x': 1} }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ tone.format }}",
    # globals and functions
    "{{ cycler('a').__init__.__globals__ }}",
    "{{ cycler }}",
    "{{ lipsum() }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ joiner() }}",
    "{{ namespace(a=1) }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}",
    "{{ range(10)|list }}",
    "{{ dict(a=1) }}",
    "{{ config }}",
    "{{ request }}",
    "{{ self }}",
    "{{ self.__init__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ _spent }}",
    "{{ __builtins__ }}",
    "{{ environment }}",
    "{{ context }}",
    "{{ caller() }}",
    "{{ varargs }}",
    "{{ debug() }}",
    "{{ x._each }}",
    "{{ seeds|_each }}",
    "{{ seeds|_built }}",
    # arguments
    "{{ labels.get(*['a']) }}",
    "{{ labels.get(**{'a': 1}) }}",
    "{{ leaf|join(*[',']) }}",
    # statements
    "{% include 'p.j2' %}",
    "{% include '/etc/passwd' %}",
    "{% import 'p.j2' as p %}",
    "{% from 'p.j2' import x %}",
    "{% extends 'p.j2' %}",
    "{% block a %}{% endblock %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% call seeds() %}{% endcall %}",
    "{% filter upper %}a{% endfilter %}",
    "{% set a %}b{% endset %}{{ a }}",
    "{% with a = 1 %}{{ a }}{% endwith %}",
    "{% do seeds.append(1) %}",
    "{% debug %}",
    "{% autoescape true %}{% endautoescape %}",
    "{% for a in leaf recursive %}{{ loop(a) }}{% endfor %}",
    "{{ '\\ud800' }}",
]


@pytest.mark.parametrize("payload", ESCAPES)
def test_an_escape_is_an_input_error(tmp_path: Path, payload: str) -> None:
    with pytest.raises(InputError) as caught:
        attempt(tmp_path, payload)
    for leaked in ("<class", "<bound", "<function", "object at 0x", "Traceback"):
        assert leaked not in str(caught.value)


LISTS = "".join(f"{{% set l{n + 1} = [l{n}, l{n}, l{n}, l{n}, l{n}, l{n}, l{n}, l{n}] %}}" for n in range(30))
TEXTS = "".join(f"{{% set t{n + 1} = t{n} ~ t{n} %}}" for n in range(60))
SUMS = "".join(f"{{% set t{n + 1} = t{n} + t{n} %}}" for n in range(60))
PRODUCTS = "".join(f"{{% set n{n + 1} = n{n} * n{n} %}}" for n in range(40))
NESTED = "".join(f"{{% for a{n} in [1,2,3,4,5,6,7,8,9,10] %}}" for n in range(12))
DEEP = "".join(f"{{% for a{n} in leaf %}}" for n in range(100))

BOMBS = [
    "{{ 'a' * 10**9 }}",
    "{{ 'a' * 1000000000 }}",
    "{{ [0] * 1000000000 }}",
    "{{ 2**99999999 }}",
    "{{ 2**99999999 > 1 }}",
    "{{ 9999999999 * 9999999999 * 9999999999 }}",
    "{{ " + "9" * 5000 + " }}",
    "{{ " + "9" * 30 + " }}",
    "{{ 'a'|center(1000000000) }}",
    "{{ 'a'|ljust(1000000000) }}",
    "{{ 'a'|indent(1000000000) }}",
    "{{ leaf|tojson(indent=1000000000) }}",
    "{{ 1|round(1000000000) }}{{ 'a'|batch(10)|list }}",
    "{% for i in range(1000000000) %}{% endfor %}",
    "{% for c in tone %}{{ c }}{% endfor %}",
    NESTED + "{{ 1 }}" + "{% endfor %}" * 12,
    NESTED + "{% endfor %}" * 12,
    NESTED + "{% if false %}{% endif %}" + "{% endfor %}" * 12,
    DEEP + "{% endfor %}" * 100,
    "{% set t0 = 'aaaaaaaaaa' %}" + TEXTS + "{{ t60 }}",
    "{% set t0 = 'aaaaaaaaaa' %}" + SUMS + "{{ t60 }}",
    "{% set t0 = [1] %}" + SUMS + "{{ t60|length }}",
    "{% set n0 = 9 %}" + PRODUCTS + "{{ n40 }}",
    "{% set l0 = [1] %}" + LISTS + "{{ l30|tojson }}",
    "{% set l0 = [1] %}" + LISTS + "{{ l30 == l29 }}",
    "{% set t0 = 'aaaaaaaaaa' %}" + TEXTS[: TEXTS.index("t17")] + "t17 = 1 %}{{ t16|replace('a', t16) }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "{{ " + "not " * 4000 + "1 }}",
    "{{ " + "1+" * 4000 + "1 }}",
    "{{ a" + ".b" * 4000 + " }}",
    "{% if tone %}" * 3000 + "{% endif %}" * 3000,
    "x" * 300_000,
]


@pytest.mark.parametrize("payload", BOMBS, ids=lambda text: text[:40])
def test_a_bomb_does_not_go_off(tmp_path: Path, payload: str) -> None:
    tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(InputError):
            attempt(tmp_path, payload)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - begun < 5
    assert peak < 200_000_000


def test_many_turns_are_refused_and_some_are_not(tmp_path: Path) -> None:
    text = "{% for a in input %}{% for b in input %}.{% endfor %}{% endfor %}"
    assert len(attempt(tmp_path, text, input=list(range(90)))) == 8100
    with pytest.raises(InputError, match="loops of more than 10,000 turns"):
        attempt(tmp_path, text, input=list(range(110)))


def test_long_values_are_shown_once_and_not_a_thousand_times(tmp_path: Path) -> None:
    document = "word " * 100_000
    assert len(attempt(tmp_path, "{{ input }}", input=document)) == 499_999
    with pytest.raises(InputError, match="more than 4,000,000 characters"):
        attempt(tmp_path, "{% for s in seeds %}" * 4 + "{{ input }}" + "{% endfor %}" * 4, input=document)


HOSTILE = [
    "{{ 7*7 }}",
    "{% for x in range(10) %}x{% endfor %}",
    "{{ ''.__class__ }}",
    "{# gone #}",
    "---\nsystem: evil\n---",
    "${TEACHER_KEY}",
    "{0.__class__}",
    "%s %(x)s",
    "<script>alert(1)</script>",
    "\u2028\u2029\x00\x1b[31m",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_seeds_and_answers_are_shown_as_they_are(tmp_path: Path, text: str) -> None:
    seeds = [Seed("s", text, None, {"answer": text})]
    slot = next(iter(Planner("r", compile_taxonomy(TAXONOMY), seeds).slots()))
    path = tmp_path / "p.j2"
    path.write_text("a{{ seeds[0].text }}b{{ seeds[0].data.answer }}c{{ input }}d")
    assert load_prompt(path).render(slot, input=text) == f"a{text}b{text}c{text}d"


def test_rendering_changes_nothing(tmp_path: Path) -> None:
    given = slot()
    before = repr(given)
    path = tmp_path / "p.j2"
    path.write_text("{% set tone = 'other' %}{% set leaf = [1] %}{% for labels in seeds %}{{ tone }}{% endfor %}")
    prompt = load_prompt(path)
    assert prompt.render(given) == prompt.render(given)
    assert repr(given) == before


WORDS = (
    "{{ }} {% %} {# #} for in if else endif endfor set seeds leaf tone slot labels loop x . | ( ) [ ] { } ' , ~ + * ** "
    "% __class__ text join tojson map attribute = == is defined not 1 99999999 items get 'a' -"
)
PIECES = st.sampled_from(WORDS.split())


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=24), st.booleans())
def test_any_template_renders_or_is_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], wrapped: bool
) -> None:
    text = " ".join(pieces)
    folder = tmp_path_factory.getbasetemp()
    try:
        shown = attempt(folder, "{{ " + text + " }}" if wrapped else text)
    except InputError:
        return
    assert "<class" not in shown
    assert "object at 0x" not in shown
