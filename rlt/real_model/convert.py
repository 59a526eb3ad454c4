"""A GGUF file of SmolLM2 -> a folder that `from_pretrained` and vLLM load.

    python -m rlt.real_model.convert FILE DIR

Runs in a process of its own, which has the package `gguf` on its path.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from rlt.errors import ModelError
from rlt.parser import Parser
from rlt.surroundings.leaving import run_command

END, PADDING = "<|im_end|>", "<|endoftext|>"
TEXT = (
    "The capital of France is Paris, and the capital of Italy is Rome. "
    "Two and two make four, and four and four make eight."
)
LOSS = 2.3266
"""Mean cross-entropy of TEXT, nats a token, under the converted model. Wrong weights are nats off."""
_TOLERANCE = 0.05


def convert(file: Path, output: Path) -> float:
    """Return the loss of TEXT under the model that was written to `output`; ModelError where it is another.

    transformers refuses to save a model that was read from GGUF, so its tensors move into a plain one.
    """
    folder, name = str(file.parent), file.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name, trust_remote_code=False)
    read = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=False, gguf_file=name, dtype=torch.float32
    )
    config = read.config
    config.quantization_config = None
    tokenizer.eos_token, tokenizer.pad_token = (
        END,
        PADDING,
    )  # the file names the beginning of a turn as its end
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config.update(ends)
    model = LlamaForCausalLM(config).float()
    model.load_state_dict(read.state_dict())
    model.generation_config.update(**ends)

    partial = output.with_name(f"{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    model = LlamaForCausalLM.from_pretrained(partial)
    loss = loss_of(model, AutoTokenizer.from_pretrained(partial, trust_remote_code=False))
    if abs(loss - LOSS) > _TOLERANCE:
        raise ModelError(
            f"{file} was read wrongly: a fixed text has the loss {loss:.3f} instead of {LOSS:.3f}; take the "
            "versions of transformers and gguf that this project names"
        )
    os.replace(partial, output)
    return loss


@torch.no_grad()
def loss_of(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase) -> float:
    """Return the mean cross-entropy of TEXT, nats a token."""
    ids_BT = torch.tensor([tokenizer(TEXT, add_special_tokens=False).input_ids])
    return float(model.eval()(input_ids=ids_BT, labels=ids_BT).loss)


def main(words: Sequence[str]) -> int:
    """Convert and say the loss."""
    parser = Parser(prog="python -m rlt.real_model.convert", description="SmolLM2 from GGUF to float32.")
    parser.add_argument("file", type=Path, help="the GGUF file")
    parser.add_argument("output", type=Path, help="the new folder")
    typed = parser.parse_args(words)
    sys.stdout.write(f"{typed.output}: loss {convert(typed.file, typed.output):.4f} on a fixed text\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
