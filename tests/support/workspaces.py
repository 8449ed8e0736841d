"""Probe workspaces: the smallest recipe that does the main job, as a user would write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.support.loopback import Loopback

__all__ = ["group_probe", "probe", "rehearsal"]

TAXONOMY = """\
name: probe
dimensions:
  tone: [calm, angry, terse]
topics:
  cards: {weight: 2, topics: {lost: {}, declined: {}}}
  loans: {topics: {rate: {}, early_repayment: {}}}
"""
PROMPT = """\
{# prompts/probe.j2 #}
Write one customer message about {{ leaf | join(" > ") }}, tone {{ tone }}, number {{ slot.index }}.
"""


def probe(
    folder: Path, base_url: str, *, target: int = 40, teacher: dict[str, Any] | None = None, **recipe: Any
) -> Path:
    """Lay out a workspace whose teacher is at `base_url`; returns the recipe file."""
    for name in ("taxonomies", "prompts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "taxonomies/probe.yaml").write_text(TAXONOMY)
    (folder / "prompts/probe.j2").write_text(PROMPT)
    value: dict[str, Any] = {
        "name": "probe",
        "seed": 7,
        "teachers": {
            "main": {
                "provider": "openai",
                "base_url": base_url,
                "model": "mock",
                "api_key": "${TEACHER_KEY}",
                "max_concurrency": 16,
                "price": {"input": 0.15, "output": 0.60},
                "sampling": {"temperature": 0.8, "max_tokens": 64},
                **(teacher or {}),
            }
        },
        "plan": {"taxonomy": "taxonomies/probe.yaml", "target": target},
        "method": {"kind": "response", "teacher": "main", "prompt": "prompts/probe.j2"},
        "filters": [],
        "budget": {"usd": 5},
        **recipe,
    }
    path = folder / "probe.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return path


def group_probe(
    folder: Path, *, a: Loopback, b: Loopback, groups: dict[str, Any] | None = None, target: int = 40, **recipe: Any
) -> Path:
    """The same workspace with two teachers behind the name `main`, by default 70 % and 30 %."""
    probe(folder, "http://unused", target=target, **recipe)
    path = folder / "probe.yaml"
    value = yaml.safe_load(path.read_text())
    main = value["teachers"].pop("main")
    for name, server in (("a", a), ("b", b)):
        value["teachers"][name] = {**main, "base_url": server.base_url, "model": f"model-{name}"}
    value["teacher_groups"] = groups or {"main": {"share": {"a": "70 %", "b": "30 %"}}}
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return path


def rehearsal(folder: Path, *, file: str = "probe.yaml", teacher: dict[str, Any] | None = None, **recipe: Any) -> Path:
    """The same workspace with the offline rehearsal for a teacher: no server, no key. Sections in `recipe` replace
    whole sections; None leaves one out."""
    path = probe(folder, "http://unused")
    value = yaml.safe_load(path.read_text())
    value["teachers"] = {
        "main": {
            "provider": "simulated",
            "model": "rehearsal",
            "simulate": {"latency_s": 0.0},
            "sampling": {"max_tokens": 64},
            **(teacher or {}),
        }
    }
    value["plan"]["target"] = 12
    value |= recipe
    target = folder / file
    path.unlink()
    target.write_text(
        yaml.safe_dump({key: item for key, item in value.items() if item is not None}, sort_keys=False),
        encoding="utf-8",
    )
    return target
