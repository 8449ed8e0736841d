"""The distance to a teacher, and its gradient, against the plain formula on whole matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distill.train import divergence
from distill.train.divergence import TopK, between, between_top, mixed

POSITIONS, WIDTH, TOKENS = 11, 8, 37


def logits(seed: int) -> Any:
    return 3 * torch.randn(POSITIONS, TOKENS, generator=torch.Generator().manual_seed(seed))


def plain(student: Any, teacher: Any, kind: str, temperature: float) -> Any:
    """From the definitions, on probabilities in double precision."""
    q, p = (torch.softmax(x.double() / temperature, -1) for x in (student, teacher))
    if kind == "forward-kl":
        found = p * (p / q).log()
    elif kind == "reverse-kl":
        found = q * (q / p).log()
    else:
        m = (p + q) / 2
        found = 0.5 * p * (p / m).log() + 0.5 * q * (q / m).log()
    return found.sum(-1) * temperature**2


KINDS = pytest.mark.parametrize("kind", ["forward-kl", "reverse-kl", "jsd"])


@KINDS
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_it_is_the_divergence_of_the_definition(kind: str, temperature: float) -> None:
    found = between(logits(0), logits(1), kind=kind, temperature=temperature)
    torch.testing.assert_close(found.double(), plain(logits(0), logits(1), kind, temperature), rtol=1e-4, atol=1e-5)


@KINDS
def test_a_student_that_is_its_teacher_has_none(kind: str) -> None:
    assert float(between(logits(0), logits(0), kind=kind).abs().max()) < 1e-6
    best = torch.log_softmax(logits(0), -1).topk(5)
    assert float(between_top(logits(0), TopK(best.indices, best.values), kind=kind).abs().max()) < 1e-5


@KINDS
def test_the_best_tokens_alone_tell_less_than_all_and_all_of_them_everything(kind: str) -> None:
    student, teacher = logits(0) / 3, logits(1) / 3
    logs, whole = torch.log_softmax(teacher, -1), between(student, teacher, kind=kind)
    for count in (1, 5, TOKENS - 1):
        best = logs.topk(count)
        part = between_top(student, TopK(best.indices, best.values), kind=kind)
        assert bool((part > 0).all())
        assert bool((part <= whole + 1e-4).all())
    # One token is missing: it is "another one", so nothing is lost.
    torch.testing.assert_close(part, whole, rtol=1e-2, atol=1e-3)


def test_places_without_a_token_do_not_count() -> None:
    best = torch.log_softmax(logits(1), -1).topk(3)
    narrow = between_top(logits(0), TopK(best.indices, best.values), kind="forward-kl")
    nothing = torch.full((POSITIONS, 2), float("-inf"))
    wider = TopK(
        torch.cat([best.indices, torch.zeros(POSITIONS, 2, dtype=torch.long)], 1), torch.cat([best.values, nothing], 1)
    )
    torch.testing.assert_close(between_top(logits(0), wider, kind="forward-kl"), narrow)


@KINDS
def test_value_and_gradient_of_the_mixed_loss_are_those_of_whole_matrices(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(divergence, "CHUNK", 4)
    torch.manual_seed(2)
    hidden = torch.randn(POSITIONS, WIDTH, requires_grad=True)
    weight = torch.randn(TOKENS, WIDTH, requires_grad=True)
    labels = torch.randint(0, TOKENS, (POSITIONS,))
    teacher = logits(3)
    silent = torch.zeros(POSITIONS, dtype=torch.bool)
    silent[5] = True  # a position the teacher said nothing about
    rows: list[int] = []

    def head(states: Any) -> Any:
        rows.append(len(states))
        return states @ weight.t()

    def target(place: slice, made: Any) -> Any:
        return between(made, teacher[place], kind=kind, temperature=1.5).masked_fill(silent[place], float("nan"))

    loss, apart = mixed(hidden, head, [weight], labels, target, cross_entropy=0.3)
    (loss / 7).backward()
    found = hidden.grad.clone(), weight.grad.clone()
    assert max(rows) == 4  # no more positions than a chunk ever stand beside the vocabulary

    hidden.grad = weight.grad = None
    whole = hidden @ weight.t()
    each = plain(whole, teacher, kind, 1.5).masked_fill(silent, 0.0)
    own = torch.nn.functional.cross_entropy(whole, labels, reduction="none")
    wanted = torch.where(silent, own, 0.7 * each + 0.3 * own).sum()
    (wanted / 7).backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert apart.item() == pytest.approx(each.sum().item(), rel=1e-4)
    for ours, theirs in zip(found, (hidden.grad, weight.grad), strict=True):
        torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        assert mixed(hidden, head, [weight], labels, target, cross_entropy=0.3)[0].item() == pytest.approx(loss.item())
