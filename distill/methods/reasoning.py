"""Reasoning distillation: chains of thought, verified, the best kept.

Rejection sampling over verified chains follows STaR (Zelikman et al. 2022, arXiv:2203.14465) and RFT (Yuan et al.
2023, arXiv:2308.01825); `majority` is self-consistency (Wang et al. 2022, arXiv:2203.11171).

A sample that holds no answer at all (an error, a cut, a refusal) is a failure of its own, `<slot>-<sample>`. With
`keep: all` so is every chain whose answer is wrong; otherwise wrong chains are what the kept one was chosen from:
they are counted in its `pass_rate` and paid on its bill.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from distill.dataset import Failure, Row
from distill.errors import FailureClass
from distill.io import digest
from distill.methods.answers import Extracted, answer_key, extractor
from distill.methods.asking import Lost, Spoken, Voice, draw, together, turns
from distill.methods.base import Ask, Prompts
from distill.methods.bill import Bill
from distill.methods.questions import Questions
from distill.methods.verify import Verifier
from distill.planning import Slot
from distill.recipe import ReasoningConfig, Recipe
from distill.teachers import Message

__all__ = ["Reasoning"]


@dataclass(frozen=True, slots=True)
class _Chain:
    """One sample that came back with text."""

    sample: int
    spoken: Spoken
    found: Extracted | None
    right: bool

    @property
    def reasoning(self) -> str | None:
        own = (self.spoken.answer.reasoning or "").strip()
        return own or (self.found.chain if self.found else None)

    @property
    def length(self) -> int:
        """Characters the teacher wrote."""
        return len(self.spoken.answer.reasoning or "") + len(self.spoken.answer.text)


@dataclass(frozen=True, slots=True)
class _Question:
    slot: Slot
    user: str
    system: str | None
    messages: tuple[Message, ...]
    known: str | None
    bill: Bill


class Reasoning:
    """See `ReasoningConfig` for what it does; built once a run, called once a slot."""

    def __init__(self, recipe: Recipe, config: ReasoningConfig, prompts: Prompts) -> None:
        self._config = config
        names = (config.system, config.input, config.prompt)
        self._system, input_prompt, _ = (prompts.get(name) if name else None for name in names)
        self._prompt = prompts.get(config.prompt)
        used = (self._system, input_prompt, self._prompt)
        self._digest = digest([prompt.digest for prompt in used if prompt is not None])
        self._voice = Voice.of(recipe, config.teacher, config)
        self._questions = Questions(input_prompt, self._voice) if input_prompt is not None else None
        self._extract = extractor(config.answer, marker=config.marker, field=config.field)
        self._verify = Verifier(config.check, recipe.folder) if config.check is not None else None
        first = config.keep == "first"
        self.rows_per_slot: float = config.samples if config.keep == "all" else 1
        self.requests_per_slot: float = (1 if first else config.samples) + (self._questions is not None)

    async def __call__(self, slot: Slot, ask: Ask) -> list[Row | Failure]:
        known = self._verify.known(slot) if self._verify is not None else None
        question = await self._question(slot, ask, known)
        if isinstance(question, Lost):
            return [question.fate(slot, 0)]
        drawn: list[_Chain | Lost] = []
        if self._config.keep == "first":
            for sample in range(self._config.samples):
                drawn.append(await self._draw(ask, question, sample))
                if isinstance(drawn[-1], _Chain) and drawn[-1].right:
                    break
        else:
            drawn = await together([self._draw(ask, question, n) for n in range(self._config.samples)])
        return self._settle(question, drawn)

    async def _question(self, slot: Slot, ask: Ask, known: str | None) -> _Question | Lost:
        extra: dict[str, str] = {}
        bill = Bill()
        if self._questions is not None:
            written = await self._questions.write(slot, ask)
            if isinstance(written, Lost):
                return written
            extra, bill = {"input": written.texts[0]}, written.bill
        user = self._prompt.render(slot, **extra)
        system = self._system.render(slot) if self._system is not None else None
        messages = turns(user, system, self._prompt.render_system(slot, **extra))
        return _Question(slot, extra.get("input", user), system, messages, known, bill)

    async def _draw(self, ask: Ask, question: _Question, sample: int) -> _Chain | Lost:
        spoken = await draw(ask, self._voice, question.messages, sample=sample, schema=self._prompt.schema)
        if isinstance(spoken, Lost):
            return spoken
        found = self._extract(spoken.answer.text)
        right = found is not None and (self._verify is None or self._verify(found.answer, question.known))
        return _Chain(sample, spoken, found, right)

    # -- choosing --------------------------------------------------------------------------------------------------

    def _settle(self, question: _Question, drawn: list[_Chain | Lost]) -> list[Row | Failure]:
        """Every answer is on exactly one bill; the question's own is shared by the rows, or falls to the first."""
        slot = question.slot
        chains = [chain for chain in drawn if isinstance(chain, _Chain)]
        agreed = Counter(answer_key(chain.found.answer) for chain in chains if chain.found)
        kept = self._choose(chains, agreed, len(drawn))
        lost: dict[int, Lost] = {n: one for n, one in enumerate(drawn) if isinstance(one, Lost)}
        others: list[_Chain] = []
        if isinstance(kept, Lost):
            # The slot's own failure: it stands under the first sample that came back, with all that were chosen from.
            if chains:
                lost[chains[0].sample] = kept
                others = chains[1:]
            kept = []
        elif self._config.keep == "all":
            lost |= {chain.sample: self._wrong(chain, question) for chain in chains if not chain.right}
        else:
            others = [chain for chain in chains if chain is not kept[0]]
        units = sorted([chain.sample for chain in kept] or lost)
        shares = dict(zip(units, question.bill.split(len(units)), strict=True))
        rest = Bill.of([answer for chain in others for answer in chain.spoken.paid])
        shares[units[0]] = shares[units[0]] + rest
        outcomes: list[tuple[int, Row | Failure]] = [(n, one.fate(slot, n, shares.get(n))) for n, one in lost.items()]
        right = sum(chain.right for chain in chains)
        for chain in kept:
            same = agreed[answer_key(chain.found.answer)] if chain.found else 0
            scores = {"agreement": same / len(drawn), "pass_rate": right / len(drawn), "samples": float(len(drawn))}
            outcomes.append((chain.sample, self._row(question, chain, shares[chain.sample], scores)))
        return [outcome for _, outcome in sorted(outcomes, key=lambda pair: pair[0])]

    def _choose(self, chains: list[_Chain], agreed: Counter[str], drawn: int) -> list[_Chain] | Lost:
        right = [chain for chain in chains if chain.right]
        keep = self._config.keep
        if not right:
            return self._none_right(chains)
        if keep == "all":
            return right
        if keep == "first":
            return right[:1]
        if keep == "majority":
            votes = Counter(answer_key(chain.found.answer) for chain in right if chain.found)
            (winner, count), *more = votes.most_common(2)
            if more and more[0][1] == count:
                return self._loss(chains, FailureClass.TIE, f"two answers have {count} of {drawn} samples each")
            share = agreed[winner] / drawn
            if share < self._config.min_agreement:
                message = f"only {agreed[winner]} of {drawn} samples agree; {self._config.min_agreement:g} is needed"
                return self._loss(chains, FailureClass.UNVERIFIED, message)
            right = [chain for chain in right if chain.found and answer_key(chain.found.answer) == winner]
        return [min(right, key=lambda chain: (chain.length, chain.sample))]

    def _none_right(self, chains: list[_Chain]) -> Lost:
        answers = sorted({chain.found.answer[:60] for chain in chains if chain.found})
        if not answers:
            return self._loss(chains, FailureClass.UNPARSED, self._missing())
        shown = ", ".join(answers[:3]) + (", …" if len(answers) > 3 else "")
        return self._loss(chains, FailureClass.UNVERIFIED, f"none of {len(chains)} samples passed: {shown}")

    def _wrong(self, chain: _Chain, question: _Question) -> Lost:
        if chain.found is None:
            return self._loss([chain], FailureClass.UNPARSED, self._missing())
        against = f", not {question.known[:60]}" if question.known is not None else ""
        return self._loss([chain], FailureClass.UNVERIFIED, f"the answer is {chain.found.answer[:60]}{against}")

    def _loss(self, chains: list[_Chain], failure: FailureClass, message: str) -> Lost:
        if not chains:
            return Lost(failure, message, teacher=self._voice.teacher)
        first = chains[0].spoken
        return Lost(failure, message, first.answer.text, first.paid, (), self._voice.teacher)

    def _missing(self) -> str:
        rule = self._config.answer
        return f"no final answer: rule {rule}" + (f" {self._config.marker!r}" if rule == "after" else "")

    def _row(self, question: _Question, chain: _Chain, share: Bill, scores: dict[str, float]) -> Row:
        answer = chain.spoken.answer
        bill = share + Bill.of(chain.spoken.paid)
        return Row(
            id=f"{question.slot.id}-{chain.sample}",
            slot=question.slot,
            messages=(*turns(question.user, question.system), Message("assistant", answer.text.strip())),
            teacher=answer.teacher or self._voice.teacher,
            keys=bill.keys,
            cost=bill.cost,
            model=answer.model,
            finish=answer.finish,
            reasoning=chain.reasoning,
            answer=chain.found.answer if chain.found else None,
            scores=scores,
            prompt_digest=self._digest,
            usage_input=bill.input,
            usage_output=bill.output,
        )
