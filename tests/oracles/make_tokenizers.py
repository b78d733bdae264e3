"""Tokenizers by Hugging Face's library, and the ids that it gives for generated strings.

usage: python make_tokenizers.py train    small tokenizers, what strings are made of, classes, hashes
       python make_tokenizers.py encode FOLDER SEED COUNT    hashes of COUNT strings into FOLDER
       python make_tokenizers.py time TEXT TOKENIZER         MB/s on a text, one thread
Strings come from a counter and from strings.json, so that tests/models/made_strings.h makes the same
ones and only a hash of each string's ids is committed. Needs tokenizers and a Python whose
unicodedata is Unicode 14; the versions that made the committed files are in README.md.
"""
import json
import sys
import time
import unicodedata
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

HERE = Path(__file__).parent / "tokenizers"
SOURCE = Path(__file__).parent.parent.parent
MASK = 2**64 - 1

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

CODE = """def return for in if else while import from class self None True False lambda yield assert len
 range print str int list dict set sum max min sorted zip map filter append join split x y i j n nums
 result count index value key items total = == != + - * / // % ( ) [ ] { } : , . -> <= >= < > += **
 0 1 2 10 255 1000 65536 3.14 1e-5 0xff 'a' "text" '' \"\"\" # comment # @property __init__ _private
 snake_case_name camelCaseName HTTPServer2 f"{x}" r'\\d+' \\n \\t ... ~ ^ & | << >>""".split()
PROSE = """the a of to and in that it is was for on with as his they at be this from I have or by one
 had not but what all were when we there can an your which their said if do will each about how up
 out them then she many some so these would other into has more her two like him see time could no
 make than first been its who now people my made over did down only way find use may water long
 little very after words called just where most know thermocline neuron threshold hot cold memory
 function Python isn't don't WON'T We'll they've I'm he'd it's O'Neil's 'tis rock'n'roll re-enter
 na\u00efve caf\u00e9 \u00dcber stra\u00dfe \u0141\u00f3d\u017a \u010de\u0161tina \u03b1\u03b2\u03b3 \u043c\u0438\u0440 \u65e5\u672c\u8a9e \ud55c\uae00 2023 1,000 3rd $5 50% e.g. U.S.A.""".split()
MARKS = ["\n", "\r\n", "\r", "\n\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", " ", "  ", "\t", "\xa0",
         "\u1680", "\u2002", "\u200a", "\u202f", "\u205f", "\u3000", "\u180e", "\u200b", "\u200c",
         "\u200d", "\u200e", "\u200f", "\u202e", "\u2060", "\ufeff", "\ufffd", "\u00ad", "\x00", "\x7f", "'\u017f",
         "\u212a", "\u0130", "\ufb01", "\u1e9e", "e\u0301", "\U0001f468\u200d\U0001f469\u200d\U0001f467",
         "\U0001f1e9\U0001f1ea", "\u2581", "\u0120", "<0x41>", "'\u2019s"]
RANGES = [[0x20, 0x7e], [0xa1, 0x17f], [0x300, 0x36f], [0x370, 0x377], [0x400, 0x52f], [0x5d0, 0x5ea],
          [0x591, 0x5c7], [0x620, 0x65f], [0x660, 0x669], [0x6f0, 0x6f9], [0x900, 0x963], [0x966, 0x96f],
          [0xe01, 0xe3a], [0xe50, 0xe59], [0x1100, 0x11ff], [0x2070, 0x2071], [0x2150, 0x218b],
          [0x2200, 0x22ff], [0x2460, 0x24ff], [0x3041, 0x3096], [0x4e00, 0x9fff], [0xac00, 0xd7a3],
          [0xe000, 0xe0ff], [0xfe00, 0xfe0f], [0xff10, 0xff5a], [0x10400, 0x1044f], [0x1d400, 0x1d454],
          [0x1d7ce, 0x1d7ff], [0x1f600, 0x1f64f], [0x1f3fb, 0x1f3ff], [0x20000, 0x2a6df],
          [0xe0100, 0xe01ef]]
BLANKS = [" ", "  ", "     ", "\t", "\n", "\r\n", "\r", "a", "Bc", "1", "22", "333", "4444", ".", "...",
          "'s", "'S", "'LL", "'ve", "'", "_", "\xa0", "\u3000", "\u180e", "\x85", "<extra_1>",
          "<extra_12>", "<extra_", "\u00b2", "\u0663"]


class Draws:
    """Numbers from a counter: SplitMix64 of (seed, string, draw)."""

    def __init__(self, seed, index):
        self.state = ((seed << 48) + (index << 20)) & MASK

    def below(self, n):
        x = (self.state * 0x9E3779B97F4A7C15) & MASK
        self.state += 1
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return ((x ^ (x >> 31)) >> 11) % n


def code(draws, parts):
    lines = []
    for _ in range(1 + draws.below(8)):
        line = "    " * draws.below(4)
        for _ in range(1 + draws.below(8)):
            line += parts["code"][draws.below(len(parts["code"]))] + (" " if draws.below(3) else "")
        lines.append(line)
    return "\n".join(lines)


