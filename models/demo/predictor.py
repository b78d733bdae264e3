"""Trains the demo model's activation predictor, as PowerInfer has one, and stores it with the model.

usage: predictor.py FOLDER      reads FOLDER/model, train.npy, held-out.npy; writes predictor.csv, adds
                                model.layers.N.mlp.predictor.fc{1,2}.weight to FOLDER/model

Of each layer relu(x fc1^T) fc2^T scores the FFN's neurons: fc1 (RANK, model_dim), fc2 (ffn_dim,
RANK); x is the residual stream behind attention, not normalised, which PowerInfer feeds its LLaMA
predictors too. A neuron whose score reaches THRESHOLD is predicted active.
"""
import csv
import json
import pathlib
import sys

import numpy
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

RANK = 64
CONTEXT = 512
SEEN_WINDOWS = 240  # of the training text, 123,000 tokens
STEPS, BATCH = 1000, 1024  # tokens
LEARNING_RATE = 2e-3
ACTIVE_WEIGHT = 3.0  # a neuron that is missed costs more than one that is computed for nothing
THRESHOLD = 0.0  # of the score: PowerInfer's default, even odds
SEED = 2
HELD_OUT_WINDOWS = 64


class Predictors(torch.nn.Module):
    """One for each layer, side by side: (layers, out, in).

    They begin as what 32 directions can say of the gate itself, since relu(a) - relu(-a) = a; the
    scale of a token, which the FFN's norm takes away, changes no sign."""

    def __init__(self, model, spread):
        super().__init__()
        first, second = [], []
        for layer, scale in zip(model.model.layers, spread):
            gate = layer.mlp.gate_proj.weight * layer.post_attention_layernorm.weight * scale
            u, s, v = torch.linalg.svd(gate.detach(), full_matrices=False)
            half = RANK // 2
            first.append(torch.cat([v[:half], -v[:half]]))
            second.append(torch.cat([u[:, :half] * s[:half], -u[:, :half] * s[:half]], 1))
        self.fc1 = torch.nn.Parameter(torch.stack(first))
        self.fc2 = torch.nn.Parameter(torch.stack(second) / torch.stack(second).std())

    def forward(self, x):
        """(layers, tokens, model_dim) to scores (layers, tokens, ffn_dim)."""
        return torch.relu(x @ self.fc1.mT) @ self.fc2.mT


class Watch:
    """What a forward pass shows of each layer: the FFN's input and which neurons fired."""

    def __init__(self, model):
        self.model, self.inputs, self.active = model, [], []
        for layer in model.model.layers:
            layer.post_attention_layernorm.register_forward_pre_hook(
                lambda _, args: self.inputs.append(args[0].detach().flatten(0, 1)))
            layer.mlp.gate_proj.register_forward_hook(
                lambda _, __, gate: self.active.append((gate.detach() > 0).flatten(0, 1)))

    @torch.no_grad()
    def see(self, ids):
        """(layers, tokens, model_dim) and (layers, tokens, ffn_dim)."""
        self.inputs.clear(), self.active.clear()
        self.model(input_ids=ids, use_cache=False)
        return torch.stack(self.inputs).float(), torch.stack(self.active)


def seen(watch, ids, device):
    """Inputs (layers, tokens, model_dim) and activity (layers, tokens, ffn_dim) of random windows."""
    starts = numpy.random.default_rng(SEED).integers(0, len(ids) - CONTEXT, SEEN_WINDOWS)
    parts = [watch.see(torch.from_numpy(ids[s:s + CONTEXT].astype(numpy.int64))[None].to(device))
             for s in starts]
    return torch.cat([x for x, _ in parts], 1), torch.cat([active for _, active in parts], 1)


def train(predictors, x, active):
    optimizer = torch.optim.Adam(predictors.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    weight = torch.tensor(ACTIVE_WEIGHT, device=x.device)
    for step in range(STEPS):
        chosen = torch.randint(0, x.shape[1], (BATCH,), device=x.device)
        scores = predictors(x[:, chosen])
        # Mean over neurons and tokens, sum over layers: each learns as if alone.
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            scores, active[:, chosen].float(), pos_weight=weight) * len(x)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == STEPS - 1:
            print(f"step {step + 1} loss {loss.item() / len(x):.4f}", flush=True)


@torch.no_grad()
def measure(watch, predictors, ids, device):
    """Rows of recall and precision by layer, over held-out text."""
    layers = predictors.fc1.shape[0]
    both, active_count, predicted_count = (torch.zeros(layers) for _ in range(3))
    tokens = 0
    for row in range(0, min(HELD_OUT_WINDOWS, len(ids) // CONTEXT)):
        window = torch.from_numpy(ids[row * CONTEXT:(row + 1) * CONTEXT].astype(numpy.int64))[None]
        x, active = watch.see(window.to(device))
        predicted = predictors(x) >= THRESHOLD
        both += (predicted & active).sum((1, 2)).cpu()
        active_count += active.sum((1, 2)).cpu()
        predicted_count += predicted.sum((1, 2)).cpu()
        tokens += active.shape[1]
    neurons = predictors.fc2.shape[1] * tokens
    return [{"layer": layer, "active": f"{active_count[layer] / neurons:.4f}",
             "predicted": f"{predicted_count[layer] / neurons:.4f}",
             "recall": f"{both[layer] / active_count[layer]:.4f}",
             "precision": f"{both[layer] / predicted_count[layer].clamp(min=1):.4f}"}
            for layer in range(layers)]


def store(folder, predictors):
    tensors = load_file(folder / "model.safetensors")
    for layer in range(predictors.fc1.shape[0]):
        for name, matrix in (("fc1", predictors.fc1), ("fc2", predictors.fc2)):
            key = f"model.layers.{layer}.mlp.predictor.{name}.weight"
            tensors[key] = matrix[layer].detach().cpu().contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["thermocline"] = {"provenance": "trained-demo", "predictor_threshold": THRESHOLD}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main():
    folder = pathlib.Path(sys.argv[1])
    torch.manual_seed(SEED)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = LlamaForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).to(device).eval()
    watch = Watch(model)
    x, active = seen(watch, numpy.load(folder / "train.npy"), device)
    spread = x.std(1)  # (layers, model_dim): the residual stream is not normalised
    predictors = Predictors(model, spread).to(device)
    train(predictors, x / spread[:, None], active)
    with torch.no_grad():
        predictors.fc1 /= spread[:, None]
    rows = measure(watch, predictors, numpy.load(folder / "held-out.npy"), device)
    with open(folder / "predictor.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(*(f"{key} {value}" for key, value in row.items()))
    store(folder / "model", predictors)


if __name__ == "__main__":
    main()
