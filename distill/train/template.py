# pyright: reportUnknownMemberType=false
# transformers' tokenizers are only partly typed.
"""From a conversation to token ids and labels, with any chat template.

Only the assistant's answers and the token that ends each of them are trained. No list of known templates is kept,
and no marker inside the template is needed: the conversation is rendered up to each answer with the generation
prompt (which is exactly what the student will see later), and again with the answer. What the second has more is
the answer. Where a template renders an early answer differently once the conversation goes on (some drop the
reasoning of earlier turns), the conversation becomes one example per answer.

Every example is checked: the trained tokens decode to the answer, and the last of them ends the turn. Otherwise the
student would learn the wrong text, or never to stop, and the loss would look healthy all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from distill.errors import InputError
from distill.train.data import Conversation, Turn

__all__ = ["IGNORE", "PLAIN", "Encoded", "Encoder", "stop_tokens", "use_template"]

IGNORE = -100
"""The label of a token that is not trained."""

PLAIN = (
    "{{ bos_token if bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}{{ '\\n' }}"
    "{% else %}### {{ m['role'] | capitalize }}:\n{{ m['content'] }}\n\n"
    "{% if loop.last or loop.nextitem['role'] == 'assistant' %}{% if add_generation_prompt or not loop.last %}"
    "### Assistant:\n{% endif %}{% endif %}{% endif %}{% endfor %}"
)
"""For models that come without a chat template."""

_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One training example."""

    input_ids: list[int]
    labels: list[int]
    where: str = ""

    @property
    def trained(self) -> int:
        """Tokens that are trained."""
        return sum(label != IGNORE for label in self.labels)


