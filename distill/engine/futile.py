"""Stops a run whose every answer comes to nothing for one reason: cut at max_tokens, refused, empty, without the
structure that was asked for. Such answers are paid, so a plan of thousands of them is not worth finishing.

The gateway does the same for calls that bring no answer at all.
"""

from __future__ import annotations

from distill.dataset import Failure
from distill.engine.decide import Outcome
from distill.errors import FailureClass, RunError

__all__ = ["ENOUGH", "Futility"]

ENOUGH = 40
"""Slots from the beginning of the plan that must all have failed for the same reason."""

_MAY_BE_RARE = frozenset({FailureClass.UNVERIFIED, FailureClass.TIE})
"""What a hard task does to most slots, and what rejection sampling is for."""

_HINTS = {
    FailureClass.LENGTH: "Raise sampling.max_tokens, or set method.raise_max_tokens.",
    FailureClass.REFUSED: "Look at one with `distill preview`; another prompt or another teacher may be needed.",
    FailureClass.FILTERED: "Look at one with `distill preview`; the provider's content filter stops these prompts.",
    FailureClass.EMPTY: "Look at one with `distill preview`; does the model's name mean a chat model?",
    FailureClass.UNPARSED: "Look at one with `distill preview`; does the prompt ask for the structure of the schema?",
    FailureClass.CONTEXT: "Shorten the prompts, lower max_tokens, or ask a model with a larger window.",
    FailureClass.UNREADABLE: "The server sends text that no file can hold; another model or server may be needed.",
}


class Futility:
    """Watches outcomes in slot order, so that a replay comes to the same verdict at the same slot."""

    def __init__(self) -> None:
        self._failure: FailureClass | None = None
        self._count = 0
        self._over = False

    def watch(self, outcomes: list[Outcome]) -> RunError | None:
        """The end of the run, if these outcomes make it futile."""
        for _, items in outcomes:
            failures = [item for item in items if isinstance(item, Failure)]
            kinds = {failure.failure for failure in failures}
            self._failure = self._failure or (failures[0].failure if failures else None)
            if self._over or len(failures) < len(items) or kinds != {self._failure} or kinds <= _MAY_BE_RARE:
                self._over = True
                return None
            self._count += 1
            if self._count == ENOUGH:
                self._over = True
                return self._error(failures[-1])
        return None

    def _error(self, last: Failure) -> RunError:
        return RunError(
            f"the first {ENOUGH} slots of the plan all failed for one reason ({last.failure.value}), "
            f"so the rest was not tried; the last one said: {last.message}",
            hint=_HINTS.get(last.failure, "Look at one with `distill preview`."),
        )
