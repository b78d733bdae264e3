"""Writes gguf_types/all_types.gguf with the gguf package: a tensor of every type that we read, named
after it, and beside it "NAME.values", what the package itself dequantises it to, in F32.

usage: make_gguf_types.py OUT.gguf
"""

import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

ROWS, COLS = 2, 256
QUANTISED_BY_PACKAGE = [Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0]
# The package has no quantiser for these: any codes, and scales (f16, at these bytes) that are finite.
SCALES_OF_RANDOM_BLOCKS = {Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208,)}


def random_blocks(random, kind, scale_offsets):
    block_size, type_size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (ROWS, COLS // block_size, type_size), dtype=np.uint8)
    for row in blocks.reshape(-1, type_size):
        for offset in scale_offsets:
            scale = np.float16(random.uniform(-0.01, 0.01))
            row[offset : offset + 2] = np.frombuffer(scale.tobytes(), dtype=np.uint8)
    return blocks.reshape(ROWS, -1)


def main():
    random = np.random.default_rng(3)
    writer = gguf.GGUFWriter(sys.argv[1], "llama")
    writer.add_name("every type")
    values = random.normal(size=(ROWS, COLS)).astype(np.float32)
    writer.add_tensor("F32", values)
    writer.add_tensor("F32.values", values)
    for kind in QUANTISED_BY_PACKAGE + list(SCALES_OF_RANDOM_BLOCKS):
        values = random.normal(size=(ROWS, COLS)).astype(np.float32)
        if kind in SCALES_OF_RANDOM_BLOCKS:
            data = random_blocks(random, kind, SCALES_OF_RANDOM_BLOCKS[kind])
        else:
            data = gguf.quants.quantize(values, kind)
        expected = gguf.quants.dequantize(data, kind).reshape(ROWS, COLS)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        writer.add_tensor(f"{kind.name}.values", expected.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
