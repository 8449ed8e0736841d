"""Preference distillation: candidates, a judge, pairs with a margin.

Judges favour an answer for where it stands, so pairwise verdicts are asked in both orders and count only where both
agree (Zheng et al. 2023, arXiv:2306.05685, section 3.4). What the judge cannot tell apart is a failure of class `tie`,
never a row.

Pair n of a slot is `<slot>-<n>` (with `best_worst` the only pair is 0); a candidate that failed comes after the pairs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import combinations

from distill.dataset import Failure, Row
from distill.errors import FailureClass
from distill.io import digest
from distill.methods.asking import Lost, Spoken, Voice, draw, together, turns
from distill.methods.base import Ask, Prompts
from distill.methods.bill import Bill
from distill.methods.judging import Judge
from distill.methods.questions import Questions
from distill.planning import Slot
from distill.recipe import PreferenceConfig, Recipe
from distill.teachers import Answer

__all__ = ["Preference"]


@dataclass(frozen=True, slots=True)
class _Candidate:
    position: int
    text: str
    answer: Answer
    teacher: str


@dataclass(frozen=True, slots=True)
class _Pair:
    """A better and a worse candidate, or why there is none. `agreement` is left out where there is one verdict each."""

    better: _Candidate
    worse: _Candidate
    scores: tuple[float, float]
    agreement: float | None = None


@dataclass(frozen=True, slots=True)
class _Scored:
    """What the judge said: a score for every candidate (wins, or the rubric's), and the pairs it decided."""

    score: dict[int, float]
    decided: set[tuple[int, int]]
    """(better, worse) by position."""
    undecided: dict[tuple[int, int], Lost]
    """Pairs in the order of their positions."""
    paid: list[Answer]
    agreement: float | None


class Preference:
    """See `PreferenceConfig` for what it does; built once a run, called once a slot."""

    def __init__(self, recipe: Recipe, config: PreferenceConfig, prompts: Prompts) -> None:
        self._config = config
        names = (config.system, config.input)
        self._system, input_prompt = (prompts.get(name) if name else None for name in names)
        self._prompt = prompts.get(config.prompt)
        judge_prompt = prompts.get(config.judge_prompt)
        used = (self._system, input_prompt, self._prompt, judge_prompt)
        self._digest = digest([prompt.digest for prompt in used if prompt is not None])
        # The same teacher at the same temperature twice is the same request: further samples of it.
        self._voices: list[tuple[Voice, int]] = []
        drawn: Counter[tuple[str, float]] = Counter()
        for teacher in config.candidates:
            voice = Voice.of(recipe, teacher, config)
            for temperature in config.temperatures:
                self._voices.append((voice.at(temperature), drawn[teacher, temperature]))
                drawn[teacher, temperature] += 1
        judge = Voice.of(recipe, config.judge)
        if config.judge_temperature is not None:
            judge = judge.at(config.judge_temperature)
        self._judge = Judge(judge_prompt, judge)
        self._questions: Questions | None = None
        if input_prompt is not None:
            self._questions = Questions(input_prompt, Voice.of(recipe, config.candidates[0], config))
        n = len(self._voices)
        pairs = n * (n - 1) // 2
        self.rows_per_slot: float = pairs if config.pairs == "all" else 1
        judged = n if config.mode == "rubric" else 2 * pairs
        self.requests_per_slot: float = (self._questions is not None) + n + judged

    async def __call__(self, slot: Slot, ask: Ask) -> list[Row | Failure]:
        extra: dict[str, str] = {}
        bill = Bill()
        if self._questions is not None:
            written = await self._questions.write(slot, ask)
            if isinstance(written, Lost):
                return [written.fate(slot, 0)]
            extra, bill = {"input": written.texts[0]}, written.bill
        rendered = self._prompt.render(slot, **extra)
        system = self._system.render(slot) if self._system is not None else None
        messages = turns(rendered, system, self._prompt.render_system(slot, **extra))
        schema = self._prompt.schema
        drawn = await together(
            [draw(ask, voice, messages, sample=sample, schema=schema) for voice, sample in self._voices]
        )
        question = extra.get("input", rendered)
        bill += Bill.of([answer for one in drawn if isinstance(one, Spoken) for answer in one.paid])
        candidates = _distinct(self._voices, drawn)
        if len(candidates) < 2:
            pairs: list[_Pair | Lost] = self._no_choice(drawn)
        else:
            judge = self._rubric if self._config.mode == "rubric" else self._pairwise
            judged = await judge(slot, ask, question, candidates)
            bill += Bill.of(judged.paid)
            pairs = self._pairs(candidates, judged)
        lost = [one for one in drawn if isinstance(one, Lost)]
        # Where only one came back, or none, there is no pair to fail, and the candidates' failures say it all.
        shares = bill.split(len(pairs) or len(lost))
        outcomes: list[Row | Failure] = []
        for n, (pair, share) in enumerate(zip(pairs, shares, strict=False)):
            if isinstance(pair, Lost):
                outcomes.append(pair.fate(slot, n, share))
            else:
                outcomes.append(self._row(slot, n, pair, question, system, share))
        first = len(pairs)
        outcomes += [one.fate(slot, first + n, None if pairs else shares[n]) for n, one in enumerate(lost)]
        return outcomes

    # -- judging ---------------------------------------------------------------------------------------------------

    async def _pairwise(self, slot: Slot, ask: Ask, question: str, candidates: list[_Candidate]) -> _Scored:
        matches = list(combinations(candidates, 2))
        orders = [order for a, b in matches for order in ((a, b), (b, a))]
        verdicts = await together([self._judge.winner(ask, slot, question, a.text, b.text) for a, b in orders])
        wins: dict[int, float] = {candidate.position: 0.0 for candidate in candidates}
        decided: set[tuple[int, int]] = set()
        undecided: dict[tuple[int, int], Lost] = {}
        for n, (a, b) in enumerate(matches):
            there, back = verdicts[2 * n], verdicts[2 * n + 1]
            pair = (a.position, b.position)
            if isinstance(there, Lost) or isinstance(back, Lost):
                lost = there if isinstance(there, Lost) else back
                if isinstance(lost, Lost):
                    undecided[pair] = _judge_lost(lost)
            elif (there.value, back.value) == ("A", "B"):
                decided.add(pair)
                wins[a.position] += 1
            elif (there.value, back.value) == ("B", "A"):
                decided.add((b.position, a.position))
                wins[b.position] += 1
            else:
                both = there.value == back.value == "tie"
                said = "the judge sees no difference" if both else "the judge changes its mind with the order"
                undecided[pair] = self._tie(f"{said}: {there.value} in one order, {back.value} in the other")
        paid = [answer for verdict in verdicts for answer in verdict.paid]
        return _Scored(wins, decided, undecided, paid, len(decided) / len(matches))

    async def _rubric(self, slot: Slot, ask: Ask, question: str, candidates: list[_Candidate]) -> _Scored:
        given = await together([self._judge.score(ask, slot, question, one.text) for one in candidates])
        score = {
            one.position: read.value for one, read in zip(candidates, given, strict=True) if not isinstance(read, Lost)
        }
        failed = {one.position: read for one, read in zip(candidates, given, strict=True) if isinstance(read, Lost)}
        decided: set[tuple[int, int]] = set()
        undecided: dict[tuple[int, int], Lost] = {}
        for a, b in combinations([one.position for one in candidates], 2):
            lost = failed.get(a) or failed.get(b)
            if lost is not None:
                undecided[a, b] = _judge_lost(lost)
            elif score[a] == score[b]:
                undecided[a, b] = self._tie(f"both score {score[a]:g}")
            else:
                decided.add((a, b) if score[a] > score[b] else (b, a))
        return _Scored(score, decided, undecided, [answer for read in given for answer in read.paid], None)

    # -- pairs -----------------------------------------------------------------------------------------------------

    def _pairs(self, candidates: list[_Candidate], judged: _Scored) -> list[_Pair | Lost]:
        found: list[_Pair | Lost] = []
        for a, b in combinations(candidates, 2):
            if (b.position, a.position) in judged.decided:
                a, b = b, a
            if (a.position, b.position) not in judged.decided:
                found.append(judged.undecided[a.position, b.position])
                continue
            scores = (judged.score[a.position], judged.score[b.position])
            if scores[0] - scores[1] < self._config.margin:
                margin = f"{scores[0]:g} to {scores[1]:g} is less than the margin of {self._config.margin:g}"
                found.append(self._tie(margin))
            else:
                found.append(_Pair(a, b, scores, judged.agreement))
        if self._config.pairs == "all":
            return found
        pairs = [pair for pair in found if isinstance(pair, _Pair)]
        if pairs:
            # The widest margin; among equals the best of the better ones, then the first.
            return [max(pairs, key=lambda pair: (pair.scores[0] - pair.scores[1], pair.scores[0]))]
        # A judge that failed says more than one that saw a tie.
        losses = [pair for pair in found if isinstance(pair, Lost)]
        return [next((loss for loss in losses if loss.failure is not FailureClass.TIE), losses[0])]

    def _no_choice(self, drawn: list[Spoken | Lost]) -> list[_Pair | Lost]:
        texts = [one.answer.text for one in drawn if isinstance(one, Spoken)]
        if len(texts) < 2:
            return []
        return [replace(self._tie(f"all {len(texts)} candidates are the same text"), raw=texts[0])]

    def _tie(self, message: str) -> Lost:
        return Lost(FailureClass.TIE, message, teacher=self._config.judge)

    def _row(self, slot: Slot, n: int, pair: _Pair, question: str, system: str | None, bill: Bill) -> Row:
        better, worse = pair.scores
        scores = {"chosen_score": better, "margin": better - worse, "rejected_score": worse}
        if pair.agreement is not None:
            scores["agreement"] = pair.agreement
        answer = pair.better.answer
        return Row(
            id=f"{slot.id}-{n}",
            slot=slot,
            messages=turns(question, system),
            teacher=answer.teacher or pair.better.teacher,
            keys=bill.keys,
            cost=bill.cost,
            model=answer.model,
            finish=answer.finish,
            chosen=pair.better.text,
            rejected=pair.worse.text,
            scores=scores,
            prompt_digest=self._digest,
            usage_input=bill.input,
            usage_output=bill.output,
        )


def _judge_lost(lost: Lost) -> Lost:
    """The pair's loss; what the judge was paid stands on the slot's common bill."""
    return replace(lost, message=f"the judge: {lost.message}", paid=())


def _distinct(voices: list[tuple[Voice, int]], drawn: list[Spoken | Lost]) -> list[_Candidate]:
    """Candidates with different texts, the first of each."""
    first: dict[str, _Candidate] = {}
    for position, one in enumerate(drawn):
        if isinstance(one, Spoken):
            text = one.answer.text.strip()
            first.setdefault(text, _Candidate(position, text, one.answer, voices[position][0].teacher))
    return list(first.values())
