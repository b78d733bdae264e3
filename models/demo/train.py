"""Trains the demo model: LLaMA as transformers has it, with a ReLU-gated FFN that is made sparse.

usage: train.py FOLDER      reads train.npy, held-out.npy, tokenizer*.json; writes log.csv and
                            FOLDER/model, as save_pretrained does; goes on from checkpoint.pt

Sparsity is ProSparse's (arXiv 2402.13516): an L1 term on the gated activation, relu(gate) * up,
whose factor rises during training. ProSparse raises it in stages set by hand; here its rise is
steered: the factor follows what the layers do, so that the mean activity falls along a sine from
what the first steps left it at to ACTIVITY. Which layers and neurons fall silent the loss decides.
"""
import csv
import math
import os
import pathlib
import shutil
import sys
import time

import numpy
import torch
from transformers import LlamaConfig, LlamaForCausalLM

SEED = 1
STEPS = 3200
TOKENS_A_STEP = 8192
CONTEXT = 1024
SHORT_CONTEXT, SHORT_SHARE = 512, 0.8  # of the steps: attention is half of the time at 1024
LEARNING_RATE = 0.03  # of Muon, for matrices
LEARNING_RATE_ADAM = 0.004  # of AdamW, for embedding and norms
WARMUP_STEPS = 40
DECAY_SHARE = 0.6  # of the steps: the rate falls to nothing at the end
ACTIVITY = 0.14  # of the FFN's neurons, at the end
SPARSE_FROM, SPARSE_TO = 390, 1950  # steps between which activity falls
L1_FIRST = 0.1  # factor of the sum over layers of the mean |gated activation|
L1_ANSWER, L1_DRIFT = 8.0, 0.05  # a relative error e multiplies it by exp(8 e), and by exp(0.05 e) a step
LOG_EVERY, EVALUATE_EVERY, SAVE_EVERY = 10, 200, 100

CONFIG = dict(vocab_size=2048, hidden_size=256, intermediate_size=1024, num_hidden_layers=8,
              num_attention_heads=8, num_key_value_heads=4, hidden_act="relu",
              max_position_embeddings=CONTEXT, rms_norm_eps=1e-5, rope_theta=10000.0,
              tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, initializer_range=0.03)


class Sparsity:
    """What the FFNs do in a forward pass: L1 of the gated activation, share of it that is not 0."""

    def __init__(self, model):
        self.l1, self.activity = [], []
        for layer in model.model.layers:
            layer.mlp.down_proj.register_forward_pre_hook(self._see)

    def _see(self, _, inputs):
        gated = inputs[0].float()
        self.l1.append(gated.abs().mean())
        self.activity.append((gated.detach() != 0).float().mean())

    def take(self):
        """(layers,) each; forgets them."""
        l1, activity = torch.stack(self.l1), torch.stack(self.activity)
        self.l1.clear(), self.activity.clear()
        return l1, activity


class Steering:
    """The factor of the L1 term, moved step by step towards the activity that is due."""

    def __init__(self):
        self.base, self.factor, self.start = L1_FIRST, 0.0, None

    def due(self, step):
        share = min((step - SPARSE_FROM) / (SPARSE_TO - SPARSE_FROM), 1.0)
        return self.start + (ACTIVITY - self.start) * math.sin(share * math.pi / 2)

    def move(self, step, activity):
        if step < SPARSE_FROM:
            return
        if self.start is None:
            self.start = activity
        error = min(max(activity / self.due(step) - 1.0, -0.5), 0.5)
        self.base *= math.exp(L1_DRIFT * error)
        self.factor = self.base * math.exp(L1_ANSWER * error)


class Windows:
    """Stretches of the text: all of it in random order, then again, shifted."""

    def __init__(self, ids):
        self.ids, self.order, self.context = ids, [], 0
        self.random = numpy.random.default_rng(SEED)

    def take(self, context):
        """(sequences, context + 1) ids."""
        if context != self.context:
            self.order, self.context = [], context
        rows = []
        for _ in range(TOKENS_A_STEP // context):
            if not self.order:
                starts = numpy.arange(self.random.integers(0, context), len(self.ids) - context - 1, context)
                self.order = list(self.random.permutation(starts))
            begin = self.order.pop()
            rows.append(self.ids[begin:begin + context + 1])
        return torch.from_numpy(numpy.stack(rows).astype(numpy.int64))


def loss_of(model, batch):
    """Mean loss in nats of each token given those before it."""
    with torch.autocast(batch.device.type, dtype=torch.bfloat16):
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model, ids):
    """Mean loss in nats over the tokens, in windows of CONTEXT side by side."""
    count = (len(ids) - 1) // CONTEXT
    device = next(model.parameters()).device
    total = 0.0
    for row in range(count):
        window = ids[row * CONTEXT:(row + 1) * CONTEXT + 1].astype(numpy.int64)
        total += loss_of(model, torch.from_numpy(window)[None].to(device)).item()
    return total / count


