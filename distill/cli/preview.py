"""`distill preview`: a few finished slots with their prompts, answers, rows and fates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from distill.cli.console import JsonOption, RecipeArgument, out, print_json, run_loop, safe
from distill.cli.loading import load

if TYPE_CHECKING:
    from distill.engine.preview import Specimen

__all__ = ["preview"]


def preview(
    recipe: RecipeArgument,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=100, help="Slots to finish.")] = 3,
    json: JsonOption = False,
) -> None:
    """Finish a few slots and show what became of them.

    Rendered prompts, raw answers, rows and fates stand side by side. The answers are real and stored: the run that
    follows does not pay for them again.
    """
    from distill.engine import prepare
    from distill.engine.preview import preview as run_preview

    prepared = prepare(load(recipe))
    specimens = run_loop(run_preview(prepared, count))
    if json:
        print_json({"slots": [_as_json(specimen) for specimen in specimens]})
        return
    for specimen in specimens:
        out.print(_panel(specimen))


def _panel(specimen: Specimen) -> Panel:
    slot = specimen.slot
    table = Table(show_header=True, expand=True, box=None, padding=(0, 1))
    for name in ("prompt", "answer", "row and fate"):
        table.add_column(name, ratio=1, overflow="fold")
    for position, exchange in enumerate(specimen.exchanges):
        prompt = Text()
        for message in exchange.request.messages:
            prompt += Text(f"{message.role}: ", style="bold") + safe(message.content) + Text("\n")
        if exchange.answer is None:
            answer = safe(exchange.error)
            answer.stylize("red")
        else:
            answer = safe(exchange.answer.text)
            if exchange.answer.reasoning:
                answer = Text("thinking: ", style="bold") + safe(exchange.answer.reasoning) + Text("\n") + answer
        last = position == len(specimen.exchanges) - 1
        table.add_row(prompt, answer, _rows(specimen) if last else Text())
    title = f"{slot.id}  {'/'.join(slot.leaf)}  {', '.join(f'{k}={v}' for k, v in slot.dims.items())}"
    return Panel(table, title=safe(title + (f"  {slot.twist}" if slot.twist else "")), title_align="left")


def _rows(specimen: Specimen) -> Text:
    text = Text()
    for row, fate in zip(specimen.rows, specimen.fates, strict=True):
        for message in row.messages:
            text += Text(f"{message.role}: ", style="bold") + safe(message.content) + Text("\n")
        for name in ("reasoning", "answer", "chosen", "rejected"):
            value = getattr(row, name)
            if value:
                text += Text(f"{name}: ", style="bold") + safe(value) + Text("\n")
        if fate is None:
            text += Text("kept\n\n", style="green")
        else:
            text += (
                Text(f"rejected by {fate.filter}: {fate.reason} ", style="yellow") + safe(fate.evidence) + Text("\n\n")
            )
    for failure in specimen.failures:
        text += Text(f"failed: {failure.failure} ", style="red") + safe(failure.message) + Text("\n")
    return text


def _as_json(specimen: Specimen) -> dict[str, Any]:
    slot = specimen.slot
    return {
        "slot": slot.id,
        "leaf": list(slot.leaf),
        "dims": dict(slot.dims),
        "kind": slot.twist or slot.kind,
        "exchanges": [
            {
                "messages": [{"role": m.role, "content": m.content} for m in exchange.request.messages],
                "answer": exchange.answer.text if exchange.answer else None,
                "reasoning": exchange.answer.reasoning if exchange.answer else None,
                "finish": exchange.answer.finish if exchange.answer else None,
                "key": exchange.answer.key if exchange.answer else None,
                "error": exchange.error or None,
            }
            for exchange in specimen.exchanges
        ],
        "rows": [
            {
                "messages": [{"role": m.role, "content": m.content} for m in row.messages],
                "reasoning": row.reasoning,
                "answer": row.answer,
                "chosen": row.chosen,
                "rejected": row.rejected,
                "fate": "kept"
                if fate is None
                else {"filter": fate.filter, "reason": fate.reason, "evidence": fate.evidence},
            }
            for row, fate in zip(specimen.rows, specimen.fates, strict=True)
        ],
        "failures": [{"class": f.failure.value, "message": f.message, "raw": f.raw} for f in specimen.failures],
    }
