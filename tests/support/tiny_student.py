"""A student small enough to be trained inside a test: two layers, a tokenizer of its own, made on the spot."""

from __future__ import annotations

from pathlib import Path

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"]


def make_tokenizer(folder: Path, template: str | None = CHATML, **settings: object) -> Path:
    """Byte-level BPE with a few hundred tokens, saved as a fast tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(
        ["the card was lost yesterday, please help", '{"intent": "lost", "urgency": "high"}'], trainer
    )
    names = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "additional_special_tokens": SPECIAL[:2], **settings}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def make_model(folder: Path, **settings: object) -> Path:
    """A random llama with tied embeddings, hidden size 64 (a multiple of the 4-bit block)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        **{
            "vocab_size": 512,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "tie_word_embeddings": True,
            "eos_token_id": 2,
            **settings,
        }
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
