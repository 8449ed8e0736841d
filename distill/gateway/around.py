"""A question to a group: who has answered it before, else who answers it now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from distill.errors import FailureClass, Halted, TeacherError
from distill.gateway.call import Elsewhere
from distill.gateway.look import Look
from distill.gateway.retries import TRANSIENT
from distill.gateway.routing import Way
from distill.teachers import Answer

__all__ = ["ask_around", "look_around"]


def look_around(looks: list[Callable[[], Look]]) -> tuple[Answer | None, list[Look], TeacherError | None]:
    """The first answer that stands in the store; where there is none, whom to ask, and who need not be asked and why.

    Raises:
        TeacherError: nobody has answered, and one has refused the question for good.
    """
    left: list[Look] = []
    refused: TeacherError | None = None
    too_long: TeacherError | None = None
    for attempt in looks:
        try:
            look = attempt()
        except TeacherError as error:
            if error.failure is FailureClass.CONTEXT:
                too_long = too_long or error
            else:
                refused = refused or error
            continue
        if look.answer is not None:
            return look.answer, [], None
        left.append(look)
    if refused is not None:
        raise refused
    return None, left, too_long


async def ask_around(
    name: str,
    looks: list[Look],
    failure: TeacherError | None,
    fetch: Callable[[Look, Way], Awaitable[Answer]],
    *,
    clock: Callable[[], float],
    patience: Callable[[float], bool],
    ended: Callable[[], None],
) -> Answer:
    """Ask the teachers in this order, until one answers. One that is down, out of quota or too small for the question
    is passed over; where all are parked, the one that is tried next is waited for.

    `ended` raises where the run ends.

    Raises:
        TeacherError: all have failed.
        Halted, RunError: the run ends.
    """
    while look := _next(looks, clock()):
        others = [other.desk for other in looks if other is not look]
        try:
            return await fetch(look, Way(name, others, clock, patience))
        except Elsewhere as moved:
            failure = moved.error or failure
        except TeacherError as error:
            if error.failure not in TRANSIENT and error.failure is not FailureClass.CONTEXT:
                raise
            failure = error
            looks = [other for other in looks if other is not look]
    ended()  # by another question, which knows why, while this one was on its way from one teacher to the next
    raise failure or Halted(f"no teacher of group {name} can be asked")


def _next(looks: list[Look], now: float) -> Look | None:
    able = [look for look in looks if look.desk.parking.gone is None]
    for look in able:
        parking = look.desk.parking
        if not parking.shut or parking.opens(now) is None:
            return look
    return min(able, key=lambda look: look.desk.parking.until, default=None)
