"""Training layouts: from a row at rest to the object a trainer reads, and back.

    messages           {"messages": [{role, content}, …]}                              TRL conversational
    prompt_completion  {"prompt": [turns], "completion": [the answer]}                 TRL, loss on the completion
    alpaca             {"instruction", "input", "output", "system"?, "history"?}       LLaMA-Factory's reading
    sharegpt           {"conversations": [{"from": human | gpt | system, "value"}]}
    preference         {"prompt": [turns], "chosen": [turn], "rejected": [turn]}       TRL conversational
    reasoning          {"messages": …} with the chain and the answer put into a template

`to_training` and `from_training` are inverse for what a layout can hold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from distill.errors import InputError

__all__ = ["Format", "Turn", "from_training", "to_training"]

Format = Literal["messages", "prompt_completion", "alpaca", "sharegpt", "preference", "reasoning"]
Turn = dict[str, str]
Record = Mapping[str, Any]

_TO_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}
_FROM_SHAREGPT = {theirs: ours for ours, theirs in _TO_SHAREGPT.items()}
_SLOT = re.compile(r"\{(reasoning|answer)\}")


def to_training(record: Record, format: Format, *, template: str = "{reasoning}\n{answer}") -> dict[str, Any]:
    """One training object of a row of `rows.parquet`.

    Args:
        record: `messages`, and `chosen`, `rejected`, `reasoning`, `answer` where the row has them.
            `logprobs` of the answer go along with `messages` and `prompt_completion`.
        template: for `reasoning`; `{reasoning}` and `{answer}` are filled in.

    Raises:
        InputError: the row does not hold what the layout needs; names the row.
    """
    turns = [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in record["messages"]]
    chosen, rejected = record.get("chosen"), record.get("rejected")
    if format == "preference":
        if chosen is None or rejected is None:
            raise _cannot(record, format, "it has no pair of answers")
        return {"prompt": turns, "chosen": [_assistant(chosen)], "rejected": [_assistant(rejected)]}
    if chosen is not None:
        turns = [*turns, _assistant(chosen)]
    if not turns or turns[-1]["role"] != "assistant":
        raise _cannot(record, format, "it does not end with an assistant turn")
    if format == "reasoning":
        reasoning = record.get("reasoning")
        if not reasoning:
            raise _cannot(record, format, "it has no reasoning")
        answer = record.get("answer")
        values = {"reasoning": reasoning, "answer": turns[-1]["content"] if answer is None else answer}
        return {"messages": [*turns[:-1], _assistant(_SLOT.sub(lambda match: values[match.group(1)], template))]}
    told = {"logprobs": record["logprobs"]} if record.get("logprobs") else {}
    if format == "prompt_completion":
        return {"prompt": turns[:-1], "completion": turns[-1:], **told}
    if format == "alpaca":
        return _alpaca(record, turns)
    if format == "sharegpt":
        return {"conversations": [{"from": _TO_SHAREGPT[t["role"]], "value": t["content"]} for t in turns]}
    return {"messages": turns, **told}


def from_training(item: Record, format: Format, *, template: str = "{reasoning}\n{answer}") -> dict[str, Any]:
    """What `to_training` was given: `messages`, and `chosen`, `rejected` or `reasoning`, `answer`.

    Raises:
        InputError: the item is not of this layout.
    """
    try:
        if format == "preference":
            return {
                "messages": list(item["prompt"]),
                "chosen": item["chosen"][-1]["content"],
                "rejected": item["rejected"][-1]["content"],
            }
        if format == "prompt_completion":
            return {"messages": [*item["prompt"], *item["completion"]]}
        if format == "sharegpt":
            turns = cast(Sequence[Turn], item["conversations"])
            return {"messages": [{"role": _FROM_SHAREGPT[t["from"]], "content": t["value"]} for t in turns]}
        if format == "alpaca":
            return {"messages": _from_alpaca(item)}
        turns = [dict(turn) for turn in cast(Sequence[Turn], item["messages"])]
        if format == "reasoning":
            pattern = re.escape(template)
            for name in ("reasoning", "answer"):
                pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>.*)", 1)
            match = re.fullmatch(pattern, turns[-1]["content"], re.DOTALL)
            if match is None:
                raise InputError("the assistant turn does not follow the template")
            parts = match.groupdict()
            turns[-1] = _assistant(parts.get("answer", ""))
            return {"messages": turns, "reasoning": parts.get("reasoning"), "answer": parts.get("answer")}
        return {"messages": turns}
    except (KeyError, IndexError, TypeError) as error:
        raise InputError(f"not a row of the {format} layout: {error!r}") from None


def _alpaca(record: Record, turns: list[Turn]) -> dict[str, Any]:
    system = [turn["content"] for turn in turns if turn["role"] == "system"]
    talk = [turn for turn in turns if turn["role"] != "system"]
    roles = [turn["role"] for turn in talk]
    if len(system) > 1 or roles != ["user", "assistant"] * (len(talk) // 2):
        raise _cannot(record, "alpaca", "its turns do not alternate between user and assistant")
    item: dict[str, Any] = {"instruction": talk[-2]["content"], "input": "", "output": talk[-1]["content"]}
    if system:
        item["system"] = system[0]
    if len(talk) > 2:
        item["history"] = [[talk[i]["content"], talk[i + 1]["content"]] for i in range(0, len(talk) - 2, 2)]
    return item


def _from_alpaca(item: Record) -> list[Turn]:
    turns: list[Turn] = [{"role": "system", "content": item["system"]}] if item.get("system") is not None else []
    for question, answer in item.get("history") or ():
        turns += [{"role": "user", "content": question}, _assistant(answer)]
    question = item["instruction"] + (f"\n{item['input']}" if item.get("input") else "")
    return [*turns, {"role": "user", "content": question}, _assistant(item["output"])]


def _assistant(content: str) -> Turn:
    return {"role": "assistant", "content": content}


def _cannot(record: Record, format: str, why: str) -> InputError:
    return InputError(
        f"row {record.get('id', '?')} cannot be written as {format}: {why}",
        field="dataset.format",
        hint="name another layout and run the same command again: the rows are there, and nothing is paid twice",
    )
