"""From a recipe's section to a teacher, or to an error that says what to do."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from distill.errors import InputError
from distill.recipe import TeacherConfig
from distill.teachers import make_teacher


def config(**fields: Any) -> TeacherConfig:
    return TeacherConfig.model_validate({"model": "mock", **fields})


@pytest.mark.parametrize("provider", ["openai", "anthropic", "simulated"])
def test_every_provider_is_made(provider: str) -> None:
    url = {} if provider == "simulated" else {"base_url": "http://127.0.0.1:1/v1"}
    assert make_teacher("main", config(provider=provider, **url)).provider == provider


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    with pytest.raises(InputError) as caught:
        make_teacher("main", config(base_url="http://127.0.0.1:1/v1", api_key="${TEACHER_KEY}"))
    assert caught.value.message == "teachers.main.api_key: environment variable TEACHER_KEY is not set"


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_the_providers_own_endpoint_needs_a_key(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-named-in-the-recipe")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-not-named-in-the-recipe")
    with pytest.raises(InputError, match=r"teachers\.main\.api_key"):
        make_teacher("main", config(provider=provider))


@pytest.mark.parametrize("key", ["sk-\x00secret", "sk-schlüssel", "sk two\nlines", "   "])
def test_a_key_that_no_header_carries_is_refused_unquoted(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "\x00" in key:
        fields = {"api_key": key}
    else:
        monkeypatch.setenv("TEACHER_KEY", key)
        fields = {"api_key": "${TEACHER_KEY}"}
    with pytest.raises(InputError, match=r"teachers\.main\.api_key") as caught:
        make_teacher("main", config(base_url="http://127.0.0.1:1/v1", **fields))
    assert key.strip() not in str(caught.value) or not key.strip()


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"base_url": "http://user:pass@127.0.0.1/v1"}, "base_url"),
        ({"base_url": "http://127.0.0.1/v1", "headers": {"X-A": "b\r\nX-C: d"}}, "headers.X-A"),
    ],
)
def test_what_cannot_be_sent_is_refused(fields: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError, match=where) as caught:
        make_teacher("main", config(**fields))
    assert "pass@" not in str(caught.value)


def test_the_sdks_are_imported_only_when_used() -> None:
    heavy = "{'openai', 'anthropic', 'aiohttp', 'httpx2'}"
    code = f"import sys, distill.teachers; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