def prose(draws, parts):
    text = ""
    for _ in range(1 + draws.below(30)):
        word = parts["prose"][draws.below(len(parts["prose"]))]
        text += word + [" ", " ", " ", ", ", ". ", "\n", " - ", "! "][draws.below(8)]
    return text


def is_skipped(point, skip):
    return 0xd800 <= point < 0xe000 or any(first <= point <= last for first, last in skip[point >> 16])


def unicode_points(draws, parts):
    """Half from the basic plane, half from any."""
    text = ""
    for _ in range(1 + draws.below(40)):
        plane = draws.below(17) if draws.below(2) else 0
        point = (plane << 16) + draws.below(65536)
        if not is_skipped(point, parts["skip"]):
            text += chr(point)
    return text


def scripts(draws, parts):
    text = ""
    for _ in range(1 + draws.below(30)):
        if draws.below(3) == 0:
            text += parts["marks"][draws.below(len(parts["marks"]))]
            continue
        first, last = parts["ranges"][draws.below(len(parts["ranges"]))]
        point = first + draws.below(last - first + 1)
        if not is_skipped(point, parts["skip"]):
            text += chr(point)
    return text


def blanks(draws, parts):
    return "".join(parts["blanks"][draws.below(len(parts["blanks"]))]
                   for _ in range(draws.below(24)))


KINDS = [code, prose, unicode_points, scripts, blanks]


def made_string(seed, index, parts):
    return KINDS[index % len(KINDS)](Draws(seed, index), parts)


def hash_of(ids):
    value = 0xcbf29ce484222325
    for i in ids:
        value = ((value ^ i) * 0x100000001b3) & MASK
    return (value ^ (value >> 32)) & 0xffffffff


def ranges_of(points):
    ranges = []
    for point in points:
        if ranges and ranges[-1][1] == point - 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return ranges


def class_members(name):
    """Code points that the library's regular expressions put into a class."""
    every = "".join(chr(c) for c in range(0x110000) if not 0xd800 <= c < 0xe000)
    kept = normalizers.Replace(Regex(f"[^{name}]"), "").normalize_str(every)
    return [ord(c) for c in kept]


def is_in_14(name, point):
    category = unicodedata.category(chr(point))
    if name == r"\s":
        return category[0] == "Z" or 9 <= point <= 13 or point == 0x85
    return category[0] == name[3]


def make_strings():
    """strings.json, classes.json. Skipped: what Unicode 14 did not assign in the planes that grow,
    and what the library's Unicode puts into another class."""
    assert unicodedata.unidata_version == "14.0.0"
    classes = {name: class_members(name) for name in (r"\s", r"\p{L}", r"\p{N}")}
    differing = set()
    for name, members in classes.items():
        of_14 = {c for c in range(0x110000)
                 if not 0xd800 <= c < 0xe000 and is_in_14(name, c)}
        changed = of_14 ^ set(members)
        assigned = sum(unicodedata.category(chr(c)) != "Cn" for c in changed)
        print(f"{name}: {len(members)} in the library, {len(of_14)} in Unicode 14; "
              f"of {len(changed)} that differ {assigned} were assigned in 14")
        differing |= changed
    grows = [c for plane in (0, 1, 2, 3, 14) for c in range(plane << 16, (plane + 1) << 16)
             if unicodedata.category(chr(c)) == "Cn"]
    skip = [[] for _ in range(17)]
    for first, last in ranges_of(sorted(differing | set(grows))):
        for plane in range(first >> 16, (last >> 16) + 1):
            skip[plane].append([max(first, plane << 16), min(last, (plane << 16) + 65535)])
    parts = dict(code=CODE, prose=PROSE, marks=MARKS, ranges=RANGES, blanks=BLANKS, skip=skip)
    write(HERE / "strings.json", parts)
    write(HERE / "classes.json", {name: ranges_of(c) for name, c in classes.items()})
    return parts


def write(path, value):
    path.write_text(json.dumps(value, separators=(",", ":")))
    print(path.name, path.stat().st_size, "bytes")


def training_texts(parts):
    texts = [(SOURCE / name).read_text() for name in
             ("README.md", "models/README.md", "tests/README.md", "models/prompts/embedded_tasks.cc",
              "models/merger.h", "models/tokenizer.h")]
    return texts + [made_string(99, i, parts) for i in range(3000) if i % 5 in (0, 1, 3)]


def added(token, number, special):
    return dict(id=number, content=token, single_word=False, lstrip=False, rstrip=False,
                normalized=False, special=special)


def template(token, number):
    text = {"Sequence": {"id": "A", "type_id": 0}}
    start = {"SpecialToken": {"id": token, "type_id": 0}}
    return dict(type="TemplateProcessing", single=[start, text],
                pair=[start, text, start, {"Sequence": {"id": "B", "type_id": 1}}],
                special_tokens={token: dict(id=token, ids=[number], tokens=[token])})


