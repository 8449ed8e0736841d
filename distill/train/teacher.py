# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# transformers is only partly typed.
"""The local teacher of a distillation: loaded, frozen, and of the same vocabulary as the student.

Two models of one family often have one tokenizer and output heads of different widths (padded to other multiples).
What counts is the tokenizer: the same text must become the same ids. Head entries past the shorter one belong to no
token and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distill.errors import InputError
from distill.train import student
from distill.train.loss import agrees, inner, logits_of, trained_states
from distill.train.student import Place
from distill.train.template import Encoded

__all__ = ["LocalTeacher", "check_vocabulary", "load_teacher"]


class LocalTeacher:
    """A frozen causal language model that says what it would have said next."""

    def __init__(self, model: Any, width: int) -> None:
        self.model = model
        self.width = width
        """Tokens that student and teacher both have."""
        self.share = False
        """Compute what the rows of a batch have in common once."""

    def states(self, inputs: dict[str, Any]) -> Any:
        """Hidden states at the trained positions, [trained tokens, width of the teacher]."""
        import torch

        with torch.no_grad():
            return trained_states(self.model, inputs, share=self.share)[0]

    def logits(self, states: Any) -> Any:
        """Logits over the common tokens."""
        import torch

        with torch.no_grad():
            return logits_of(inner(self.model), states)[..., : self.width]

    def check(self, inputs: dict[str, Any], *, tolerance: float) -> None:
        """See on a batch that its own logits are those of its head on its hidden states.

        Raises:
            InputError: the model computes its logits in a way that is not known here.
        """
        counts, self.share = agrees(self.model, inputs, tolerance=tolerance)
        if not counts:
            raise InputError(
                "the teacher's logits are not its output head's alone: this model cannot teach by its logits",
                field="train.distillation.teacher",
            )


def load_teacher(place: Place, tokenizer: Any, head: int, examples: Sequence[Encoded], *, dtype: str) -> LocalTeacher:
    """The teacher in `place`, frozen.

    Args:
        tokenizer: the student's.
        head: tokens of the student's output head.
        examples: what it will be asked about; the first ones check its tokenizer.
        dtype: of its weights.

    Raises:
        InputError: no model, or one of another vocabulary.
    """
    check_vocabulary(tokenizer, student.load_tokenizer(place.folder), examples, name=place.name)
    model = student.load_model(place.folder, dtype=dtype).eval()
    model.requires_grad_(False)
    width = min(head, int(model.get_output_embeddings().weight.shape[0]))
    if width < len(tokenizer):
        raise InputError(f"the output head of {place.name} or of the student lacks tokens of the tokenizer")
    return LocalTeacher(model, width)


def check_vocabulary(ours: Any, theirs: Any, examples: Sequence[Encoded], *, name: str) -> None:
    """That both tokenizers are one.

    Raises:
        InputError: they are not; says where they part.
    """
    mine, yours = ours.get_vocab(), theirs.get_vocab()
    hint = "a teacher's logits can only be compared over the same vocabulary; learn from its answers instead (sft)"
    if mine != yours:
        apart = sorted(token for token in mine.keys() | yours.keys() if mine.get(token) != yours.get(token))
        token = apart[0]
        raise InputError(
            f"{name} has another vocabulary than the student: {len(apart)} of {len(mine)} tokens differ, {token!r} is "
            f"{mine.get(token, 'not there')} and {yours.get(token, 'not there')}",
            field="train.distillation.teacher",
            hint=hint,
        )
    for example in examples[:16]:
        text = ours.decode(example.input_ids, clean_up_tokenization_spaces=False)
        one, other = (list(t(text, add_special_tokens=False)["input_ids"]) for t in (ours, theirs))
        if one != other:
            raise InputError(
                f"{name} has the student's tokens but splits {example.where or 'a row'} into others",
                field="train.distillation.teacher",
                hint=hint,
            )
