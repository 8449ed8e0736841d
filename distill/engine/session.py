"""What a session needs around the gateway: the ask of one slot, the secrets to mask, the figures to report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

from distill.dataset import Failure
from distill.engine.ledger import Ledger
from distill.errors import AnswerError, InputError, TeacherError
from distill.gateway import Batching, BatchLedger, Gateway, TeacherStats
from distill.planning import Slot
from distill.recipe import DecontaminateStep, FilterStep, Recipe, resolve_secret
from distill.teachers import Answer, Request, make_batches

__all__ = ["SlotAsk", "as_tokens", "batching_of", "secrets_of", "teachers_used", "width"]

_SAMPLES = 1 << 16


class SlotAsk:
    """The ask of one slot.

    Two slots may render the same prompt and still want two different answers, so the sample number carries the
    slot's index. At temperature 0 there is only one answer: it is asked for once and shared. The index is also the
    slot's place among those that the teachers of a group share.
    """

    __slots__ = ("_answers", "_base", "_gateway", "_ledger", "_slot")

    def __init__(self, gateway: Gateway, slot: Slot, ledger: Ledger | None = None) -> None:
        self._gateway = gateway
        self._ledger = ledger
        self._slot = slot
        self._base = slot.index * _SAMPLES
        self._answers: list[Answer] = []

    async def __call__(self, request: Request, *, sample: int = 0) -> Answer:
        shared = request.params.temperature == 0
        if request.each is not None:  # whoever answers
            shared = all(params.temperature == 0 for params in request.each.values())
        number = sample if shared else self._base + sample
        answer = await self._gateway.ask(request, sample=number, place=self._slot.index)
        self._answers.append(answer)
        if self._ledger is not None:
            self._ledger.note(answer, shared=shared)
        return answer

    def failure(self, error: AnswerError | TeacherError) -> Failure:
        """The fate of the whole slot, with everything that was paid for it."""
        return Failure(
            id=f"{self._slot.id}-0",
            slot=self._slot,
            failure=error.failure,
            message=error.message,
            raw=error.raw if isinstance(error, AnswerError) else "",
            keys=tuple(sorted({answer.key for answer in self._answers})),
            cost=sum((answer.cost for answer in self._answers), Decimal(0)),
            teacher=error.teacher or (self._answers[-1].teacher if self._answers else ""),
        )


def secrets_of(recipe: Recipe) -> tuple[str, ...]:
    """The recipe's secrets that are set; one that is missing is reported where it is needed."""
    found: list[str] = []
    for teacher in recipe.teachers.values():
        try:
            value = resolve_secret(teacher.api_key)
        except LookupError:
            continue
        if value:
            found.append(value)
    return tuple(found)


def teachers_used(recipe: Recipe, steps: Sequence[FilterStep] = ()) -> list[str]:
    """Names of the teachers that the method and the filters' steps ask, those of groups among them, in the order of the
    recipe."""
    method = recipe.method
    named = {getattr(method, field, None) for field in ("teacher", "input_teacher", "judge")}
    named.update(getattr(method, "candidates", ()))
    asking = [step.verdict for step in steps if isinstance(step, DecontaminateStep) and step.verdict is not None]
    named.update(str(verdict.teacher) for verdict in asking)
    asked = {member for name in named if name is not None for member in recipe.members(name)}
    return [name for name in recipe.teachers if name in asked]


def width(recipe: Recipe) -> int:
    """Slots under way at once that keep every teacher busy: a slot asks one teacher at a time or several, and
    spends a little of its life on the disk and in the filters. What is asked by batch waits for hours, so that as
    many as may wait at once are under way."""
    teachers = [recipe.teachers[name] for name in teachers_used(recipe)]
    online = sum(teacher.max_concurrency for teacher in teachers) * 5 // 4 + 8
    return max([online, *(teacher.batch.in_flight for teacher in teachers if teacher.mode != "online")])


def batching_of(recipe: Recipe, workspace: Path, *, detach: bool = False) -> Batching | None:
    """How the recipe's teachers are asked by batch; None where all are asked online. Its ledger is to be closed.

    A teacher that is asked online now, and has batches open from before, is among them: what they hold is paid.

    Raises:
        InputError: nothing would be left to run when the process is detached from it.
    """
    path = workspace / ".distill" / "batches.sqlite"
    configs = {name: recipe.teachers[name] for name in teachers_used(recipe)}
    modes = {config.mode for config in configs.values()}
    if modes <= {"online"}:
        if detach:
            raise InputError(
                "no teacher of this recipe is asked by batch, so that nothing would go on without this process",
                field="--detach",
                hint="Set `mode: batch` in the teacher's section, or leave --detach out.",
            )
        if not path.exists():
            return None
    ledger = BatchLedger.open(path)
    can = {name: make_batches(name, each) for name, each in configs.items() if each.provider in ("openai", "anthropic")}
    teachers = {
        name: batches
        for name, batches in can.items()
        if configs[name].mode != "online" or ledger.open_entries(batches.account, configs[name].model)
    }
    return Batching(ledger, teachers, detach=detach)


def as_tokens(stats: Iterable[TeacherStats]) -> dict[str, int]:
    """Tokens of a session by kind, over all teachers."""
    total = {"input": 0, "output": 0, "cached": 0, "reasoning": 0}
    for teacher in stats:
        for kind in total:
            total[kind] += getattr(teacher, kind)
    return total
