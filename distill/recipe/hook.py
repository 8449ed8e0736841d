"""`hook:` who is told when a run ends."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, model_validator

from distill.recipe.base import Section

__all__ = ["HookConfig", "HookEvent"]

HookEvent = Literal["finished", "stopped", "failed"]


class HookConfig(Section):
    """Who is told when a session of a run ends: a command, a webhook or both, with the summary as JSON. A hook that
    fails is a warning and changes nothing else. It decides no row and is left out of `run.json`."""

    command: tuple[str, ...] = ()
    """A program and its arguments, run without a shell in the recipe's folder; the summary is its standard input."""
    webhook: SecretStr | None = None
    """Address that the summary is posted to; `${NAME}` is taken from the environment."""
    on: tuple[HookEvent, ...] = Field(default=("finished", "stopped", "failed"), min_length=1)
    """Ends that are told. `finished`: the target is reached; `stopped`: the run ended before, by a cap, a signal or dry
    leaves, and the same command continues; `failed`: it could not go on."""

    @model_validator(mode="after")
    def _somebody(self) -> HookConfig:
        if not self.command and self.webhook is None:
            raise ValueError("tells nobody: say `command` or `webhook`")
        return self
