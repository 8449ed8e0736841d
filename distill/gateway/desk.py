"""Everything the gateway holds for one teacher: its line, its price, its circuit, its counts."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from distill.errors import DistillError, FailureClass, Halted, InputError, RunError, TeacherError
from distill.gateway.budget import Amount
from distill.gateway.context import window_for
from distill.gateway.line.concurrency import Concurrency
from distill.gateway.line.daily import Daily
from distill.gateway.line.lane import Lane
from distill.gateway.line.limits import Estimate, RateLimits
from distill.gateway.money import Tariff, tariff_for
from distill.gateway.retries import TRANSIENT, Circuit, Trip
from distill.gateway.stats import TeacherStats
from distill.gateway.store import Record
from distill.io import canonical
from distill.recipe import Budget, TeacherConfig
from distill.teachers import Reply, Request, Teacher, Usage

__all__ = ["Desk", "check_prices"]

_TEMPLATE_TOKENS = 64
_SCHEMA_TOKENS = 512


class Desk:
    """One teacher, as the gateway sees it."""

    def __init__(
        self,
        name: str,
        teacher: Teacher,
        config: TeacherConfig,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        rng: random.Random,
    ) -> None:
        self.name = name
        self.teacher = teacher
        self.config = config
        self.rng = rng
        self.tariff: Tariff | None = tariff_for(config)
        self.circuit = Circuit(patience=config.patience_s)
        self.window = window_for(config)
        self.daily: Daily | None = None
        """Quotas by the day, where the recipe has any."""
        self.stats = TeacherStats()
        self.unproven: dict[str, Record] = {}
        """Permanent refusals that came before any answer: perhaps the set-up is wrong, so they are not stored yet."""
        local = config.provider == "local"
        self.lane = Lane(
            Concurrency(config.max_concurrency, ramp=not local, steady=local),
            RateLimits(config.limits, clock()),
            clock=clock,
            sleep=sleep,
            rng=rng,
        )
        self.parking = self.lane.parking
        self._bytes_per_token = 3.0
        self._output_tokens: float | None = None
        self._overrun = 1.0

    # -- how much ----------------------------------------------------------------------------------------------

    def worst(self, request: Request, size: int) -> Amount:
        """The most that one attempt can cost, `size` being the bytes of its wire payload.

        A tokenizer makes at most one token of a byte, and the payload holds every text once, so its length bounds the
        prompt; chat templates and schema modes add tokens of the provider's own.
        """
        given = size + _TEMPLATE_TOKENS + (_SCHEMA_TOKENS if request.schema is not None else 0)
        copies = request.params.extra.get("n", 1)
        made = request.params.max_tokens * (copies if isinstance(copies, int) and copies > 1 else 1)
        if self._overrun > 1:
            given, made = int(given * self._overrun) + 1, int(made * self._overrun) + 1
        pico = self.tariff.worst(given, made) if self.tariff is not None else 0
        return Amount(pico, given + made)

    def estimate(self, request: Request, size: int) -> Estimate:
        """What one attempt will probably use: for rate limits, never for money."""
        made = request.params.max_tokens
        if self._output_tokens is not None:
            made = min(made, int(self._output_tokens) + 1)
        return Estimate(int(size / self._bytes_per_token) + 1, made)

    def learn(self, size: int, usage: Usage, worst: Amount) -> None:
        """Correct the estimates by what an answer used."""
        if usage.input > 0:
            self._bytes_per_token += 0.05 * (size / usage.input - self._bytes_per_token)
        seen = float(usage.output)
        self._output_tokens = (
            seen if self._output_tokens is None else self._output_tokens + 0.05 * (seen - self._output_tokens)
        )
        if usage.total > worst.tokens:  # the provider counts otherwise than we thought: reserve more from now on
            self._overrun = max(self._overrun, self._overrun * usage.total / worst.tokens)

    def cost(self, usage: Usage) -> int:
        """Pico-USD."""
        return self.tariff.cost(usage) if self.tariff is not None else 0

    def record(
        self,
        reply: Reply,
        usage: Usage,
        pico: int,
        finish: str,
        *,
        key: str,
        sample: int,
        wire: Mapping[str, Any] | None,
        run: str,
        created: float,
    ) -> Record:
        """A reply of this teacher as the store keeps it."""
        return Record(
            key=key,
            provider=self.teacher.provider,
            model=self.teacher.model,
            sample=sample,
            status=reply.status,
            body=reply.body,
            input=usage.input,
            output=usage.output,
            cached=usage.cached,
            cache_write=usage.cache_write,
            reasoning=usage.reasoning,
            cost_pico=pico,
            finish=finish,
            run=run,
            created=created,
            request=canonical(wire) if wire is not None else b"",
        )

    # -- when all fails -----------------------------------------------------------------------------------------

    def verdict(self, error: TeacherError) -> DistillError | None:
        """The end of the run, when this failure of one request means that."""
        if error.failure is FailureClass.AUTH:
            return RunError(
                f"teacher {self.name} ({self.config.model}) refused the key: {error.message}",
                hint=f"Check {self._key_name()}.",
            )
        if error.failure is FailureClass.QUOTA:
            return Halted(
                f"the account of teacher {self.name} ({self.config.model}) has no quota left: {error.message}",
                hint="Everything paid so far is kept. Top the account up and run the same command to go on.",
            )
        return None

    def given_up(self, error: TeacherError) -> DistillError | None:
        """Why this teacher is of no use in this session, when the failure of one request tells that: no key, no quota,
        no such model."""
        end = self.verdict(error)
        if end is None and error.failure is FailureClass.BAD_REQUEST and error.status == 404:
            end = RunError(
                f"teacher {self.name} ({self.config.model}) is not there: {error.message}",
                hint=_HINTS[FailureClass.BAD_REQUEST],
            )
        return end

    def exhausted(self, error: TeacherError, now: float) -> Trip | None:
        """A teacher that answered before and fails in whatever way, for longer than it is waited for."""
        patience = max(self.config.patience_s, 3 * self.config.timeout_s, 3 * (error.retry_after or 0.0))
        if not (self.parking.shut and self.circuit.proven) or self.parking.down_s(now) < patience:
            return None
        return Trip(error.failure, self.parking.failures, error.message, proven=True, by_the_clock=True)

    def stop(self, trip: Trip) -> DistillError:
        """The end of the run, when nothing works any more."""
        where = f" at {self.config.base_url}" if self.config.base_url else ""
        what = "attempts" if trip.by_the_clock else "calls"
        message = (
            f"teacher {self.name} ({self.config.model}{where}): the last {trip.count} {what} all failed"
            f" ({trip.failure.value}) and none succeeded; the last one said: {trip.message}"
        )
        hint = _HINTS.get(trip.failure, "Look at the teacher's section of the recipe.")
        # A teacher that has answered before, or that knows the key and only says "too many", will answer again.
        if (trip.proven and trip.failure in TRANSIENT) or trip.failure is FailureClass.RATE_LIMITED:
            return Halted(message, hint=f"{hint} The same command goes on from here.")
        return RunError(message, hint=hint)

    def _key_name(self) -> str:
        secret = self.config.api_key
        names = re.findall(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", secret.get_secret_value()) if secret is not None else []
        if names:
            return f"the environment variable {names[0]} (teachers.{self.name}.api_key)"
        return f"teachers.{self.name}.api_key"


_HINTS = {
    FailureClass.CONNECTION: "Is the server running, and is base_url right?",
    FailureClass.TIMEOUT: "Raise timeout_s, or lower max_concurrency if the server queues.",
    FailureClass.RATE_LIMITED: "Set limits.requests_per_minute or tokens_per_minute to what the account allows.",
    FailureClass.OVERLOADED: "The server is failing or overloaded; try again later, or lower max_concurrency.",
    FailureClass.MALFORMED: "Is base_url right? What answered there does not speak the provider's protocol.",
    FailureClass.BAD_REQUEST: "Check the model's name, base_url and the sampling parameters.",
    FailureClass.CONTEXT: "The prompts are too long for this model; shorten them, or use one with a larger window.",
    FailureClass.FILTERED: "The provider's content filter stops these prompts; look at one with `distill preview`.",
    FailureClass.CRASHED: "The local engine keeps dying; `distill doctor` checks the machine and the model file.",
}


def check_prices(desks: list[Desk], budget: Budget) -> None:
    """Refuse to start where a cap in USD could not be kept, or a price was asked for and is not known.

    Raises:
        InputError: names the field to fill in.
    """
    for desk in desks:
        if desk.tariff is not None:
            continue
        unknown = f"the price of {desk.config.model} is not known"
        give = (
            f"Add teachers.{desk.name}.price: {{input: …, output: …}} (USD per million tokens; 0 if it costs nothing)"
        )
        if budget.usd is not None:
            raise InputError(
                f"{unknown}, so the cap of {budget.usd} USD could not be kept",
                field=f"teachers.{desk.name}.price",
                hint=f"{give}, or cap tokens instead: budget: {{tokens: …, unknown_price: tokens_only}}.",
            )
        if budget.unknown_price == "refuse":
            raise InputError(
                unknown,
                field=f"teachers.{desk.name}.price",
                hint=f"{give}, or run without knowing the cost: budget: {{unknown_price: tokens_only}}.",
            )
