"""A tiny byte-level tokenizer and tiny random Qwen2 models, made on the spot."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

END, PAD = "<|im_end|>", "<|endoftext|>"


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose words are the 256 bytes, a few merges and two special tokens."""
    vocab = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = [("e", "n"), ("en", "d"), ("t", "h"), ("th", "e")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    fast.model_max_length = 512
    return fast


def tiny_model(seed: int, *, tied: bool = False, hidden_size: int = 128) -> Qwen2ForCausalLM:
    """Return a two-layer float32 Qwen2 with peaked random logits: 4 heads, so head dimension 32."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config).eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model


def save_tiny(path: Path, seed: int, *, tied: bool = False) -> Path:
    """Return the folder after writing a tiny model and its tokenizer into it."""
    tiny_model(seed, tied=tied).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path
