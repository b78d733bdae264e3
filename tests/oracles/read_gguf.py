"""Reads a GGUF file with the gguf package and writes what it found: for each tensor a line of JSON
{name, type, dimensions}, then its values as the package dequantises them (I8 as they are), raw f32,
one tensor after the other; and the keys.

usage: read_gguf.py IN.gguf OUT.jsonl OUT.f32
"""

import json
import sys

import gguf
import numpy as np


def main():
    path, facts_path, values_path = sys.argv[1:]
    reader = gguf.GGUFReader(path)
    keys = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    with open(facts_path, "w") as facts, open(values_path, "wb") as values:
        facts.write(json.dumps({"keys": keys}) + "\n")
        for tensor in reader.tensors:
            kind = tensor.tensor_type
            line = {"name": tensor.name, "type": kind.name, "dimensions": tensor.shape.tolist()}
            facts.write(json.dumps(line) + "\n")
            if kind == gguf.GGMLQuantizationType.I8:
                array = tensor.data
            else:
                array = gguf.quants.dequantize(tensor.data, kind)
            values.write(np.ascontiguousarray(array, dtype=np.float32).tobytes())


if __name__ == "__main__":
    main()
