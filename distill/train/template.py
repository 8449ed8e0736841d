# pyright: reportUnknownMemberType=false
# transformers' tokenizers are only partly typed.
"""From a conversation to token ids and labels, with any chat template.

Only the assistant's answers and the token that ends each of them are trained. No list of known templates is kept,
and no marker inside the template is needed: the conversation is rendered up to each answer with the generation
prompt (which is exactly what the student will see later), and again with the answer. What the second has more is
the answer. Where a template renders an early answer differently once the conversation goes on (some drop the
reasoning of earlier turns), the conversation becomes one example per answer.

Where the template writes no token of its own behind an answer, EOS takes its place, right where the answer ends.

Every example is checked: the trained tokens decode to the answers, each with the token that ends its turn and nothing
of the template's around them. Otherwise the student would learn the wrong text, or never to stop, and the loss would
look healthy all the same. An empty block of thoughts is the exception: some templates put one before an answer that has
none, and not into the prompt, so the student has to write it.
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

_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)

_OWN = "edit chat_template.jinja in the model's folder, or use another model"


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
        # Not every end of a turn is marked as special; runs of spaces that are tokens of their own end nothing.
        self._ends = set(tokenizer.all_special_ids) | {
            number for number, token in tokenizer.added_tokens_decoder.items() if token.special or token.content.strip()
        }

    def __call__(self, row: Conversation) -> list[Encoded]:
        """The examples of one conversation: one, or one per answer where the template needs it.

        Raises:
            InputError: the template refuses the conversation, or the answers cannot be told from the prompt.
        """
        answers = [i for i, turn in enumerate(row.turns) if turn["role"] == "assistant"]
        whole = self._whole(row, answers)
        return [self._last(row, row.turns[: i + 1]) for i in answers] if whole is None else [whole]

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

    def _whole(self, row: Conversation, answers: Sequence[int]) -> Encoded | None:
        """All answers in one example; None where one cannot be told apart."""
        text = self._render(row.turns, generate=False, where=row.where)
        ids = self._ids(text)
        labels: list[int] = []
        for i in answers:
            before = self._render(row.turns[:i], generate=True, where=row.where)
            through = text if i == len(row.turns) - 1 else self._render(row.turns[: i + 1], generate=False)
            if not (text.startswith(through) and through.startswith(before)):
                return None
            head, upto = self._ids(before), ids if through == text else self._ids(through)
            if ids[: len(upto)] != upto or upto[: len(head)] != head:
                return None
            trained = self._answer(ids[len(head) : len(upto)], row.turns[i]["content"])
            if trained is None:
                return None
            labels += [IGNORE] * (len(head) - len(labels)) + trained
        return self._example(row, ids, labels + [IGNORE] * (len(ids) - len(labels)))

    def _last(self, row: Conversation, turns: Sequence[Turn]) -> Encoded:
        """The last answer alone, its prompt as it stands when the student is asked."""
        before = self._render(turns[:-1], generate=True, where=row.where)
        text = self._render(turns, generate=False, where=row.where)
        if not text.startswith(before):
            raise InputError(
                f"{row.where}: the chat template renders the prompt differently when the answer follows",
                hint=f"the student would be trained on a prompt it never sees; {_OWN}",
            )
        answer = turns[-1]["content"]
        head, tail = self._ids(before), self._after(before, text)
        labels = self._answer(tail, answer)
        if labels is None:
            # The template lets the answer run out. Without an end the student would never learn to stop.
            if self.tokenizer.eos_token_id is None:
                raise InputError(f"{row.where}: the answer has no end: no end-of-turn token, and no EOS token")
            end = _end_of(answer, text[len(before) :])
            tail = self._after(before, text if end is None else text[: len(before) + end])
            said = self._text(tail)
            if _end_of(answer, said) is None:
                raise InputError(
                    f"{row.where}: the trained tokens are not the answer: {said[:80]!r} for {answer[:80]!r}",
                    hint=f"the chat template changes the answer, or its generation prompt ends too early; {_OWN}",
                )
            tail.append(self.tokenizer.eos_token_id)
            labels = list(tail)
        return self._example(row, head + tail, [IGNORE] * len(head) + labels)

    def _after(self, before: str, text: str) -> list[int]:
        """The ids of `text` behind those of `before`, with which it begins.

        Tokens may merge across the border. The student is shown the prompt's own tokens, so these are kept.
        """
        head, whole = self._ids(before), self._ids(text)
        return whole[len(head) :] if whole[: len(head)] == head else self._ids(text[len(before) :])

    def _answer(self, ids: list[int], answer: str) -> list[int] | None:
        """Labels of one rendered answer: what follows its end-of-turn token is the template's, not the student's.

        None where no such token follows the answer.
        """
        for place, token in enumerate(ids):
            if token not in self._ends:
                continue
            said = self._text(ids[:place])
            end = _end_of(answer, said)
            if end is not None:
                return None if said[end:].strip() else ids[: place + 1] + [IGNORE] * (len(ids) - place - 1)
        return None

    def _example(self, row: Conversation, ids: list[int], labels: list[int]) -> Encoded:
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise InputError(f"{row.where}: the sequence starts with the BOS token twice")
        return Encoded(ids, labels, row.where)

    def _render(self, turns: Sequence[Turn], *, generate: bool, where: str = "") -> str:
        try:
            return str(self.tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=generate))
        except Exception as error:  # a template raises what it likes: jinja's errors, or its own by name
            roles = " ".join(turn["role"] for turn in turns)
            said = f"{where}: the chat template refuses the turns ({roles}): {error}".lstrip(": ")
            system = "it may have no system turn: put that text into the first user turn"
            raise InputError(said, hint=system if "system" in roles else None) from None

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


def _end_of(answer: str, text: str) -> int | None:
    """Where `answer`, with which `text` begins, ends in it; None if it begins with something else.

    Spaces do not count, nor do thoughts: a template may trim the answer, and drop its thoughts or set them otherwise.
    """
    wanted = _bare(_THINKING.sub("", answer))
    if wanted:
        text = _THINKING.sub(lambda thought: " " * len(thought.group()), text)
    else:
        wanted = _bare(answer)
    places = [place for place, letter in enumerate(text) if not letter.isspace()][: len(wanted)]
    return places[-1] + 1 if "".join(text[place] for place in places) == wanted else None


def _bare(text: str) -> str:
    return "".join(text.split())
