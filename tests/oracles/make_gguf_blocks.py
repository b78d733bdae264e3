"""Blocks of every element type and their values, by the `gguf` package's own conversions.

usage: python make_gguf_blocks.py [FOLDER [SEED [ROWS]]]
Writes, for each type that thermocline reads:
  TYPE.bytes      blocks of random bits: every code, scales of every size with zeros, subnormal
                  numbers, infinities and NaN among them
  TYPE.f32        the values of those blocks, as gguf dequantises them
  TYPE.quantized  rows.f32 in the type, where gguf can quantise to it
and rows.f32, rows of 256 values. Needs gguf and numpy; the versions that made the committed files
are in README.md.
"""
import sys
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

COLS = 256

# Where a block has its f16 scales; the other bytes are codes and small integers.
SCALES_AT = {"F16": [], "BF16": [], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0],
             "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
QUANTISED = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]

# f16 bits: zeros, the smallest and largest subnormal, the smallest and largest normal number, one,
# infinities, NaN.
EXTREME_SCALES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0x7C00, 0xFC00,
                  0x7E01]


def random_blocks(name, rows, random):
    items, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    count = rows * COLS // items
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    for at in SCALES_AT[name]:
        scales = random.integers(0, 65536, count, dtype=np.uint16)
        finite = np.where((scales & 0x7C00) == 0x7C00, scales & 0x83FF, scales)
        extreme = min(len(EXTREME_SCALES), count)
        finite[:extreme] = random.permutation(EXTREME_SCALES)[:extreme]
        blocks[:, at:at + 2] = finite.astype("<u2").view(np.uint8).reshape(count, 2)
    return blocks.reshape(rows, COLS // items * size)


def random_rows(rows, random):
    """Gaussian rows of sizes from 1e-6 to 3e4, then rows with ties, zeros and single peaks."""
    sizes = 10.0 ** random.uniform(-6, 4.5, (rows, 1))
    values = (sizes * random.standard_normal((rows, COLS))).astype(np.float32)
    values[0] = 0
    values[1] = np.float32(-0.375)
    values[2] = np.where(np.arange(COLS) % 2 == 0, 1.5, -1.5)
    values[3, :] = 0
    values[3, 5::32] = -7
    values[4] = np.round(values[4] / np.abs(values[4]).max() * 127) / 2  # halves: ties
    return values


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "gguf_blocks")
    random = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    rows = int(sys.argv[3]) if len(sys.argv) > 3 else 12
    folder.mkdir(parents=True, exist_ok=True)
    values = random_rows(rows, random)
    values.astype("<f4").tofile(folder / "rows.f32")
    with np.errstate(all="ignore"):
        for name in SCALES_AT:
            kind = GGMLQuantizationType[name]
            blocks = random_blocks(name, rows, random)
            blocks.tofile(folder / f"{name.lower()}.bytes")
            decoded = quants.dequantize(blocks, kind)
            decoded.astype("<f4").tofile(folder / f"{name.lower()}.f32")
            if name in QUANTISED:
                quantised = quants.quantize(values, kind)
                quantised.tofile(folder / f"{name.lower()}.quantized")


if __name__ == "__main__":
    main()
