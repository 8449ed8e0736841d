"""Embedding models small enough to be made inside a test: texts that share words lie close to one another."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any


def _tokenizer(words: Iterable[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *sorted(set(words))])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return core


def make_encoder(folder: Path, words: Iterable[str], *, size: int = 64) -> Path:
    """A sentence-transformers folder: one layer of BERT whose words point in random directions."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    core = _tokenizer(words)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=core.get_vocab_size(),
        hidden_size=size,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=size,
        max_position_embeddings=64,
    )
    model = BertModel(config)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.normal_()
        model.embeddings.position_embeddings.weight.zero_()
        model.embeddings.token_type_embeddings.weight.zero_()
    bare = folder.parent / f"{folder.name}-bare"
    model.save_pretrained(bare)
    tokenizer.save_pretrained(bare)
    transformer = Transformer(str(bare))
    SentenceTransformer(modules=[transformer, Pooling(size)], device="cpu").save(str(folder), create_model_card=False)
    return folder


def make_static(folder: Path, words: Iterable[str], *, size: int = 64) -> Path:
    """A model2vec folder."""
    import numpy as np
    from model2vec import StaticModel

    core = _tokenizer(words)
    vectors = np.random.default_rng(0).normal(size=(core.get_vocab_size(), size)).astype(np.float32)
    vectors[:2] = 0
    StaticModel(vectors, core, normalize=True).save_pretrained(folder)
    return folder