def optimizers_of(model):
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in named if p.ndim != 2 or "embed" in name]
    return (torch.optim.Muon(matrices, lr=LEARNING_RATE, weight_decay=0.05),
            torch.optim.AdamW(rest, lr=LEARNING_RATE_ADAM, betas=(0.9, 0.95), weight_decay=0.0))


def set_rate(optimizers, step, steps):
    share = min((step + 1) / WARMUP_STEPS, 1.0) * min((1.0 - step / steps) / DECAY_SHARE, 1.0)
    for optimizer, full in zip(optimizers, (LEARNING_RATE, LEARNING_RATE_ADAM)):
        for group in optimizer.param_groups:
            group["lr"] = full * share


class Training:
    def __init__(self, folder, steps):
        torch.manual_seed(SEED)
        self.folder, self.steps, self.step, self.seconds = folder, steps, 0, 0.0
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = LlamaForCausalLM(LlamaConfig(**CONFIG)).to(self.device)
        self.sparsity = Sparsity(self.model)
        self.optimizers = optimizers_of(self.model)
        self.steering = Steering()
        self.windows = Windows(numpy.load(folder / "train.npy"))
        self.held_out = numpy.load(folder / "held-out.npy")
        self.compiled = torch.compile(self.model, dynamic=False)

    def advance(self):
        """One step; returns (loss, activity of each layer)."""
        begin = time.time()
        done = self.step / self.steps
        batch = self.windows.take(SHORT_CONTEXT if done < SHORT_SHARE else CONTEXT)
        loss = loss_of(self.compiled, batch.to(self.device))
        l1, activity = self.sparsity.take()
        (loss + self.steering.factor * l1.sum()).backward()
        set_rate(self.optimizers, self.step, self.steps)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.steering.move(self.step, activity.mean().item())
        self.step += 1
        self.seconds += time.time() - begin
        return loss.item(), activity.tolist()

    def evaluate(self):
        loss = held_out_loss(self.model, self.held_out)
        self.sparsity.take()
        return loss

    def save(self):
        state = {"step": self.step, "seconds": self.seconds, "model": self.model.state_dict(),
                 "optimizers": [o.state_dict() for o in self.optimizers],
                 "steering": vars(self.steering),
                 "windows": {k: v for k, v in vars(self.windows).items() if k != "ids"}}
        torch.save(state, self.folder / "checkpoint.pt.new")
        os.replace(self.folder / "checkpoint.pt.new", self.folder / "checkpoint.pt")

    def resume(self):
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=False)
        self.step, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        vars(self.steering).update(state["steering"])
        vars(self.windows).update(state["windows"])


def cut_log(path, step):
    """Leaves out what is about to be trained again."""
    if path.exists():
        head, *rows = path.read_text().splitlines()
        kept = [row for row in rows if int(row.split(",")[0]) <= step]
        path.write_text("\n".join([head, *kept]) + "\n")


def write_row(path, row):
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, row.keys())
        if new:
            writer.writeheader()
        writer.writerow(row)


def main():
    folder = pathlib.Path(sys.argv[1])
    training = Training(folder, int(os.environ.get("STEPS", STEPS)))
    training.resume()
    cut_log(folder / "log.csv", training.step)
    while training.step < training.steps:
        loss, activity = training.advance()
        last = training.step == training.steps
        if training.step % LOG_EVERY and not last:
            continue
        evaluated = training.step % EVALUATE_EVERY == 0 or last
        row = {"step": training.step, "tokens": training.step * TOKENS_A_STEP,
               "minutes": round(training.seconds / 60, 2), "loss": round(loss, 4),
               "held_out_loss": round(training.evaluate(), 4) if evaluated else "",
               "l1_factor": f"{training.steering.factor:.3g}",
               "activity": round(sum(activity) / len(activity), 4)}
        row |= {f"activity_{layer}": round(share, 4) for layer, share in enumerate(activity)}
        write_row(folder / "log.csv", row)
        print(*(f"{key} {value}" for key, value in list(row.items())[:7]), flush=True)
        if training.step % SAVE_EVERY == 0 or last:
            training.save()
    training.model.save_pretrained(folder / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, folder / "model" / name)


if __name__ == "__main__":
    main()
