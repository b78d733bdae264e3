"""What the demo model that the program carries does: the figures of its card.

usage: measure.py WORK PROGRAM [--mbpp mbpp.jsonl]      writes WORK/figures.json and the card's last part

Three kinds of text, each a list of tasks in MBPP's format that PROGRAM feeds to preset:demo, solution
included: tasks of the training split, tasks that were held out, and MBPP's own (without --mbpp those
that the program carries, of the same format). Of each: statistics of the recorded trace
(`thermocline trace stat`), the loss of the shipped model and that of the model as trained, by
transformers.
"""
import argparse
import ast
import csv
import json
import pathlib
import re
import subprocess

import numpy
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from corpus import PROMPT

TASKS = 60
TASK_FORM = re.compile(re.sub(r"\\\{\w+\\\}", "(.*?)", re.escape(PROMPT)), re.S)  # PROMPT read backwards
CONTEXT = 1024
POLICIES = "fixed,ewma:halflife=8,ewma:halflife=32,ewma:halflife=128,oracle-static"
MARK = "## Figures"  # what follows it in the card is written here


def task_files(work, mbpp):
    """Name of each text: arguments of `run` that feed it."""
    with open(work / "documents.jsonl") as file:
        documents = [json.loads(line) for line in file]
    texts = {}
    for name, split in (("training tasks", "train"), ("held-out tasks", "held-out")):
        tasks = [d["text"] for d in documents if d["kind"] == "task" and d["split"] == split]
        tasks = tasks[::max(len(tasks) // TASKS, 1)][:TASKS]
        path = work / f"{split}-tasks.jsonl"
        with open(path, "w") as file:
            for i, task in enumerate(tasks):
                text, tests, code = TASK_FORM.fullmatch(task).groups()
                file.write(json.dumps({"task_id": 601 + i, "text": text, "code": code,
                                       "test_list": tests.split("\n"), "test_setup_code": "",
                                       "challenge_test_list": []}) + "\n")
        texts[name] = ["--prompts", str(path), "--split", "all"]
    if mbpp:
        texts["MBPP test"] = ["--prompts", mbpp, "--split", "test", "--limit", str(TASKS)]
    else:
        texts["built-in tasks"] = ["--split", "all"]
    return texts


def thermocline(program, *arguments):
    return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout


def prompts_of(arguments):
    """The texts that `run` feeds: prompt and solution in one."""
    path = arguments[arguments.index("--prompts") + 1] if "--prompts" in arguments else None
    if path is None:
        return None
    limit = int(arguments[arguments.index("--limit") + 1]) if "--limit" in arguments else None
    wanted = range(11, 511) if "test" in arguments else range(1, 975)
    texts = []
    for line in pathlib.Path(path).read_text().splitlines():
        task = json.loads(line)
        if task["task_id"] in wanted:
            code = task["code"].replace("\r\n", "\n")
            texts.append(PROMPT.format(text=task["text"], tests="\n".join(task["test_list"]), code=code))
    return texts[:limit]


def losses(logits, tokens_of_texts):
    """Mean loss in nats of each next token, from rows of logits one text after the other."""
    total, count, begin = 0.0, 0, 0
    for tokens in tokens_of_texts:
        rows = torch.from_numpy(logits[begin:begin + len(tokens)]).float()
        begin += len(tokens)
        total += torch.nn.functional.cross_entropy(
            rows[:-1], torch.tensor(tokens[1:]), reduction="sum").item()
        count += len(tokens) - 1
    assert begin == len(logits), f"{begin} tokens here, {len(logits)} rows of logits"
    return total / count


@torch.no_grad()
def compared_losses(program, work, arguments):
    """(loss of the shipped model, loss as trained, share of steps with the same first choice)."""
    texts = prompts_of(arguments)
    if texts is None:
        return {}
    tokenizer = AutoTokenizer.from_pretrained(work / "model")
    model = LlamaForCausalLM.from_pretrained(work / "model", dtype=torch.float32).eval()
    tokens = [tokenizer(text).input_ids for text in texts]
    thermocline(program, "run", *arguments, "--teacher-forced", "--local-ranks", "1",
                "--logits", str(work / "logits.npy"))
    shipped = numpy.load(work / "logits.npy")
    trained = numpy.concatenate([model(torch.tensor([t])).logits[0].numpy() for t in tokens])
    same = float((shipped.argmax(1) == trained.argmax(1)).mean())
    return {"loss_shipped": losses(shipped, tokens), "loss_trained": losses(trained, tokens),
            "same_first_choice": same,
            "largest_difference": float(abs(shipped - trained).max() / abs(trained).max())}


def statistics(program, work, arguments):
    trace = str(work / "measured.h5")
    thermocline(program, "run", *arguments, "--teacher-forced", "--local-ranks", "1",
                "--record", trace)
    thermocline(program, "trace", "stat", trace, "--json", str(work / "stat.json"))
    return json.loads((work / "stat.json").read_text())["rows"]


def policy_rows(program, work, mbpp):
    """Hit ratios of fixed against dynamic on test tasks, with a profile of train tasks."""
    def record(split, tasks, path):
        prompts = ["--prompts", mbpp, "--limit", str(tasks)] if mbpp else []
        thermocline(program, "run", *prompts, "--split", split, "--teacher-forced",
                    "--local-ranks", "1", "--record", path)
    profile, trace = str(work / "profile.h5"), str(work / "test.h5")
    record("train", 200, profile)
    record("test", 200, trace)
    thermocline(program, "replay", trace, "--profile", profile, "--policy", POLICIES, "--budget",
                "10%..50%/10%", "--migration", "1MiB", "--json", str(work / "replay.json"))
    rows = json.loads((work / "replay.json").read_text())["rows"]
    return [row for row in rows if row["kind"] == "policy"]


def parses(code):
    try:
        ast.parse(code)
    except (SyntaxError, ValueError):
        return False
    return True


def completions(program, work):
    """What it writes for the tasks that the program carries."""
    thermocline(program, "run", "--split", "all", "--max-new-tokens", "200", "--local-ranks", "1",
                "--json", str(work / "written.json"))
    rows = json.loads((work / "written.json").read_text())["rows"]
    texts = [text.split("[DONE]")[0] for row in rows if row["kind"] == "run" for text in row["text"]]
    return {"tasks": len(texts), "begin_with_def": sum(t.startswith("def ") for t in texts),
            "parse": sum(parses(t) for t in texts), "texts": texts}


def window_losses(model, ids):
    """Loss of each token but the first, nats: windows of CONTEXT that overlap by half, so that every
    token behind the first window has at least CONTEXT / 2 before it."""
    found = []
    for begin in range(0, max(len(ids) - CONTEXT // 2 - 1, 1), CONTEXT // 2):
        window = torch.from_numpy(ids[begin:begin + CONTEXT + 1])[None]
        logits = model(window[:, :-1]).logits[0]
        loss = torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="none")
        found.append(loss[0 if begin == 0 else CONTEXT // 2:])
    return torch.cat(found)


@torch.no_grad()
def held_out_losses(work):
    """Of each kind of held-out text, in nats per token: the model as trained and the 5-gram model."""
    model = LlamaForCausalLM.from_pretrained(work / "model", dtype=torch.float32).eval()
    ids = numpy.load(work / "held-out.npy").astype(numpy.int64)
    ngram = json.loads((work / "ngram.json").read_text())
    found, begin, parts = {}, 0, []
    for part, size in json.loads((work / "held-out-parts.json").read_text()).items():
        parts.append(window_losses(model, ids[begin:begin + size]))
        assert len(parts[-1]) == size - 1
        found[part] = {"tokens": size - 1, "model": parts[-1].mean().item(), "5-gram": ngram[part]}
        begin += size
    whole = torch.cat(parts)
    found["all"] = {"tokens": len(whole), "model": whole.mean().item(), "5-gram": ngram["all"]}
    return found


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def shares(values):
    return ["" if value is None else f"{100 * value:.1f} %" for value in values]


# Figure of `trace stat`, what it says, what was published of it (reference: `trace stat` names the sources).
LINES = (
    ("activity", "active at a step", "ProSparse 10.7-12.1 %, ReluLLaMA 28.4-33 %"),
    ("share_80", "neurons that give 80 % of the firings", "LLaMA2(ReGLU)-70B 26 %, of a block 43 % (PowerInfer)"),
    ("task_share_80", "the same within a task", ""),
    ("overlap_1", "active neurons that are active at the next step", "40-46 % (DynamicInfer), over 90 % (Hermes)"),
    ("overlap_10", "... 10 steps later", "70 % (Hermes)"),
    ("overlap_25", "... 25 steps later", "70 % (Hermes)"),
    ("union_5", "active in at least one of 5 steps", "OPT-6.7B 24 % (LLM in a Flash)"),
    ("fresh_5", "active and not so in the 5 steps before", "OPT-6.7B 2.4 % (LLM in a Flash)"),
    ("task_overlap", "top fifth of a task that is so in the next task", "over 90 % (PowerInfer), 60-64 % (DynamicInfer)"),
    ("half_overlap", "top fifth of its even steps: so in its odd steps", ""),
    ("half_next_overlap", "... so in the next task's odd steps", ""),
    ("own_coverage", "firings of a task in its own top fifth", ""),
    ("past_coverage", "... in the top fifth of all earlier tasks", ""),
)


def activity_tables(texts):
    def rows_of(name, scope):
        return [r for r in texts[name]["statistics"] if r["kind"] == "activity" and r["scope"] == scope]
    names = list(texts)
    wholes = [rows_of(name, "model")[0] for name in names]
    text = table(["share, all layers", *names, "published"],
                 [[what, *shares([whole[key] for whole in wholes]), published]
                  for key, what, published in LINES])
    text += "\nSteps and tasks: " + "; ".join(
        f"{name} {whole['step_count']:,} of {whole['task_count']}" for name, whole in zip(names, wholes))
    last = rows_of(names[-1], "layer")
    text += f".\n\nLayer by layer, on {names[-1]}:\n\n"
    keys = ("activity", "share_80", "overlap_1", "task_overlap", "own_coverage", "past_coverage")
    return text + table(["layer", "active", "80 %", "next step", "next task", "own fifth", "past fifth"],
                        [[str(row["layer"]), *shares([row[key] for key in keys])] for row in last])


def policy_table(rows):
    def name(row):
        halflife = re.search(r"halflife=(\d+)", row["parameters"])
        return f"{row['policy']}, half-life {halflife[1]}" if halflife else row["policy"]
    names = list(dict.fromkeys(name(row) for row in rows))
    budgets = list(dict.fromkeys(row["budget_percent"] for row in rows))
    found = {(name(row), row["budget_percent"]): row["hit_ratio"] for row in rows}
    return table(["budget", *names], [[f"{budget:.0f} %", *shares([found[n, budget] for n in names])]
                                      for budget in budgets])


def figures_text(figures, predictors):
    losses_of = figures["held_out"]
    text = "Held-out text, nats per token (each token sees at least 512 before it, the 5-gram model its four):\n\n" + table(
        ["text", "tokens", "model", "5-gram", "lower by"],
        [[part, f"{row['tokens']:,}", f"{row['model']:.3f}", f"{row['5-gram']:.3f}",
          f"{100 * (1 - row['model'] / row['5-gram']):.1f} %"] for part, row in losses_of.items()])
    compared = {name: found for name, found in figures["texts"].items() if "loss_shipped" in found}
    text += "\nAs shipped (Q8_0, thermocline) and as trained (f32, transformers):\n\n" + table(
        ["text", "loss shipped", "loss trained", "same first choice", "largest difference of a logit"],
        [[name, f"{found['loss_shipped']:.4f}", f"{found['loss_trained']:.4f}",
          f"{100 * found['same_first_choice']:.1f} %", f"{100 * found['largest_difference']:.2f} % of the largest"]
         for name, found in compared.items()])
    written = figures["written"]
    text += (f"\nOf {written['tasks']} built-in tasks, {written['begin_with_def']} answers begin with `def`, "
             f"{written['parse']} are whole Python that parses (200 tokens at most, greedy).\n")
    text += "\n### What fires\n\n" + activity_tables(figures["texts"])
    text += (f"\n### Fixed and dynamic\n\nHits among the neurons that fired, {figures['policies_on']}, profile from "
             "its train split; at most 1 MiB moves per step:\n\n" + policy_table(figures["policies"]))
    return text + "\n### Predictors\n\nOn held-out text, score at least 0:\n\n" + table(
        ["layer", "active", "predicted", "recall", "precision"],
        [[row["layer"], *shares([float(row[k]) for k in ("active", "predicted", "recall", "precision")])]
         for row in predictors])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("program")
    parser.add_argument("--mbpp")
    arguments = parser.parse_args()
    work, program = arguments.work, str(pathlib.Path(arguments.program).resolve())
    figures = {"texts": {}}
    for name, run in task_files(work, arguments.mbpp).items():
        figures["texts"][name] = {"statistics": statistics(program, work, run),
                                  **compared_losses(program, work, run)}
    figures["written"] = completions(program, work)
    figures["held_out"] = held_out_losses(work)
    figures["policies"] = policy_rows(program, work, arguments.mbpp)
    figures["policies_on"] = "200 tasks of MBPP's test split" if arguments.mbpp else "the built-in tasks"
    (work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    with open(work / "predictor.csv") as file:
        text = figures_text(figures, list(csv.DictReader(file)))
    card = pathlib.Path(__file__).parent / "README.md"
    kept = card.read_text().split(MARK)[0]
    card.write_text(kept + MARK + "\n\n" + text)


if __name__ == "__main__":
    main()
