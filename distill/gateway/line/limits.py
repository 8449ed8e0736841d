"""Rate limits: smooth token buckets that no 60-second window of the provider's can catch.

Providers count in fixed or in sliding windows of a minute, or with a bucket of their own. A bucket that refills at
rate r and holds b lets at most 60 r + b through in any window of 60 s, wherever the window starts. With r = 98.5 % of
the limit and b = 1 % of it (at least one request), every window stays within the limit, a run uses 98.5 % of it, and
there is no burst at the start that a provider's own smoothing would refuse.

Tokens are known after the answer: an estimate is taken before sending and corrected afterwards, so the bucket may go
below zero and then makes the next requests wait. A request larger than the bucket waits until it is full.
"""

from __future__ import annotations

from dataclasses import dataclass

from distill.recipe import Limits

__all__ = ["Bucket", "Estimate", "RateLimits"]

_USED = 0.985
_BURST = 0.01


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens that a request is expected to use."""

    input: int
    output: int


class Bucket:
    """A token bucket of `per_minute` units; times in seconds of any monotonic clock."""

    __slots__ = ("_capacity", "_level", "_rate", "_updated")

    def __init__(self, per_minute: float, now: float) -> None:
        self._rate = per_minute * _USED / 60
        self._capacity = max(1.0, per_minute * _BURST)
        self._level = self._capacity
        self._updated = now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; 0 when it may be now."""
        self._refill(now)
        missing = min(amount, self._capacity) - self._level
        # A hair of tolerance: a sleep may end a rounding error too early.
        return missing / self._rate if missing > 1e-6 else 0.0

    def take(self, amount: float) -> None:
        """Take `amount`; a negative one gives back."""
        self._level = min(self._capacity, self._level - amount)

    def _refill(self, now: float) -> None:
        if now > self._updated:
            self._level = min(self._capacity, self._level + (now - self._updated) * self._rate)
            self._updated = now


class RateLimits:
    """All limits of one teacher."""

    def __init__(self, limits: Limits, now: float) -> None:
        def bucket(per_minute: float | None) -> Bucket | None:
            return None if per_minute is None else Bucket(per_minute, now)

        self._requests = bucket(limits.requests_per_minute)
        self._tokens = bucket(limits.tokens_per_minute)
        self._input = bucket(limits.input_tokens_per_minute)
        self._output = bucket(limits.output_tokens_per_minute)
        self.none = all(b is None for b in (self._requests, self._tokens, self._input, self._output))

    def wait(self, estimate: Estimate, now: float) -> float:
        """Seconds until a request of this size may start; 0 when it may now."""
        if self.none:
            return 0.0
        return max(bucket.wait(amount, now) for bucket, amount in self._amounts(1, estimate))

    def take(self, estimate: Estimate) -> None:
        """A request of this size starts."""
        if not self.none:
            for bucket, amount in self._amounts(1, estimate):
                bucket.take(amount)

    def settle(self, estimate: Estimate, real: Estimate) -> None:
        """The request used `real` tokens where `estimate` was taken."""
        if not self.none:
            change = Estimate(real.input - estimate.input, real.output - estimate.output)
            for bucket, amount in self._amounts(0, change):
                bucket.take(amount)

    def _amounts(self, requests: int, tokens: Estimate) -> list[tuple[Bucket, float]]:
        pairs = (
            (self._requests, requests),
            (self._tokens, tokens.input + tokens.output),
            (self._input, tokens.input),
            (self._output, tokens.output),
        )
        return [(bucket, float(amount)) for bucket, amount in pairs if bucket is not None]
