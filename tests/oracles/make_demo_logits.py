"""Logits of the demo model as trained, computed by transformers in f32: demo_logits/{tokens,logits}.npy

usage: make_demo_logits.py MODEL [OUT]      MODEL: the folder that models/demo/make trained

The tests hold what the program carries, quantised to Q8_0, to them. The tokens are a task's prompt
and its solution, encoded by transformers' own tokenizer; the logits are those of the last KEPT.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

TEXT = """You are an expert Python programmer, and here is your task: Write a function to count the vowels \
of a text. Your code should pass these tests:

assert count_vowels("thermocline") == 4
[BEGIN]
def count_vowels(text):
    return sum(1 for c in text if c in "aeiou")
[DONE]"""
KEPT = 40  # last tokens whose logits are stored


def main():
    folder = Path(sys.argv[1])
    out = Path(sys.argv[2] if len(sys.argv) > 2 else Path(__file__).parent / "demo_logits")
    out.mkdir(exist_ok=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokens = tokenizer(TEXT).input_ids
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].numpy().astype("<f4")
    (out / "text.txt").write_text(TEXT)
    (out / "tokens.json").write_text(json.dumps(tokens) + "\n")
    np.save(out / "logits.npy", logits[-KEPT:])
    print(json.dumps({"tokens": len(tokens), "torch": torch.__version__,
                      "transformers": transformers.__version__, "numpy": np.__version__}))


if __name__ == "__main__":
    main()
