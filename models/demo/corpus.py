"""The demo model's text: Python source and documentation from Debian packages, as documents.

usage: corpus.py OUT                        downloads the packages (apt-get download, no root), writes
                                            OUT/documents.jsonl and OUT/manifest.json
       corpus.py OUT --mbpp mbpp.jsonl      and refuses any document that quotes an MBPP task

A document is a source file, a page of documentation, or a task: a function and its documentation
in MBPP's prompt format. One file in 33 is held out, with every task made from it.
"""
import argparse
import ast
import hashlib
import json
import pathlib
import re
import subprocess
import textwrap
import warnings

# Debian 12 package: licence as its debian/copyright states it. Documentation of Python is under the
# PSF licence, its examples under Zero-Clause BSD.
PACKAGES = {
    "libpython3.11-minimal": "PSF-2.0",
    "libpython3.11-stdlib": "PSF-2.0",
    "idle-python3.11": "PSF-2.0",
    "python3.11-examples": "PSF-2.0",
    "python3.11-doc": "PSF-2.0",
    "python3-boltons": "BSD-3-Clause",
    "python3-more-itertools": "MIT",
    "python3-mpmath": "BSD-3-Clause",
    "python3-networkx": "BSD-3-Clause",
    "python3-sortedcontainers": "Apache-2.0",
    "python3-sympy": "BSD-3-Clause",
    "python3-toolz": "BSD-3-Clause",
}
# Of sympy the parts that read like functions about numbers, sequences and text; all of it would
# outweigh the standard library.
SYMPY_PARTS = ("calculus", "combinatorics", "concrete", "core", "crypto", "discrete", "functions",
               "geometry", "logic", "matrices", "ntheory", "polys", "series", "sets", "simplify",
               "stats", "strategies", "unify", "utilities")
SKIPPED_FOLDERS = {"test", "tests", "idle_test", "encodings", "pydoc_data", "benchmarks", "lib2to3",
                   "distutils", "whatsnew", "c-api", "extending", "includes"}
FILE_BYTES_MAX = 300_000
LONGEST_LINE = 200  # in a table rather than in a program
TASK_CODE_MAX = 1200  # characters; MBPP's longest solution has 1,331
TASK_TEXT_MAX = 240
NOT_VERBS = {"a", "all", "an", "any", "each", "number", "the", "this", "these", "true", "false"}
HELD_OUT_ONE_IN = 33

# The MBPP paper's prompt (arXiv 2108.07732).
PROMPT = ("You are an expert Python programmer, and here is your task: {text} Your code should pass "
          "these tests:\n\n{tests}\n[BEGIN]\n{code}\n[DONE]")


def download(out):
    """Packages as Debian ships them, unpacked side by side; returns their versions and hashes."""
    debs, unpacked = out / "debs", out / "unpacked"
    debs.mkdir(parents=True, exist_ok=True)
    found = []
    for package in PACKAGES:
        if not list(debs.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", "-qq", package], cwd=debs, check=True)
        deb = next(debs.glob(f"{package}_*.deb"))
        (unpacked / package).mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "-x", deb, unpacked / package], check=True)
        version = subprocess.check_output(["dpkg-deb", "-f", deb, "Version"], text=True).strip()
        sha256 = hashlib.sha256(deb.read_bytes()).hexdigest()
        found.append({"package": package, "version": version, "sha256": sha256,
                      "licence": PACKAGES[package]})
    return found


def wanted(path, relative):
    """False for tests, tables and parts that would outweigh the rest."""
    parts = relative.parts
    if SKIPPED_FOLDERS.intersection(parts):
        return False
    if "sympy" in parts:
        rest = parts[parts.index("sympy") + 1:]
        if len(rest) > 1 and rest[0] not in SYMPY_PARTS:
            return False
    return path.is_file() and not path.is_symlink() and 200 < path.stat().st_size < FILE_BYTES_MAX


def source_files(out):
    """(package, path, text) of every file that is used, in an order that any machine gives."""
    for package in PACKAGES:
        root = out / "unpacked" / package
        for path in sorted(root.rglob("*.py")) + sorted(root.rglob("*.rst.txt")):
            relative = path.relative_to(root)
            if not wanted(path, relative):
                continue
            try:
                text = path.read_text(encoding="utf-8").replace("\r\n", "\n").expandtabs(4)
            except UnicodeDecodeError:
                continue
            odd = sum(1 for c in text if ord(c) > 126)
            if odd * 50 > len(text) or max(map(len, text.split("\n"))) > LONGEST_LINE * 5:
                continue
            yield package, str(relative), text


