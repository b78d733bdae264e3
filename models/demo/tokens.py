"""The demo model's tokens: trains a byte-level BPE on the documents and encodes both splits.

usage: tokens.py FOLDER      reads documents.jsonl; writes tokenizer.json, tokenizer_config.json,
                             train.npy, held-out.npy (uint16) and held-out-parts.json

The tokenizer is Llama-3's (tokenizer.ggml.pre "llama-bpe") with 2,048 tokens. Every document is
<|begin_of_text|> … <|end_of_text|>; tasks of the training split come TASK_REPEATS times.
"""
import json
import pathlib
import random
import sys

import numpy
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

VOCABULARY = 2048
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
TASK_REPEATS = 3  # a tenth of what is read, so that the prompt's format is well known
SEED = 1
# Llama-3's: words with the character before them, digits in threes, line breaks apart.
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def trained_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[BOS, EOS], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))])
    return tokenizer


def encoded(tokenizer, documents):
    """One run of ids: BOS, document, EOS, BOS, …"""
    eos = tokenizer.token_to_id(EOS)
    encodings = tokenizer.encode_batch([document["text"] for document in documents])
    ids = [numpy.array(encoding.ids + [eos], dtype=numpy.uint16) for encoding in encodings]
    return numpy.concatenate(ids)


def main():
    folder = pathlib.Path(sys.argv[1])
    with open(folder / "documents.jsonl") as file:
        documents = [json.loads(line) for line in file]
    train = [d for d in documents if d["split"] == "train"]
    held_out = [d for d in documents if d["split"] == "held-out"]
    tokenizer = trained_tokenizer(d["text"] for d in train)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS,
         "add_bos_token": True}, indent=2) + "\n")
    train += [d for d in train if d["kind"] == "task"] * (TASK_REPEATS - 1)
    random.Random(SEED).shuffle(train)
    ids = encoded(tokenizer, train)
    numpy.save(folder / "train.npy", ids)
    characters = sum(len(d["text"]) for d in train)
    print(f"train: {len(ids):,} tokens, {characters / len(ids):.2f} characters a token")
    parts = {kind: encoded(tokenizer, [d for d in held_out if d["kind"] == kind])
             for kind in ("source", "documentation", "task")}
    numpy.save(folder / "held-out.npy", numpy.concatenate(list(parts.values())))
    sizes = {kind: len(part) for kind, part in parts.items()}
    (folder / "held-out-parts.json").write_text(json.dumps(sizes) + "\n")
    print(f"held out: {sizes}")


if __name__ == "__main__":
    main()
