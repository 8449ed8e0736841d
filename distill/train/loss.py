# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# models are untyped torch modules.
"""The training loss without the work that cannot matter.

Two things are left out, and neither changes the loss or its gradient:

- The output head runs on trained positions only. With a vocabulary of 49k it is a fifth of a 135M model, and most
  positions of a prompt have no label.
- Rows of one task start with the same tokens (the template's head, the system turn). Attention is causal, so what the
  layers compute there is the same in every row of a batch: it is computed once, and each row goes on from it, keys and
  values shared. The gradient through the shared part is the sum over the rows.

Whether a model allows this is not read from a list: the first batch is computed both ways (`agrees`), and a model
that differs is trained the plain way.
"""

from __future__ import annotations

from typing import Any

from distill.train.template import IGNORE

__all__ = ["agrees", "inner", "logits_of", "shared_prefix", "token_loss", "trained_logits", "trained_states"]

_WORTH = 16
"""Tokens that rows have to share before sharing pays."""


def token_loss(model: Any, inputs: dict[str, Any], *, share: bool = True) -> Any:
    """Sum over trained tokens of the negative log-likelihood (float32).

    Args:
        model: a causal LM, or a PEFT model around one.
        inputs: `input_ids`, `labels`, `attention_mask`, padded on the right, shape [rows, tokens].
        share: compute what the rows have in common once.
    """
    import torch

    logits, labels, wanted = trained_logits(model, inputs, share=share)
    return torch.nn.functional.cross_entropy(logits.float(), labels[wanted], reduction="sum")


def trained_logits(model: Any, inputs: dict[str, Any], *, share: bool = True) -> tuple[Any, Any, Any]:
    """(logits [trained tokens, vocabulary], labels [rows, n], which of these are trained [rows, n]).

    The last n positions of the rows, each with the token that follows it as its label.
    """
    states, labels, wanted = trained_states(model, inputs, share=share)
    return logits_of(inner(model), states), labels, wanted


def inner(model: Any) -> Any:
    """The causal language model, inside PEFT's wrapper where there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def trained_states(model: Any, inputs: dict[str, Any], *, share: bool = True) -> tuple[Any, Any, Any]:
    """As `trained_logits`, with the hidden states that the output head would see: [trained tokens, width].

    Packed rows come with `position_ids` in place of `attention_mask`, and share nothing.
    """
    causal = inner(model)
    ids, labels = inputs["input_ids"], inputs["labels"]
    mask: Any = inputs.get("attention_mask")
    positions = inputs.get("position_ids")
    common = shared_prefix(ids, labels, mask) if share and positions is None else 0
    if positions is not None:
        hidden = causal.base_model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state
    elif common >= _WORTH:
        head = causal.base_model(input_ids=ids[:1, :common], use_cache=True)
        cache = head.past_key_values
        cache.batch_repeat_interleave(len(ids))
        # Without padding the plain causal mask is enough, and SDPA has a faster way for it.
        hidden = causal.base_model(
            input_ids=ids[:, common:],
            attention_mask=None if bool(mask.all()) else mask,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        labels = labels[:, common:]
    else:
        hidden = causal.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    wanted = labels[:, 1:] != IGNORE
    return hidden[:, :-1][wanted], labels[:, 1:], wanted


def shared_prefix(ids: Any, labels: Any, mask: Any) -> int:
    """Tokens at the start that all rows have in common and that predict nothing trained."""
    if len(ids) < 2:
        return 0
    same = (ids == ids[:1]).all(0) & (labels == IGNORE).all(0) & (mask == 1).all(0)
    length = int(same.int().cumprod(0).sum())
    # The last shared position may predict a trained token, so it stays with the rows.
    return max(0, min(length, ids.size(1) - 1) - 1)


def agrees(model: Any, inputs: dict[str, Any], *, tolerance: float) -> tuple[bool, bool]:
    """(the head on trained positions gives the model's own loss, so does the shared prefix), on this batch.

    `tolerance` is relative: rounding differs with the shape of a product, more so in bfloat16.
    """
    import torch

    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            # Two rows are enough, and the shortest ones: the logits of every position stand in memory whole here.
            lengths = inputs["attention_mask"].sum(1)
            chosen = lengths.argsort()[:2].sort().values
            longest = int(lengths[chosen].max())
            rows = {name: inputs[name][chosen, :longest] for name in ("input_ids", "labels", "attention_mask")}
            count = int((rows["labels"][:, 1:] != IGNORE).sum())
            logits = model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"], use_cache=False).logits
            wanted = rows["labels"][:, 1:] != IGNORE
            own = torch.nn.functional.cross_entropy(
                logits[:, :-1][wanted].float(), rows["labels"][:, 1:][wanted], reduction="sum"
            )
            close: list[bool] = []
            for share in (False, True):
                try:
                    ours = token_loss(model, rows, share=share)
                    close.append(bool(abs(ours - own) <= tolerance * (abs(own) + count)))
                except (AttributeError, TypeError, ValueError, NotImplementedError, RuntimeError):
                    close.append(False)  # a model without these parts is trained the plain way
    finally:
        model.train(training)
    return close[0], close[0] and close[1]


def logits_of(causal: Any, hidden: Any) -> Any:
    """Logits of the given positions, with the scale and the soft cap some families apply."""
    import torch

    logits = causal.get_output_embeddings()(hidden)
    config = causal.config.get_text_config()
    if (scale := getattr(config, "logit_scale", None)) is not None:
        logits = logits * scale
    if (division := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / division
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits
