"""Groups of teachers: whose slot it is, and who answers in its place.

The share of a group is a low-discrepancy sequence over the slots (Weyl's: multiples of an irrational number, modulo
one), so that after any number of slots every teacher has had its share within a few, on every machine, in every
session. It is the root of another prime for every group, so that groups of one recipe do not march in step.

Who answers depends on who is up, which no replay could repeat: so the store decides first. A slot takes the first
answer that stands there, in the order of its own teachers; only where there is none, somebody is asked.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from distill.errors import DistillError, Halted, RunError
from distill.gateway.desk import Desk
from distill.recipe import TeacherGroup
from distill.teachers import Request

__all__ = ["Route", "Routes", "Way"]

_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)
_WORD = 1 << 64


class Route:
    """Who is asked for which slot of one group.

    Args:
        number: of the group in its recipe.
        seed: of the recipe.
    """

    def __init__(self, name: str, group: TeacherGroup, *, number: int = 0, seed: int = 0) -> None:
        self.name = name
        self.group = group
        prime = _PRIMES[number % len(_PRIMES)]
        self._step = math.isqrt(prime << 128) % _WORD  # the fraction of its root, in 64 bits
        self._start = int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest())
        total = sum(group.share.values())
        self._edges = [edge / total for edge in accumulate(group.share.values())]
        self._orders = [group.order(first) for first in group.share]

    def order(self, place: int) -> tuple[str, ...]:
        """The slot's own teacher, and those in its place."""
        at = (self._start + place * self._step) % _WORD / _WORD
        return next(
            (order for edge, order in zip(self._edges, self._orders, strict=True) if at < edge), self._orders[-1]
        )


class Routes:
    """The groups of a gateway."""

    def __init__(self, groups: Mapping[str, TeacherGroup], desks: Mapping[str, Desk], seed: int = 0) -> None:
        self._routes = {
            name: Route(name, group, number=number, seed=seed) for number, (name, group) in enumerate(groups.items())
        }
        self._desks = desks
        members = {member for route in self._routes.values() for member in route.group.members}
        self._grouped = [desk for name, desk in desks.items() if name in members]
        for desk in self._grouped:
            desk.parking.grouped = True

    def __bool__(self) -> bool:
        return bool(self._routes)

    def find(self, name: str) -> Route | None:
        """The group of that name."""
        return self._routes.get(name)

    def desks(self, route: Route, request: Request, place: int | None) -> list[Desk]:
        """Whom to ask, in this order. Without a place in a plan the question itself is its place."""
        if place is None:
            said = repr([(message.role, message.content) for message in request.messages])
            place = int.from_bytes(hashlib.blake2b(said.encode("utf-8", "replace"), digest_size=8).digest())
        return [self._desks[name] for name in route.order(place)]

    def changed(self) -> None:
        """A teacher was parked, or is back: whoever waits for one that is parked looks around again."""
        for desk in self._grouped:
            if desk.parking.shut:
                desk.lane.evict()


class Way(NamedTuple):
    """Where else a question may go. `others` are the teachers that could still be asked for it."""

    name: str
    others: Sequence[Desk]
    clock: Callable[[], float]
    patience: Callable[[float], bool]
    """Whether the run may wait until that time."""

    def now(self) -> bool:
        """Whether another one is up."""
        return any(not desk.parking.shut for desk in self.others)

    def ever(self) -> bool:
        """Whether another one may still answer in this session."""
        return any(
            desk.parking.gone is None
            and desk.parking.outage is None
            and (not desk.parking.shut or self.patience(desk.parking.until))
            for desk in self.others
        )

    def nobody(self, end: DistillError) -> DistillError:
        """The end of the run when the last of them fails by `end`."""
        now = self.clock()
        told = [f"{desk.name}: {_why(desk, now)}" for desk in self.others if desk.parking.shut]
        if not told:
            return end
        message = f"no teacher of group {self.name} can answer: {end.message}; {'; '.join(told)}"
        final = isinstance(end, RunError) and all(isinstance(desk.parking.gone, RunError) for desk in self.others)
        return (RunError if final else Halted)(message, hint=end.hint)


def _why(desk: Desk, now: float) -> str:
    reason = desk.parking.gone or desk.parking.outage
    return reason.message if reason is not None else desk.parking.state(now)
