"""Logits of small random LLaMA models, by Hugging Face transformers.

Weights and tokens come from a counter, so that tests/runtime/random_weights.h makes the same ones
and only logits are committed. usage: python make_llama_logits.py [FOLDER]
Needs torch, transformers and numpy; the versions that made the committed files are in README.md.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

TOKEN_COUNT = 40

# One row is one model; keys as in LlamaConfig.
MODELS = {
    "silu_grouped": dict(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, vocab_size=96, hidden_act="silu", rms_norm_eps=1e-5,
        rope_theta=10000.0, tie_word_embeddings=False),
    "relu_tied": dict(
        hidden_size=48, intermediate_size=88, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=3, head_dim=8, vocab_size=80, hidden_act="relu", rms_norm_eps=1e-6,
        rope_theta=500000.0, tie_word_embeddings=True),
    "silu_wide_heads": dict(
        hidden_size=64, intermediate_size=120, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, head_dim=24, vocab_size=72, hidden_act="silu", rms_norm_eps=1e-5,
        rope_theta=10000.0, tie_word_embeddings=False),
}

# The order of models/weights.h: Matrix, then NormVector.
(TOKEN_EMBEDDING, HEAD, Q, K, V, O, GATE, UP, DOWN_T, ATTENTION_NORM, FFN_NORM,
 OUTPUT_NORM) = range(12)


def uniform(tensor, layer, count):
    """count values in [-1, 1), multiples of 2^-23: SplitMix64 of (tensor, layer, index)."""
    with np.errstate(over="ignore"):
        x = np.arange(count, dtype=np.uint64) + np.uint64((tensor << 48) + (layer << 40))
        x = x * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return ((x >> np.uint64(40)).astype(np.float64) - 2**23) / 2**23


def matrix(tensor, layer, rows, cols):
    scale = 1.0 if tensor == TOKEN_EMBEDDING else 0.25
    values = (scale * uniform(tensor, layer, rows * cols)).reshape(rows, cols)
    return torch.tensor(values, dtype=torch.float32)


def norm(tensor, layer, dim):
    return torch.tensor(1 + 0.25 * uniform(tensor, layer, dim), dtype=torch.float32)


def half_split(w, head_count):
    """Rows of q or k from interleaved rotary pairs (2i, 2i+1) to Hugging Face's (i, i + half)."""
    rows, cols = w.shape
    pairs = w.reshape(head_count, rows // head_count // 2, 2, cols)
    return pairs.transpose(1, 2).reshape(rows, cols)


def state_of(c):
    dim, ffn = c["hidden_size"], c["intermediate_size"]
    heads, kv_heads, head_dim = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    embedding = matrix(TOKEN_EMBEDDING, 0, c["vocab_size"], dim)
    state = {"model.embed_tokens.weight": embedding,
             "model.norm.weight": norm(OUTPUT_NORM, 0, dim),
             "lm_head.weight": embedding if c["tie_word_embeddings"]
             else matrix(HEAD, 0, c["vocab_size"], dim)}
    for layer in range(c["num_hidden_layers"]):
        def put(name, value):
            state[f"model.layers.{layer}.{name}.weight"] = value
        put("input_layernorm", norm(ATTENTION_NORM, layer, dim))
        put("post_attention_layernorm", norm(FFN_NORM, layer, dim))
        put("self_attn.q_proj", half_split(matrix(Q, layer, heads * head_dim, dim), heads))
        put("self_attn.k_proj", half_split(matrix(K, layer, kv_heads * head_dim, dim), kv_heads))
        put("self_attn.v_proj", matrix(V, layer, kv_heads * head_dim, dim))
        put("self_attn.o_proj", matrix(O, layer, dim, heads * head_dim))
        put("mlp.gate_proj", matrix(GATE, layer, ffn, dim))
        put("mlp.up_proj", matrix(UP, layer, ffn, dim))
        put("mlp.down_proj", matrix(DOWN_T, layer, ffn, dim).T.contiguous())
    return state


def config_of(c):
    rope = {"rope_type": "default", "rope_theta": c["rope_theta"]}
    rest = {key: value for key, value in c.items() if key != "rope_theta"}
    return transformers.LlamaConfig(
        **rest, rope_parameters=rope, rope_theta=c["rope_theta"], max_position_embeddings=64,
        attention_bias=False, mlp_bias=False, attn_implementation="eager")


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "llama_logits")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, c in MODELS.items():
        model = transformers.LlamaForCausalLM(config_of(c)).to(torch.float32).eval()
        model.load_state_dict(state_of(c), strict=True)
        assert model.model.rotary_emb.inv_freq[1].item() == np.float32(
            c["rope_theta"] ** (-2 / c["head_dim"])), "rope_theta did not arrive"
        tokens = [(7 + 13 * i * i) % c["vocab_size"] for i in range(TOKEN_COUNT)]
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].numpy().astype("<f4")
        np.save(folder / f"{name}.npy", logits)
        print(name, logits.shape, "abs max", float(np.abs(logits).max()))
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__,
                      "numpy": np.__version__}))


if __name__ == "__main__":
    main()
