"""Whether a final answer is right: against a known one, or by what it has to be."""

from __future__ import annotations

from pathlib import Path

from distill.errors import InputError
from distill.methods.answers import same_text
from distill.methods.numbers import equal_numbers, number
from distill.methods.schemas import load_structure
from distill.methods.structured import Unstructured
from distill.planning import Slot
from distill.recipe import Check

__all__ = ["Verifier"]


class Verifier:
    """A `Check` made ready.

    Raises:
        InputError: its schema file is missing or wrong.
    """

    def __init__(self, check: Check, folder: Path) -> None:
        self._check = check
        self._structure = load_structure(check.schema_file, folder) if check.schema_file is not None else None

    def known(self, slot: Slot) -> str | None:
        """The known answer of a slot; None where the check needs none.

        Raises:
            InputError: the slot does not have what `against` names.
        """
        against = self._check.against
        if against is None:
            return None
        place, _, name = against.partition(".")
        if place == "labels":
            there = dict(slot.labels)
        else:
            there = {"text": slot.seeds[0].text, **slot.seeds[0].data} if slot.seeds else {}
        if there.get(name) is None:
            has = f"it has {', '.join(sorted(there))}" if there else "it has none"
            what = "labels" if place == "labels" else "first seed"
            raise InputError(
                f"method.check.against: {against}: slot {slot.id} ({'/'.join(slot.leaf)}) has no {name} in its {what}",
                hint=f"{has}; give every leaf its answer, or every seed that may be drawn",
            )
        known = str(there[name])
        if self._check.kind == "numeric" and number(known) is None:
            raise InputError(f"method.check.against: {against}: slot {slot.id}: not a number: {known!r}")
        return known

    def __call__(self, answer: str, known: str | None) -> bool:
        """Whether `answer` passes. Without a known answer `numeric` asks for a number, whichever."""
        match self._check.kind:
            case "numeric":
                value = number(answer)
                if value is None or known is None:
                    return value is not None
                wanted = number(known)
                return wanted is not None and equal_numbers(value, wanted, self._check.tolerance)
            case "exact":
                return known is not None and same_text(answer) == same_text(known)
            case "json_schema":
                try:
                    return self._structure is None or bool(self._structure.parse(answer))
                except Unstructured:
                    return False
