# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# transformers and peft are only partly typed.
"""The task metric while training: the student answers validation rows, and its best state is the one that is kept.

The loss of an answer and the answer are two things: the loss may go on falling while answers get worse, and the other
way round. So after an epoch (or so many updates) the student answers, greedily and with the prompts it is trained on;
the adapter is kept whenever the score is a new best, and training ends after `patience` scores without one.

transformers' own early stopping does not see figures that are added to an evaluation; here nothing but the scores in
the trainer's history decides, so an interrupted training goes on to the same end.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distill.recipe import WatchConfig
from distill.train import team
from distill.train.data import Conversation
from distill.train.saying import read, say
from distill.train.template import Encoder, stop_tokens
from distill.train.watch import Watch

__all__ = ["Score", "advice", "keep_best", "scorer", "scores"]

Score = Callable[[Sequence[Conversation], Sequence[str]], float]
"""From rows (whose last turn is the right answer) and answers to one figure; higher is better."""

_AT_ONCE = 32


def scorer(
    config: WatchConfig, rows: Sequence[Conversation], score: Score, tokenizer: Any, folder: Path, watch: Watch
) -> Any:
    """The callback that scores after every evaluation and keeps the best state in `folder`."""
    from transformers import TrainerCallback

    chosen = rows[: config.items]
    encoder = Encoder(tokenizer)
    prompts = [encoder.prompt(row.prompt) for row in chosen]

    class Scorer(TrainerCallback):
        def on_evaluate(self, args, state, control, model=None, **kwargs):
            value = score(chosen, _answers(model, tokenizer, prompts, config.max_tokens))
            earlier = [entry["task"] for entry in scores(state)]
            state.log_history.append({"step": state.global_step, "epoch": state.epoch, "task": value})
            watch.task = value
            watch.line({"step": state.global_step, config.metric: value})
            if team.leads() and (not earlier or value > max(earlier)):
                _keep(model, folder)
            best = max(range(len(earlier) + 1), key=lambda i: ([*earlier, value][i], -i))
            if config.patience is not None and len(earlier) - best >= config.patience:
                control.should_training_stop = True

    return Scorer()


def scores(state: Any) -> list[dict[str, Any]]:
    """All scores in a trainer's state, in order: step, epoch, task."""
    return [entry for entry in state.log_history if "task" in entry]


def keep_best(model: Any, folder: Path, state: Any) -> int | None:
    """Give `model` its best state back where a later one is worse; returns the step of the best."""
    found = scores(state)
    if not found:
        return None
    best = max(found, key=lambda entry: (entry["task"], -entry["step"]))
    if best["step"] != state.global_step:
        from safetensors.torch import load_file

        weights: dict[str, Any] = {}
        for file in sorted(folder.glob("*.safetensors")):
            weights |= load_file(file)
        if hasattr(model, "peft_config"):
            from peft import set_peft_model_state_dict

            set_peft_model_state_dict(model, weights)
        else:
            model.load_state_dict(weights, strict=False)  # tied weights are written once
    return int(best["step"])


def advice(metric: str, found: Sequence[dict[str, Any]], losses: Sequence[dict[str, Any]]) -> str | None:
    """What to try where the loss and the task metric part ways."""
    if len(found) < 2 or len(losses) < 4:
        return None
    tenth = max(1, len(losses) // 10)
    first, last = (sum(p["loss"] for p in part) / tenth for part in (losses[:tenth], losses[-tenth:]))
    values = [entry["task"] for entry in found]
    best = values.index(max(values))
    fell = last < 0.9 * first
    if fell and max(values) <= values[0]:
        return (
            f"the loss fell from {first:.3f} to {last:.3f}, but {metric} never rose above its first score "
            f"({values[0]:.3f}): try a third of the learning rate, and see whether the validation rows ask what the "
            "training rows teach"
        )
    if fell and values[-1] < values[best]:
        return (
            f"{metric} was best at step {found[best]['step']} ({values[best]:.3f}) and fell to {values[-1]:.3f} while "
            "the loss went on falling: train fewer epochs, or with half the learning rate"
        )
    if not fell:
        return f"the loss hardly fell ({first:.3f} to {last:.3f}): try three times the learning rate, or more epochs"
    return None


def _keep(model: Any, folder: Path) -> None:
    """Write the state beside the one it replaces, so that a kill leaves one of them."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    options: dict[str, Any] = {"selected_adapters": ["default"]} if hasattr(model, "peft_config") else {}
    model.save_pretrained(partial, safe_serialization=True, **options)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _answers(model: Any, tokenizer: Any, prompts: Sequence[list[int]], max_tokens: int) -> list[str]:
    import torch

    stops = stop_tokens(tokenizer, _as_list(model.generation_config.eos_token_id))
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    found: dict[int, str] = {}
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(order), _AT_ONCE):
                chosen = order[start : start + _AT_ONCE]
                made = say(model, [prompts[i] for i in chosen], stops, max_tokens=max_tokens)
                found.update((i, read(ids, tokenizer, stops).text) for i, ids in zip(chosen, made, strict=True))
    finally:
        model.train(training)
    return [found[i] for i in range(len(prompts))]


def _as_list(value: Any) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)