def byte_bpe(parts):
    """As Llama-3's: its expression, pieces that no merge reaches, special tokens at the end."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(training_texts(parts), trainers.BpeTrainer(
        vocab_size=1800, initial_alphabet=alphabet, show_progress=False))
    document = json.loads(tokenizer.to_str())
    vocab = document["model"]["vocab"]
    for word in PROSE + CODE:
        for piece in (word, " " + word):
            spelt = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            ((piece, _),) = spelt.pre_tokenize_str(piece)
            if len(vocab) < 1900:
                vocab.setdefault(piece, len(vocab))
    tokens = [("<|begin_of_text|>", True), ("<|end_of_text|>", True), ("<|eot_id|>", True),
              ("<extra_1>", False), ("<extra_12>", False)]
    document["added_tokens"] = [added(token, len(vocab) + i, special)
                                for i, (token, special) in enumerate(tokens)]
    byte_level = dict(type="ByteLevel", add_prefix_space=True, trim_offsets=False, use_regex=True)
    document["post_processor"] = dict(type="Sequence", processors=[
        byte_level, template("<|begin_of_text|>", len(vocab))])
    document["decoder"] = byte_level
    return document


def llama2(parts):
    """As Llama-2's: special tokens, bytes, then pieces; spaces as U+2581 by normalizers."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    tokenizer.train_from_iterator(training_texts(parts), trainers.BpeTrainer(
        vocab_size=1600, limit_alphabet=220, show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    first = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trained = sorted(model["vocab"], key=model["vocab"].get)
    vocab = {piece: i for i, piece in enumerate(first + [p for p in trained if p not in first])}
    # Text that spells a byte's piece is merged into it by the library, and never by thermocline.
    model["merges"] = [(left, right) for left, right in model["merges"]
                       if not {left, right, left + right} & set(first)]
    model.update(unk_token="<unk>", fuse_unk=True, byte_fallback=True, vocab=vocab)
    tokens = [("<unk>", 0, True), ("<s>", 1, True), ("</s>", 2, True),
              ("<extra_1>", len(vocab), False), ("<extra_12>", len(vocab) + 1, False)]
    steps = [dict(type="Replace", pattern={"String": "\u2581"}, content=" "),
             dict(type="ByteFallback"), dict(type="Fuse"),
             dict(type="Strip", content=" ", start=1, stop=0)]
    return dict(
        version="1.0", truncation=None, padding=None,
        added_tokens=[added(*token) for token in tokens],
        normalizer=dict(type="Sequence", normalizers=[
            dict(type="Prepend", prepend="\u2581"),
            dict(type="Replace", pattern={"String": " "}, content="\u2581")]),
        pre_tokenizer=None, post_processor=template("<s>", 1),
        decoder=dict(type="Sequence", decoders=steps), model=model)


def variants():
    """The documents whose ids are hashed, and the share of the strings: tests make the same ones."""
    document = json.loads((HERE / "byte_bpe.json").read_text())
    yield "byte_bpe", document, 1
    document["model"]["ignore_merges"] = False
    yield "byte_bpe_by_merges", document, 1
    document = json.loads((HERE / "llama2.json").read_text())
    yield "llama2", document, 4
    document["normalizer"] = None
    for scheme in ("first", "always", "never"):
        document["pre_tokenizer"] = dict(type="Metaspace", replacement="\u2581",
                                         prepend_scheme=scheme, split=False)
        yield "llama2_" + scheme, document, 4


def encode(folder, seed, count):
    parts = json.loads((HERE / "strings.json").read_text())
    strings = [made_string(seed, i, parts) for i in range(count)]
    for name, document, share in variants():
        tokenizer = Tokenizer.from_str(json.dumps(document))
        encodings = tokenizer.encode_batch(strings[:count // share], add_special_tokens=False)
        hashes = b"".join(hash_of(e.ids).to_bytes(4, "little") for e in encodings)
        (Path(folder) / (name + ".hashes")).write_bytes(hashes)


def measure(text, tokenizer):
    text = Path(text).read_text()
    tokenizer = Tokenizer.from_file(tokenizer)
    best = 0
    for _ in range(3):
        start = time.perf_counter()
        count = len(tokenizer.encode(text, add_special_tokens=False).ids)
        best = max(best, len(text.encode()) / (time.perf_counter() - start))
    print(f"{best / 1e6:.2f} MB/s, {count} tokens")


def main():
    action, *arguments = sys.argv[1:]
    if action == "train":
        HERE.mkdir(exist_ok=True)
        parts = make_strings()
        write(HERE / "byte_bpe.json", byte_bpe(parts))
        write(HERE / "llama2.json", llama2(parts))
        encode(HERE, 1, 10000)
    elif action == "encode":
        encode(arguments[0], int(arguments[1]), int(arguments[2]))
    elif action == "time":
        measure(*arguments)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