def first_sentence(docstring):
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    sentence = re.split(r"(?<=[a-z0-9)`'\"])\.\s", paragraph)[0].rstrip(".")
    return re.sub(r"``?|:\w+:|\*", "", sentence)


def task_text(docstring):
    """The documentation's first sentence as MBPP words its tasks."""
    sentence = first_sentence(docstring)
    if not 15 <= len(sentence) <= TASK_TEXT_MAX or not sentence[0].isalpha():
        return None
    first, _, rest = sentence.partition(" ")
    if not rest or not first.isalpha():
        return None
    verb = first.lower()
    if verb in NOT_VERBS:
        return f"Write a function to find {verb} {rest}."
    if verb.endswith("s") and verb not in ("class", "process", "compress", "pass", "cross", "guess"):
        verb = re.sub(r"(ss|sh|ch|x)es$", r"\1", verb)
        verb = verb[:-1] if verb.endswith("s") and not verb.endswith("ss") else verb
    return f"Write a function to {verb} {rest}."


def doctest_asserts(name, docstring):
    """`>>> f(1)` and the line below it as `assert f(1) == …`, at most three."""
    lines = [line.strip() for line in docstring.split("\n")]
    asserts = []
    for call, value in zip(lines, lines[1:]):
        if not call.startswith(f">>> {name}(") or value.startswith((">>>", "...", "Traceback")):
            continue
        statement = f"assert {call[4:].rstrip()} == {value}"
        try:
            ast.parse(statement)
        except (SyntaxError, ValueError):
            continue
        if value and len(statement) < 160:
            asserts.append(statement)
    return asserts[:3]


def without_docstring(node, lines):
    docstring = node.body[0]
    kept = lines[node.lineno - 1:docstring.lineno - 1] + lines[docstring.end_lineno:node.end_lineno]
    code = textwrap.dedent("\n".join(line.rstrip() for line in kept))
    return re.sub(r"\n{2,}", "\n", code).strip("\n")


def tasks_of(text):
    """Functions of a file that say what they do, as tasks in MBPP's format."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    lines = text.split("\n")
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if not docstring or len(node.body) < 2 or node.body[0].end_lineno >= node.body[1].lineno:
            continue
        described, code = task_text(docstring), without_docstring(node, lines)
        if described is None or len(code) > TASK_CODE_MAX:
            continue
        # Where the documentation shows no call, a test that is true of every function.
        tests = doctest_asserts(node.name, docstring) or [f"assert callable({node.name})"]
        yield PROMPT.format(text=described, tests="\n".join(tests), code=code)


def held_out(package, path):
    digest = hashlib.sha256(f"{package}/{path}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % HELD_OUT_ONE_IN == 0


def documents(out):
    seen = set()
    for package, path, text in source_files(out):
        split = "held-out" if held_out(package, path) else "train"
        kind = "documentation" if path.endswith(".rst.txt") else "source"
        made = [(kind, text)] + [("task", task) for task in tasks_of(text)]
        for kind, document in made:
            digest = hashlib.sha256(document.encode()).digest()
            if digest in seen:
                continue
            seen.add(digest)
            yield {"package": package, "path": path, "kind": kind, "split": split, "text": document}


def squeezed(text):
    return " ".join(text.split())


def mbpp_phrases(path):
    """Descriptions and solutions of MBPP, without layout: what no document may hold."""
    phrases = set()
    for line in pathlib.Path(path).read_text().splitlines():
        task = json.loads(line)
        phrases.add(squeezed(task["text"]))
        if len(squeezed(task["code"])) >= 60:  # shorter ones are everybody's
            phrases.add(squeezed(task["code"]))
    return phrases


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--mbpp", help="MBPP's tasks: a document that quotes one is an error")
    arguments = parser.parse_args()
    packages = download(arguments.out)
    phrases = mbpp_phrases(arguments.mbpp) if arguments.mbpp else set()
    counts = {}
    with open(arguments.out / "documents.jsonl", "w") as file:
        for document in documents(arguments.out):
            flat = squeezed(document["text"])
            quoted = next((phrase for phrase in phrases if phrase in flat), None)
            if quoted:
                raise SystemExit(f"{document['package']}: {document['path']} quotes MBPP: {quoted!r}")
            file.write(json.dumps(document) + "\n")
            key = f"{document['split']} {document['kind']}"
            number, size = counts.get(key, (0, 0))
            counts[key] = (number + 1, size + len(document["text"]))
    summary = {"packages": packages, "mbpp_checked": bool(phrases),
               "documents": {key: {"count": n, "characters": c} for key, (n, c) in counts.items()}}
    (arguments.out / "manifest.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary["documents"], indent=2))


if __name__ == "__main__":
    main()
