"""Small tokenizers for chat templates of many families, and how each family writes a turn.

The templates are those that the installed TRL ships, 41 without its training patches. A tokenizer has the
control tokens that its template names, and one of three ways to cut text, by family.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trl
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

FOLDER = Path(trl.__file__).parent / "chat_templates"
TEMPLATES = {p.stem: p for p in sorted(FOLDER.glob("*.jinja")) if not p.stem.endswith("_training")}
_CORPUS = ["The answer is 4.\n\nSo 2 + 2 = 4.\nThink of it: one, two!\n\n</think> <solution> thought"] * 9
_LLAMA = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"


@dataclass(frozen=True)
class Family:
    """How a family writes thoughts: by a key of the message, in the content, or by no template at all."""

    end: str
    """The token that ends a turn."""
    key: str | None = None
    """The key of a message whose thought the template renders."""
    record: tuple[str, str] | None = None
    """What is before a thought and between it and the answer, where the template drops thoughts."""
    state: str = "absent"
    """What the generation prompt has done with the thought: absent, opened or emptied."""
    has_system: bool = True
    ends: bool = True
    """The template writes a token that ends the turn."""
    eos: str | None = None
    """The tokenizer's own end, where it is another one."""


_THINK = ("<think>\n", "\n</think>\n\n")
_GEMMA4 = ("<|channel>thought\n", "\n<channel|>")
_DEEPSEEK = "<｜end▁of▁sentence｜>"  # noqa: RUF001 - DeepSeek's own spelling
_IM_END, _TURN, _EOT = "<|im_end|>", "<turn|>", "<|eot_id|>"
FAMILIES = {
    "cohere": Family("<|END_OF_TURN_TOKEN|>"),
    "cohere2": Family("<|END_OF_TURN_TOKEN|>"),
    "deepseek_r1_distill": Family(_DEEPSEEK, record=_THINK, state="opened"),
    "deepseekv3": Family(_DEEPSEEK, record=_THINK, state="opened"),
    "diffusion_gemma": Family(_TURN, key="reasoning_content"),
    "gemma": Family("<end_of_turn>", has_system=False),
    "gemma3": Family("<end_of_turn>"),
    "gemma4": Family(_TURN, record=_GEMMA4),
    "gemma4_v2": Family(_TURN, record=_GEMMA4),
    "gemma4_v3": Family(_TURN, record=_GEMMA4),
    "gemma4_v4": Family(_TURN, record=_GEMMA4),
    "gemma4_v5": Family(_TURN, key="reasoning_content"),
    "glm4moe": Family("<|endoftext|>", key="reasoning_content", ends=False),
    "gptoss": Family("<|return|>", key="thinking"),
    "lfm2": Family(_IM_END),
    "lfm2_2_5": Family(_IM_END, key="thinking"),
    "lfm2_2_5_v2": Family(_IM_END, key="reasoning_content"),
    "lfm2_2_5_vl": Family(_IM_END, key="reasoning_content"),
    "lfm2_v2": Family(_IM_END),
    "llama3": Family(_EOT),
    "llama3_1": Family(_EOT),
    "llama3_2": Family(_EOT),
    "muse_glimmer": Family("<|eot|>", key="reasoning_content"),
    "nemotron_3_5_lightning": Family(_IM_END, key="reasoning_content", state="opened"),
    "nemotron_3_nano": Family(_IM_END, key="reasoning_content", state="opened"),
    "nemotron_3_super": Family(_IM_END, key="reasoning_content", state="opened"),
    "nemotron_3_ultra": Family(_IM_END, key="reasoning_content", state="opened"),
    "phi3": Family("<|end|>", eos="<|endoftext|>"),
    "phi3_5": Family("<|end|>", eos="<|endoftext|>"),
    "qwen2_5": Family(_IM_END),
    "qwen2_5_vl": Family(_IM_END),
    "qwen3": Family(_IM_END, key="reasoning_content"),
    "qwen3_5_nothink": Family(_IM_END, key="reasoning_content", state="emptied"),
    "qwen3_5_think": Family(_IM_END, key="reasoning_content", state="opened"),
    "qwen3_6": Family(_IM_END, key="reasoning_content", state="opened"),
    "qwen3_8": Family(_IM_END, key="reasoning_content", state="opened"),
    "qwen3_instruct_2507": Family(_IM_END),
    "qwen3_vl": Family(_IM_END),
}
REFUSED = {
    "idefics3": "<end_of_utterance>",
    "llava_next": "</s>",
    "smolvlm": "<end_of_utterance>",
}
"""Of image models, with the token that ends their turns: they read no message that is a text."""


@cache
def family_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Return a small tokenizer with a family's template and control tokens."""
    family = FAMILIES.get(name) or Family(REFUSED[name])
    return build(name, TEMPLATES[name].read_text(encoding="utf-8"), family.eos or family.end)


def build(name: str, template: str, eos: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer for a template: byte-level as GPT-2's or Llama 3's, or as Gemma's."""
    tokenizer = Tokenizer(models.BPE(byte_fallback="gemma" in name, unk_token=None))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if "gemma" in name:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        tokenizer.decoder = decoders.Sequence(steps)
        alphabet = [chr(i) for i in range(32, 127)] + ["\n", "▁"]
    elif re.match("llama|qwen|deepseek|nemotron|gpt", name):
        split = pre_tokenizers.Split(Regex(_LLAMA), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    controls = re.findall(r"<\|?[^<>\s'\"{}]{2,40}\|?>|\[gMASK\]", template)
    controls = [
        c for c in dict.fromkeys([eos, "<BOS>", "<PAD>", "<|endoftext|>", *controls]) if "solution" not in c
    ]
    byte_tokens = [f"<0x{i:02X}>" for i in range(256)] if "gemma" in name else []
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, show_progress=False, special_tokens=byte_tokens
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, bos_token="<BOS>", pad_token="<PAD>"
    )
    fast.add_tokens(controls, special_tokens=True)
    fast.chat_template = template
    fast.name_or_path = name
    return fast
