"""An exported file is run in llama.cpp and held against the model it was made from.

    tokenisation   share of texts that become the same ids: the holdout's, and a few that are hard to cut
    template       share of prompts that its chat endpoint would build as they were in training
    greedy         share of questions with the same greedy answer
    drop           the largest loss of any metric on the holdout; `sure_drop` is the bound of its paired 95 % interval
                   that lies nearer to none

The first two have to be 1 whatever the weights are: they say that the file speaks the student's language. What the
rounding of the weights does shows in the last two.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.evaluate import Holdout, Item, Metric, Student, evaluate
from distill.evaluate.scorecard import GateResult, Scorecard
from distill.release.export import Exported, Quantisation
from distill.release.gates import check_values, losses
from distill.release.llama import LlamaClient, LlamaSystem, running
from distill.release.parity import PROBES
from distill.train import student
from distill.train.template import Encoder, use_template

__all__ = ["FIGURES", "HARD_TEXTS", "Proof", "default_gates", "prove"]

HARD_TEXTS = (
    "Hello, world!",
    "The price is 1234567.89 EUR, or 12 % of 3,000.",
    "  two spaces,\ttabs\t\tand   runs    of     them\n\n\nand lines \r\n too  ",
    "don't DON'T I'll I'LL we've they'd it's IT'S",
    "def f(x):\n    return {\"a\": [1, 2.5e-3], 'b': x != None}  # comment",
    "Zürich, naïve café, ŁÓDŹ, Ελληνικά, русский, עברית, العربية, हिन्दी",
    "日本語と中文、한국어도。１２３",
    "🙂👩‍👩‍👧‍👦 e\u0301 \u200b end",
    "https://example.com/a?b=c&d=%20#e user@example.com",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
)
"""Texts on which wrong rules for cutting words show."""

FIGURES = ("tokenisation", "template", "greedy", "drop", "sure_drop")

_TEXTS = 200
_PROMPTS = 32


@dataclass(frozen=True)
class Proof:
    """What one file showed."""

    exported: Exported
    values: dict[str, float]
    gates: list[GateResult]
    metrics: dict[str, float]
    first_mismatch: str | None
    """A text that becomes other ids, or a prompt that is built otherwise."""

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)

    def as_json(self) -> dict[str, Any]:
        e = self.exported
        return {
            "file": str(e.file),
            "quant": e.quantisation,
            "architecture": e.architecture,
            "pre": e.pre,
            "tensors": e.tensors,
            "bytes": e.bytes,
            **{name: round(value, 4) for name, value in self.values.items()},
            "metrics": self.metrics,
            "first_mismatch": self.first_mismatch,
            "gates": [asdict(gate) for gate in self.gates],
            "passed": self.passed,
        }


def default_gates(quantisation: Quantisation) -> tuple[str, ...]:
    """Checked unless others are given. Weights that are not quantised have to give the same answers, mostly: a number
    type rounds, and where two tokens are nearly as likely the other one may win."""
    same = ("greedy >= 0.5",) if quantisation in ("f32", "f16", "bf16") else ()
    return ("tokenisation == 1", "template == 1", *same, "sure_drop <= 0.03")


async def prove(
    model: str,
    exported: Sequence[Exported],
    out: Path,
    *,
    holdout: Holdout | None = None,
    metrics: Sequence[Metric] = (),
    gates: Sequence[str] | None = None,
    max_tokens: int = 128,
    batch_size: int = 32,
    latency_items: int = 8,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[list[Proof], Scorecard | None]:
    """Run every file.

    Args:
        model: what the files were made from.
        out: with a holdout: where scorecard and predictions go.
        gates: conditions on each file; left out: `default_gates`.

    Raises:
        RunError: llama.cpp refuses a file, or dies of it.
    """
    items = holdout.items if holdout is not None else _questions()
    systems = [LlamaSystem(e.file, model, _name(e), max_tokens, latency_items) for e in exported]
    reference = Student(model, None, "model", max_tokens=max_tokens, batch_size=batch_size, latency_items=latency_items)
    card: Scorecard | None = None
    if holdout is not None:
        card = await evaluate(
            [reference, *systems],
            holdout,
            metrics,
            out,
            subject="model",
            progress=lambda system, done, total: progress(f"{system}: {done}/{total} answered"),
        )
        texts = _saved(out, holdout)
    else:
        texts = {s.name: [p.text for p in (await s.answer(items, lambda _: None)).predictions] for s in systems}
        answered = await reference.answer(items, lambda _: None)
        texts["model"] = [prediction.text for prediction in answered.predictions]
    proofs: list[Proof] = []
    for e in exported:
        progress(f"{_name(e)}: tokenisation and template")
        values, mismatch = await _language(e.file, model, items)
        same = [a == b for a, b in zip(texts[_name(e)], texts["model"], strict=True)]
        values["greedy"] = sum(same) / len(same)
        scores: dict[str, float] = {}
        if card is not None:
            scores = {name: figure.value for name, figure in card.systems[_name(e)].metrics.items()}
            values |= losses(card, _name(e))
        chosen = default_gates(e.quantisation) if gates is None else gates
        if card is None and gates is None:
            chosen = [gate for gate in chosen if not gate.startswith("sure_drop")]
        proofs.append(Proof(e, values, check_values(chosen, {**values, **scores}), scores, mismatch))
    return proofs, card


async def _language(file: Path, model: str, items: Sequence[Item]) -> tuple[dict[str, float], str | None]:
    """Does llama.cpp make the same ids of texts and of conversations?"""
    folder = student.locate(model).folder
    tokenizer = student.load_tokenizer(folder)
    use_template(tokenizer, folder)
    encoder = Encoder(tokenizer)
    texts = list(dict.fromkeys([*HARD_TEXTS, *(turn["content"] for item in items for turn in item.messages)]))[:_TEXTS]
    # Some tokenizers compose characters first (Qwen's). llama.cpp never does: both are given composed text.
    texts = [unicodedata.normalize("NFC", text) for text in texts]
    special = [token for token in tokenizer.all_special_tokens if token]
    texts = [text for text in texts if not any(token in text for token in special)]
    mismatch: str | None = None
    async with running(file, context=512, slots=1) as client:
        same: list[bool] = []
        for text in texts:
            ours = list(tokenizer(text, add_special_tokens=False)["input_ids"])
            same.append(await client.tokenise(text) == ours)
            if not same[-1]:
                mismatch = mismatch or text[:200]
        prompts: list[bool] = []
        for item in items[:_PROMPTS]:
            prompts.append(await _as_served(client, item) == encoder.prompt(item.messages))
            if not prompts[-1]:
                mismatch = mismatch or (await client.render(item.messages))[:400]
    return {"tokenisation": sum(same) / len(same), "template": sum(prompts) / len(prompts)}, mismatch


async def _as_served(client: LlamaClient, item: Item) -> list[int]:
    return await client.tokenise(await client.render(item.messages), whole_prompt=True)


def _questions() -> tuple[Item, ...]:
    return tuple(
        Item(str(number), (dict(row.turns[0]),), row.turns[1]["content"]) for number, row in enumerate(PROBES, 1)
    )


def _saved(out: Path, holdout: Holdout) -> dict[str, list[str]]:
    """The predictions of every system, in the holdout's order."""
    from distill.io import read_jsonl

    found: dict[str, dict[str, str]] = {}
    for _, row in read_jsonl(out / "predictions.jsonl"):
        found.setdefault(row["system"], {})[row["id"]] = row["prediction"]
    return {system: [rows[item.id] for item in holdout.items] for system, rows in found.items()}


def _name(exported: Exported) -> str:
    return f"gguf-{exported.quantisation}"
