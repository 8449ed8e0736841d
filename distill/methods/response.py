"""Response distillation: a user turn from the slot, an assistant turn from the teacher.

One step, two steps (the teacher writes the user turn first), or a label known by construction. Instruction and
answer pairs written by a model go back to Self-Instruct (Wang et al. 2022, arXiv:2212.10560).

Unit n of a slot is sample `n % samples` of user turn `n // samples`; its row, or its failure, is `<slot>-<n>`.
"""

from __future__ import annotations

from collections.abc import Mapping

from distill.dataset import Failure, Row
from distill.errors import FailureClass, InputError
from distill.io import digest
from distill.methods.asking import Lost, Read, Voice, draw, draw_read, together, turns
from distill.methods.base import Ask, Prompt, Prompts
from distill.methods.bill import Bill
from distill.methods.questions import Questions, Written
from distill.methods.schemas import load_structure
from distill.methods.structured import Parsed, Structure, Unstructured
from distill.planning import Slot
from distill.recipe import Recipe, ResponseConfig
from distill.teachers import Answer, Message

__all__ = ["Response"]

_NOTHING = Bill()


class Response:
    """See `ResponseConfig` for what it does; built once a run, called once a slot."""

    def __init__(self, recipe: Recipe, config: ResponseConfig, prompts: Prompts) -> None:
        names = (config.system, config.input, config.prompt, config.label)
        self._system, input_prompt, self._prompt, self._label = (prompts.get(n) if n else None for n in names)
        used = (self._system, input_prompt, self._prompt, self._label)
        self._digest = digest([prompt.digest for prompt in used if prompt is not None])
        self._voice = Voice.of(recipe, config.teacher, config)
        self._questions: Questions | None = None
        if input_prompt is not None:
            writer = config.input_teacher or config.teacher
            self._questions = Questions(
                input_prompt,
                Voice.of(recipe, writer, config),
                items=config.items,
                bare_list=all(recipe.teachers[name].provider == "local" for name in recipe.members(writer)),
            )
        self._items = config.items
        self._samples = 1 if self._label is not None else config.samples
        self._structure: Structure | None = None
        if config.schema_file is not None:
            self._structure = load_structure(config.schema_file, recipe.folder)
        elif self._prompt is not None and self._prompt.schema is not None:
            self._structure = Structure(self._prompt.schema, name=config.prompt or "schema")
        units = config.items * self._samples
        self.rows_per_slot: float = units
        self.requests_per_slot: float = (self._questions is not None) + (0 if self._label is not None else units)

    async def __call__(self, slot: Slot, ask: Ask) -> list[Row | Failure]:
        if self._questions is None:
            return await self._answers(slot, ask, [None], [_NOTHING] * self._samples)
        written = await self._questions.write(slot, ask)
        if isinstance(written, Lost):
            return [written.fate(slot, 0)]
        missing = [
            Failure(f"{slot.id}-{n}", slot, FailureClass.UNPARSED, _too_few(len(written.texts), self._items))
            for n in range(len(written.texts) * self._samples, self._items * self._samples)
        ]
        shares = written.bill.split(len(written.texts) * self._samples)
        if self._label is not None:
            return [*self._labelled(self._label, slot, written, shares), *missing]
        return [*await self._answers(slot, ask, written.texts, shares), *missing]

    # -- the assistant turn ----------------------------------------------------------------------------------------

    def _labelled(self, prompt: Prompt, slot: Slot, written: Written, shares: list[Bill]) -> list[Row]:
        rows: list[Row] = []
        for n, text in enumerate(written.texts):
            label = prompt.render(slot, input=text).strip()
            if self._structure is not None:
                try:
                    self._structure.parse(label)
                except Unstructured as problem:
                    raise InputError(f"method.label: {problem}", hint=f"rendered for slot {slot.id}: {label}") from None
            rows.append(self._row(slot, n, text, label, written.answer, shares[n], {}))
        return rows

    async def _answers(
        self, slot: Slot, ask: Ask, texts: list[str] | list[None], shares: list[Bill]
    ) -> list[Row | Failure]:
        # Every unit has its own sample number: equal questions of one slot are still independent draws.
        if len(shares) == 1:
            return [await self._unit(slot, ask, 0, texts[0], shares[0])]
        return await together(
            [self._unit(slot, ask, n, texts[n // self._samples], share) for n, share in enumerate(shares)]
        )

    async def _unit(self, slot: Slot, ask: Ask, n: int, written: str | None, share: Bill) -> Row | Failure:
        known = {} if written is None else {"input": written}
        question, private = written or "", None
        if self._prompt is not None:
            question = self._prompt.render(slot, **known)
            private = self._prompt.render_system(slot, **known)
        system = None if self._system is None else self._system.render(slot)
        # The row's system turn is the student's; what the prompt file says in its own `system` is the teacher's alone.
        messages = turns(question, system, private)
        scores: Mapping[str, float] = {}
        if self._structure is None:
            spoken = await draw(ask, self._voice, messages, sample=n)
            if isinstance(spoken, Lost):
                return spoken.fate(slot, n, share)
            text = spoken.answer.text.strip()
        else:
            spoken = await draw_read(
                ask, self._voice, messages, self._structure.parse, sample=n, schema=self._structure.schema
            )
            if isinstance(spoken, Lost):
                return spoken.fate(slot, n, share)
            text, scores = spoken.value.text, _marks(spoken)
        bill = Bill.of(spoken.paid) if share is _NOTHING else share + Bill.of(spoken.paid)
        return self._row(slot, n, written or question, text, spoken.answer, bill, scores, system)

    def _row(
        self,
        slot: Slot,
        n: int,
        user: str,
        assistant: str,
        answer: Answer,
        bill: Bill,
        scores: Mapping[str, float],
        system: str | None = None,
    ) -> Row:
        if self._label is not None and self._system is not None:
            system = self._system.render(slot)
        return Row(
            id=f"{slot.id}-{n}",
            slot=slot,
            messages=(*turns(user, system), Message("assistant", assistant)),
            logprobs=answer.logprobs if self._label is None and assistant == answer.text.strip() else None,
            # What the teacher thought before it answered; a label was not thought of by anybody.
            reasoning=None if self._label is not None else answer.reasoning or None,
            teacher=answer.teacher or self._voice.teacher,
            keys=bill.keys,
            cost=bill.cost,
            model=answer.model,
            finish=answer.finish,
            scores=scores,
            prompt_digest=self._digest,
            usage_input=bill.input,
            usage_output=bill.output,
        )


def _marks(read: Read[Parsed]) -> dict[str, float]:
    """How far the row's JSON is from what the teacher said first."""
    marks: dict[str, float] = {}
    if read.value.how != "strict":
        marks[read.value.how] = 1.0
    if read.corrected:
        marks["corrected"] = 1.0
    return marks


def _too_few(there: int, wanted: int) -> str:
    return f"the teacher wrote {there} of {wanted} user turns"
