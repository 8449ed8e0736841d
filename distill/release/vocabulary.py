"""What llama.cpp has to know of a tokenizer, read from `tokenizer.json`.

Two kinds are written: byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM), which llama.cpp splits into words by one of its
named patterns before merging, and BPE over characters with byte fallback (Llama 2, Gemma), where it merges by score.
The pattern is told from the tokenizer's own pre-tokenizer, not from the model's name: what the student was trained
with counts. Whether llama.cpp then gives the same ids is measured after the export.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gguf import GGUFWriter, TokenType

from distill.errors import InputError
from distill.io import loads
from distill.train.template import Encoder

__all__ = ["Vocabulary", "adds_bos", "read_vocabulary"]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = {
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL: "llama-bpe",
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL: "qwen2",
    _CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen35",
}
"""Regular expression of the pre-tokenizer -> llama.cpp's name for it."""


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids, and how text becomes tokens."""

    model: str
    """`gpt2` (byte-level BPE) or `llama` (merges by score, byte fallback)."""
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    add_bos: bool
    space_prefix: bool
    bos: int | None
    eos: int | None
    eot: int | None
    """The token that ends a turn, where that is not `eos`."""
    unknown: int | None
    padding: int | None

    def write(self, writer: GGUFWriter) -> None:
        """Add everything to the file's metadata."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        writer.add_token_types(self.types)
        if self.merges is not None:
            writer.add_token_merges(self.merges)
        for add, value in (
            (writer.add_bos_token_id, self.bos),
            (writer.add_eos_token_id, self.eos),
            (writer.add_eot_token_id, self.eot),
            (writer.add_unk_token_id, self.unknown),
            (writer.add_pad_token_id, self.padding),
        ):
            if value is not None:
                add(value)
        writer.add_add_bos_token(self.add_bos)
        if self.model == "llama":
            writer.add_add_space_prefix(self.space_prefix)


def read_vocabulary(folder: Path, tokenizer: Any, size: int) -> Vocabulary:
    """The vocabulary of a model folder.

    Args:
        tokenizer: the loaded tokenizer, with the chat template that the student was trained with.
        size: rows of the embedding; ids above the tokenizer's are filled with unused tokens.

    Raises:
        InputError: no `tokenizer.json`, or a kind of tokenizer that llama.cpp would not reproduce.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError("the folder has no tokenizer.json", path=folder, hint="save its fast tokenizer there")
    raw = loads(file.read_bytes())
    model: dict[str, Any] = raw["model"]
    if model.get("type") != "BPE":
        raise InputError(f"a {model.get('type')} tokenizer: only BPE can be exported", path=file)
    by_score = bool(model.get("byte_fallback"))
    pre = "default" if by_score else _pre(raw, file)
    tokens, types = _tokens(raw, model, size, tokenizer, file, by_score=by_score)
    merges = [cast("list[str]", m) if isinstance(m, list) else str(m).split(" ", 1) for m in model["merges"]]
    ends = _turn_end(tokenizer)
    return Vocabulary(
        model="llama" if by_score else "gpt2",
        pre=pre,
        tokens=tokens,
        types=types,
        scores=_scores(tokens, merges) if by_score else None,
        merges=None if by_score else [" ".join(pair) for pair in merges],
        add_bos=adds_bos(tokenizer),
        space_prefix=by_score and _prefixes_space(raw),
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        eot=ends if ends != tokenizer.eos_token_id else None,
        unknown=tokenizer.unk_token_id,
        padding=tokenizer.pad_token_id,
    )


def _tokens(
    raw: dict[str, Any], model: dict[str, Any], size: int, tokenizer: Any, file: Path, *, by_score: bool
) -> tuple[list[str], list[int]]:
    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [int(TokenType.UNUSED)] * size
    named = {number: text for text, number in cast("dict[str, int]", model["vocab"]).items()}
    # A folder made by conversion may keep its added tokens in `tokenizer_config.json` only: the tokenizer knows all.
    added: dict[int, Any] = tokenizer.added_tokens_decoder
    if max([*named, *added], default=0) >= size:
        raise InputError(f"holds more tokens than the embedding's {size} rows", path=file)
    for number, text in named.items():
        tokens[number] = text
        byte = by_score and len(text) == 6 and text.startswith("<0x") and text.endswith(">")
        types[number] = int(TokenType.BYTE if byte else TokenType.NORMAL)
    if by_score and tokenizer.unk_token_id is not None:
        types[tokenizer.unk_token_id] = int(TokenType.UNKNOWN)
    for number, token in added.items():
        if types[number] == TokenType.UNKNOWN:
            continue
        # llama.cpp compares these with the text itself, in which a space is a space.
        tokens[number] = token.content if token.special else token.content.replace("\u2581", " ")
        types[number] = int(TokenType.CONTROL if token.special else TokenType.USER_DEFINED)
    return tokens, types


def _scores(tokens: list[str], merges: list[list[str]]) -> list[float]:
    """Earlier merges score higher: merging by score then gives what merging by rank gives."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks[token]) if token in ranks else -float(len(merges)) for token in tokens]


def _pre(raw: dict[str, Any], file: Path) -> str:
    """llama.cpp's name for how text is cut into words."""
    first: dict[str, Any] = raw.get("pre_tokenizer") or {}
    steps: list[dict[str, Any]] = first.get("pretokenizers", [first])
    kinds = [step.get("type") for step in steps]
    if kinds and kinds[-1] == "ByteLevel" and not steps[-1].get("add_prefix_space"):
        if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
            return "smollm"
        if kinds == ["Split", "ByteLevel"]:
            pattern = steps[0].get("pattern", {}).get("Regex")
            name = _PATTERNS.get(pattern)
            if name == "llama-bpe" and not raw["model"].get("ignore_merges"):
                return "smaug-bpe"  # the same words, but a word that is a token still has to be merged
            if name is not None:
                return name
    raise InputError(
        f"its pre-tokenizer ({', '.join(map(str, kinds))}) is none of those known here", path=file,
        hint="known: " + ", ".join(["gpt-2", "smollm", "smaug-bpe", *_PATTERNS.values(), "character BPE with bytes"]),
    )  # fmt: skip


def _prefixes_space(raw: dict[str, Any]) -> bool:
    normalizer: dict[str, Any] = raw.get("normalizer") or {}
    steps: list[dict[str, Any]] = normalizer.get("normalizers", [normalizer])
    first: dict[str, Any] = raw.get("pre_tokenizer") or {}
    return any(step.get("type") == "Prepend" for step in steps) or first.get("prepend_scheme") in ("first", "always")


def adds_bos(tokenizer: Any) -> bool:
    """Whether a prompt starts with BOS: where the tokenizer would add it and the template writes it too.

    The student was trained on what the template renders. Where that lacks BOS, nothing may add it later.
    """
    if tokenizer.bos_token_id is None or tokenizer("a")["input_ids"][:1] != [tokenizer.bos_token_id]:
        return False
    prompt = Encoder(tokenizer).prompt(({"role": "user", "content": "a"},))
    return prompt[:1] == [tokenizer.bos_token_id]


def _turn_end(tokenizer: Any) -> int | None:
    from distill.train.data import Conversation
    from distill.train.template import IGNORE

    turns = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    example = Encoder(tokenizer)(Conversation(turns, "probe"))[0]
    return next(label for label in reversed(example.labels) if label != IGNORE)