class Encoder:
    """Turns conversations into examples with the tokenizer's chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids) | {
            number for number, token in tokenizer.added_tokens_decoder.items() if token.special
        }

    def __call__(self, row: Conversation) -> list[Encoded]:
        """The examples of one conversation: one, or one per answer where the template needs it.

        Raises:
            InputError: the template refuses the conversation, or the answers cannot be told from the prompt.
        """
        whole = self._whole(row)
        if whole is not None:
            return [whole]
        answers = [i for i, turn in enumerate(row.turns) if turn["role"] == "assistant"]
        return [self._last(row, row.turns[: i + 1]) for i in answers]

    def last(self, row: Conversation) -> tuple[list[int], list[int]]:
        """(the prompt's ids, the last answer's with the token that ends it). Earlier answers belong to the prompt.

        Raises:
            InputError: as for a whole conversation.
        """
        example = self._last(row, row.turns)
        start = next(i for i, label in enumerate(example.labels) if label != IGNORE)
        end = max(i for i, label in enumerate(example.labels) if label != IGNORE) + 1
        return example.input_ids[:start], example.input_ids[start:end]

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """The ids the student is shown when it should answer `turns`: the one prompt of training and evaluation."""
        return self._ids(self._render(turns, generate=True))

    def prompt_text(self, turns: Sequence[Turn]) -> str:
        """The same as text."""
        return self._render(turns, generate=True)

    def show(self, example: Encoded) -> str:
        """The example as text, each trained stretch between `⟦` and `⟧`."""
        parts: list[str] = []
        inside = False
        run: list[int] = []
        for token, label in zip([*example.input_ids, 0], [*example.labels, IGNORE], strict=True):
            if (label != IGNORE) != inside:
                parts.append(self._text(run) + ("⟧" if inside else "⟦"))
                inside, run = not inside, []
            run.append(token)
        return "".join([*parts, self._text(run[:-1])])

    def _whole(self, row: Conversation) -> Encoded | None:
        """All answers in one example; None where an early answer cannot be told apart."""
        text = self._render(row.turns, generate=False, where=row.where)
        ids = self._ids(text)
        labels: list[int] = []
        answers = [i for i, turn in enumerate(row.turns) if turn["role"] == "assistant"]
        for i in answers:
            before = self._render(row.turns[:i], generate=True, where=row.where)
            through = text if i == len(row.turns) - 1 else self._render(row.turns[: i + 1], generate=False)
            if not (text.startswith(through) and through.startswith(before)):
                return None if len(answers) > 1 else self._last(row, row.turns)
            head, upto = self._ids(before), ids if through == text else self._ids(through)
            if ids[: len(upto)] != upto or upto[: len(head)] != head:
                return None if len(answers) > 1 else self._last(row, row.turns)
            labels += [IGNORE] * (len(head) - len(labels))
            labels += self._answer(ids[len(head) : len(upto)])
        return self._checked(row, ids, labels, [row.turns[i]["content"] for i in answers])

    def _last(self, row: Conversation, turns: Sequence[Turn]) -> Encoded:
        """The last answer alone, its prompt as it stands when the student is asked."""
        before = self._render(turns[:-1], generate=True, where=row.where)
        text = self._render(turns, generate=False, where=row.where)
        if not text.startswith(before):
            raise InputError(
                f"{row.where}: the chat template renders the prompt differently when the answer follows",
                hint="the student would be trained on a prompt it never sees; use another template",
            )
        # Tokens may merge across the border. The student is shown the prompt's own tokens, so these are kept.
        head = self._ids(before)
        tail = self._ids(text[len(before) :])
        labels = [IGNORE] * len(head) + self._answer(tail)
        return self._checked(row, head + tail, labels, [turns[-1]["content"]])

    def _answer(self, ids: list[int]) -> list[int]:
        """Labels of one rendered answer: what follows its end-of-turn token is the template's, not the student's."""
        end = next((i for i in range(len(ids) - 1, -1, -1) if ids[i] in self._special), None)
        if end is None or self._text(ids[end + 1 :]).strip():
            return list(ids)
        return ids[: end + 1] + [IGNORE] * (len(ids) - end - 1)

    def _checked(self, row: Conversation, ids: list[int], labels: list[int], answers: list[str]) -> Encoded:
        labels += [IGNORE] * (len(ids) - len(labels))
        last = max((i for i, label in enumerate(labels) if label != IGNORE), default=None)
        if last is None:
            raise InputError(f"{row.where}: no token of the answer would be trained")
        if labels[last] not in self._special:
            # The template lets the answer run out. Without an end the student would never learn to stop.
            if self.tokenizer.eos_token_id is None:
                raise InputError(f"{row.where}: the answer has no end: no end-of-turn token, and no EOS token")
            ids, labels = ids[: last + 1], labels[: last + 1]
            ids.append(self.tokenizer.eos_token_id)
            labels.append(self.tokenizer.eos_token_id)
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise InputError(f"{row.where}: the sequence starts with the BOS token twice")
        trained = _squash(self._text([label for label in labels if label != IGNORE]))
        at = 0
        for answer in answers:
            # A template may drop or move reasoning, and trim; the answer itself has to be there, in order.
            wanted = _squash(_THINKING.sub("", answer)) or _squash(answer)
            found = trained.find(wanted, at)
            if found < 0:
                raise InputError(
                    f"{row.where}: the trained tokens are not the answer: {trained[at:][:80]!r} for {wanted[:80]!r}",
                    hint="the chat template changes the answer; use another template",
                )
            at = found + len(wanted)
        return Encoded(ids, labels, row.where)

    def _render(self, turns: Sequence[Turn], *, generate: bool, where: str = "") -> str:
        try:
            return str(self.tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=generate))
        except Exception as error:  # a template raises what it likes: jinja's errors, or its own by name
            roles = " ".join(turn["role"] for turn in turns)
            raise InputError(f"{where}: the chat template refuses the turns ({roles}): {error}".lstrip(": ")) from None

    def _ids(self, text: str) -> list[int]:
        # The template has written BOS where the model wants it; the tokenizer must not add its own.
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def use_template(tokenizer: Any, folder: Path | None = None) -> str:
    """Give the tokenizer the template in `folder` (an adapter's), else its own, else `PLAIN`; returns it."""
    if folder is not None:
        file = folder / "chat_template.jinja"
        if file.is_file():
            tokenizer.chat_template = file.read_text("utf-8")
            return str(tokenizer.chat_template)
    template: Any = tokenizer.chat_template
    if isinstance(template, dict):  # several by name
        template = cast("dict[str, str]", template).get("default")
    tokenizer.chat_template = template or PLAIN
    return str(tokenizer.chat_template)


def stop_tokens(tokenizer: Any, extra: Iterable[int] = ()) -> tuple[int, ...]:
    """Ids that end an answer: EOS, what the model's own settings name, and the template's end-of-turn token."""
    encoder = Encoder(tokenizer)
    found = {token for token in (tokenizer.eos_token_id, *extra) if token is not None}
    turns: tuple[Turn, ...] = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    example = encoder(Conversation(turns, "probe"))[0]
    found.add(next(label for label in reversed(example.labels) if label != IGNORE))
    return tuple(sorted(found))


def _squash(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
