# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# torch's autograd functions are untyped.
"""How far the student's next-token distribution is from the teacher's, and the gradient, a few positions at a time.

Forward KL is the classic distillation (arXiv:1503.02531), reverse KL and the Jensen-Shannon divergence are compared in
arXiv:2306.13649. At temperature T both distributions are softened and the result is multiplied by T squared, so that
the gradient keeps its size.

A matrix of [positions, vocabulary] is the largest tensor of such a training, several times over. It never stands in
memory whole: positions go through the output head in chunks, and a chunk's gradient with respect to its hidden states
is made at once, while its logits are there. What is kept for the backward pass is one vector a position.

A teacher that is known by its k best tokens only is compared over k + 1 outcomes: these tokens, and "another one". That
is a lower bound of the whole divergence, and zero for a student that agrees; leaving the rest out instead would teach
that it does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["CHUNK", "TopK", "between", "between_top", "mixed"]

CHUNK = 128
"""Positions whose logits stand in memory at once: 77 MB in float32 at a vocabulary of 150,000."""

_NEVER = -60.0
"""Stands for the logarithm of zero, without its infinite gradient."""


@dataclass(frozen=True)
class TopK:
    """A teacher's best tokens of some positions."""

    ids: Any
    """[positions, k], long; where fewer are known, any id."""
    logs: Any
    """[positions, k], log-probabilities, float32; minus infinity where fewer are known."""

    def __getitem__(self, part: Any) -> TopK:
        return TopK(self.ids[part], self.logs[part])


def between(student: Any, teacher: Any, *, kind: str, temperature: float = 1.0) -> Any:
    """The divergence at each position, in nats times the temperature squared: [positions].

    Args:
        student, teacher: logits, [positions, vocabulary].
        kind: `forward-kl`, `reverse-kl` or `jsd`.
    """
    import torch

    ours = torch.log_softmax(student.float() / temperature, -1)
    theirs = torch.log_softmax(teacher.float() / temperature, -1)
    return _between(ours, theirs, kind) * temperature**2


def between_top(student: Any, teacher: TopK, *, kind: str, temperature: float = 1.0) -> Any:
    """As `between`, over the teacher's tokens and the rest as one outcome; its log-probabilities are of
    `temperature`."""
    import torch

    known = torch.isfinite(teacher.logs)
    ours = torch.log_softmax(student.float() / temperature, -1).gather(-1, teacher.ids)
    # What is not known has probability zero on both sides: it stands with the rest.
    never = torch.full_like(ours, _NEVER)
    ours, theirs = torch.where(known, ours, never), torch.where(known, teacher.logs, never)
    return _between(_with_rest(ours), _with_rest(theirs), kind) * temperature**2


def mixed(
    hidden: Any,
    head: Callable[[Any], Any],
    parameters: list[Any],
    labels: Any,
    target: Callable[[slice, Any], Any],
    *,
    cross_entropy: float,
) -> tuple[Any, Any]:
    """(the loss to minimise, the divergence alone), both summed over positions.

    Args:
        hidden: the student's hidden states, [positions, width].
        head: from hidden states to logits.
        parameters: what the head trains (empty where it is frozen, as beside an adapter).
        labels: the token at each position.
        target: from the chunk's place and the student's logits there to the divergence at each of its positions; NaN
            where the teacher said nothing.
        cross_entropy: its share of the loss. Positions without a teacher learn by it alone.
    """
    import torch

    def chunk_loss(states, place):
        logits = head(states)
        apart = target(place, logits)
        silent = torch.isnan(apart)
        apart = torch.where(silent, torch.zeros_like(apart), apart)
        share = torch.where(silent, 1.0, cross_entropy)
        plain = torch.nn.functional.cross_entropy(logits.float(), labels[place], reduction="none")
        return ((1 - share) * apart + share * plain).sum(), apart.detach().sum()

    places = [slice(start, start + CHUNK) for start in range(0, len(hidden), CHUNK)]
    wanted = torch.is_grad_enabled() and (hidden.requires_grad or any(p.requires_grad for p in parameters))
    if not wanted:
        sums = [chunk_loss(hidden[place], place) for place in places]
        return sum(loss for loss, _ in sums), sum(apart for _, apart in sums)
    total, apart, *grads = _gradient(hidden.detach(), [p for p in parameters if p.requires_grad], chunk_loss, places)
    return _attached().apply(total, grads, hidden, *[p for p in parameters if p.requires_grad]), apart


def _between(ours: Any, theirs: Any, kind: str) -> Any:
    """From log-probabilities, [positions, outcomes]."""
    import torch

    if kind == "forward-kl":
        return (theirs.exp() * (theirs - ours)).sum(-1)
    if kind == "reverse-kl":
        return (ours.exp() * (ours - theirs)).sum(-1)
    middle = torch.logaddexp(ours, theirs) - torch.log(torch.tensor(2.0))
    return 0.5 * (theirs.exp() * (theirs - middle) + ours.exp() * (ours - middle)).sum(-1)


def _with_rest(logs: Any) -> Any:
    """Log-probabilities of some tokens, and of all others together."""
    import torch

    rest = torch.log1p(-logs.exp().sum(-1, keepdim=True).clamp(max=1 - 1e-7))
    return torch.cat([logs, rest], -1)


def _gradient(hidden: Any, parameters: list[Any], chunk_loss: Any, places: list[slice]) -> tuple[Any, ...]:
    """(loss, divergence, gradient with respect to `hidden`, and to each parameter)."""
    import torch

    total = apart = 0
    towards_hidden = torch.empty_like(hidden)
    towards = [torch.zeros_like(p) for p in parameters]
    for place in places:
        with torch.enable_grad():
            states = hidden[place].requires_grad_()
            loss, divergence = chunk_loss(states, place)
            first, *others = torch.autograd.grad(loss, [states, *parameters])
        towards_hidden[place] = first
        for kept, more in zip(towards, others, strict=True):
            kept += more
        total, apart = total + loss.detach(), apart + divergence
    return total, apart, towards_hidden, *towards


_made: list[Any] = []


def _attached() -> Any:
    """The autograd function that hands out gradients made before; made on first use, as this module is importable
    without torch."""
    if _made:
        return _made[0]
    import torch

    class Attached(torch.autograd.Function):
        @staticmethod
        def forward(ctx, total, grads, *tensors):
            ctx.save_for_backward(*grads)
            return total.clone()

        @staticmethod
        def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
            return None, None, *(grad * kept for kept in ctx.saved_tensors)

    _made.append(Attached)
    return Attached
