"""Tiny LLaMA models as Hugging Face stores them, and their logits, by transformers.

Writes FOLDER/NAME/{config.json, *.safetensors, model.safetensors.index.json} as save_pretrained
does, and logits: f32.npy from the stored weights in f32; native.npy computed in the stored type
where that is another.
Also FOLDER/rope_frequencies.json: inverse frequencies of the scaling rules that we read.
usage: python make_hf_models.py [FOLDER]
Needs torch, transformers and numpy; the versions that made the committed files are in README.md.
"""
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

TOKEN_COUNT = 40

COMMON = dict(
    hidden_size=32, intermediate_size=36, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, vocab_size=40, hidden_act="silu", rms_norm_eps=1e-5,
    max_position_embeddings=256, tie_word_embeddings=False, attention_bias=False, mlp_bias=False,
    bos_token_id=1, eos_token_id=2)
DEFAULT_ROPE = dict(rope_type="default", rope_theta=10000.0)
LLAMA3_ROPE = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0,
                   high_freq_factor=4.0, original_max_position_embeddings=64)
LINEAR_ROPE = dict(rope_type="linear", rope_theta=10000.0, factor=4.0)

# name: (stored type, shards, changes to COMMON, rope)
MODELS = {
    "silu_f32": (torch.float32, 1, {}, DEFAULT_ROPE),
    "relu_tied_f32_3_shards": (torch.float32, 3, dict(
        hidden_act="relu", tie_word_embeddings=True, rms_norm_eps=1e-6), LINEAR_ROPE),
    "silu_llama3_bf16": (torch.bfloat16, 1, dict(num_key_value_heads=1), LLAMA3_ROPE),
    "relu_f16_3_shards": (torch.float16, 3, dict(
        hidden_act="relu", num_key_value_heads=4, head_dim=12), DEFAULT_ROPE),
}

# name: (rope, head_dim, max_position_embeddings): real models' numbers.
ROPES = {
    "llama_3_1_8b": (dict(LLAMA3_ROPE, original_max_position_embeddings=8192), 128, 131072),
    "llama_3_2_1b": (dict(LLAMA3_ROPE, factor=32.0, original_max_position_embeddings=8192), 64,
                     131072),
    "small": (LLAMA3_ROPE, 8, 256),
    "linear": (LINEAR_ROPE, 16, 256),
}


def config_of(changes, rope):
    return transformers.LlamaConfig(**{**COMMON, **changes}, rope_parameters=dict(rope),
                                    attn_implementation="eager")


def randomize(model):
    """Weights whose logits differ clearly: transformers' own start is nearly silent."""
    generator = torch.Generator().manual_seed(20261125)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            uniform = torch.rand(weight.shape, generator=generator) * 2 - 1
            if weight.dim() == 1:
                weight.copy_(1 + 0.25 * uniform)
            else:
                weight.copy_((1.0 if "embed_tokens" in name else 0.3) * uniform)


def logits_of(model, vocab_size):
    tokens = [(7 + 13 * i * i) % vocab_size for i in range(TOKEN_COUNT)]
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].to(torch.float32).numpy().astype("<f4")


def make_model(folder, dtype, shard_count, changes, rope):
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(config_of(changes, rope)).eval()
    randomize(model)
    model = model.to(dtype)
    byte_count = sum(p.numel() * p.element_size() for p in model.parameters())
    # Shards are filled in order until one more tensor would pass the limit.
    limit = byte_count if shard_count == 1 else int(byte_count / (shard_count - 0.5))
    model.save_pretrained(folder, max_shard_size=limit)
    (folder / "generation_config.json").unlink(missing_ok=True)
    found = len(list(folder.glob("*.safetensors")))
    assert found == shard_count, f"{folder}: {found} shards"
    # What was written is what is run.
    runs = {"f32": torch.float32}
    if dtype != torch.float32:
        runs["native"] = dtype
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)
    for name, run_dtype in runs.items():
        again = transformers.LlamaForCausalLM.from_pretrained(
            folder, dtype=run_dtype, attn_implementation="eager").eval()
        logits = logits_of(again, COMMON["vocab_size"])
        np.save(folder / f"{name}.npy", logits)
        print(folder.name, name, logits.shape, "abs max", float(np.abs(logits).max()))


def frequencies_of(rope, head_dim, context):
    config = transformers.LlamaConfig(**{**COMMON, "head_dim": head_dim,
                                         "max_position_embeddings": context},
                                      rope_parameters=dict(rope))
    frequencies, _ = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, "cpu")
    return dict(rope=rope, head_dim=head_dim, frequencies=frequencies.tolist())


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "hf_models")
    torch.set_num_threads(1)
    for name, (dtype, shards, changes, rope) in MODELS.items():
        make_model(folder / name, dtype, shards, changes, rope)
    ropes = {name: frequencies_of(*rope) for name, rope in ROPES.items()}
    (folder / "rope_frequencies.json").write_text(json.dumps(ropes, indent=1) + "\n")
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__,
                      "numpy": np.__version__}))


if __name__ == "__main__":
    main()
