"""Reads a fixture trace (trace_fixture.h, three_ranks) with plain h5py and says what differs.

usage: read_with_h5py.py MASTER README STEPS
Also runs the example in traces/README.md on it. Prints "ok" and exits 0 if all is as it should be.
"""
import sys

import h5py
import numpy as np

POOLS = [(0, 5, 0, 64), (0, 5, 64, 56), (0, 5, 120, 52)]


def fixture_bits(steps, layers, neurons):
    s, l, n = np.ogrid[0:steps, 0:layers, 0:neurons]
    key = s * 2654435761 + l * 40503 + n * 2246822519
    return (key % 1009 < 250).astype(np.uint8)


def expect(name, found, expected):
    if not np.array_equal(np.asarray(found), np.asarray(expected)):
        sys.exit(f"{name}: expected {expected!r}, found {found!r}")


def check_common(file, kind, steps, bits, first_neuron):
    expect("kind", file.attrs["kind"], kind)
    expect("schema_major", file.attrs["schema_major"], 2)
    expect("model", file.attrs["model"], "preset:tiny,seed=1")
    expect("weight_provenance", file.attrs["weight_provenance"], "synthetic")
    expect("config_json", file.attrs["config_json"], '{"threads":1,"gate":"exact"}')
    expect("ffn_dtype", file.attrs["ffn_dtype"], "q8_0")
    expect("seed", file.attrs["seed"], 7)
    expect("ffn_dim", file.attrs["ffn_dim"], 172)
    expect("step_count", file.attrs["step_count"], steps)
    expect("finished", file.attrs["finished"], 1)
    expect("pools", file["pools"][:], POOLS)
    expect("active type", file["active"].dtype, np.uint64)
    words = file["active"][:].view(np.uint8).reshape(-1, *bits.shape[1:], 8)
    found = np.unpackbits(words, axis=3, bitorder="little").transpose(0, 3, 1, 2)
    found = found.reshape(-1, *bits.shape[1:])
    expect("spare steps", found[steps:].any(), False)
    order = file["neuron_order"][:].astype(np.int64) - first_neuron
    expect("neuron_order", np.sort(order, axis=1), np.arange(bits.shape[2]) + 0 * order)
    expect("active", found[:steps], np.take_along_axis(bits, order[None], axis=2))
    expect("popcounts", file["popcounts"][:], bits.sum(axis=2))
    step = np.arange(steps)
    expect("token", file["steps/token"][:], step * 7 % 512)
    expect("position", file["steps/position"][:], step % 10)
    expect("task", file["steps/task"][:], step // 10)
    expect("pass", file["steps/pass"][:], step // 2)
    expect("phase", file["steps/phase"][:], np.where(step % 10 < 4, 0, 1))
    task = np.arange(steps // 10)
    expect("task_id", file["tasks/task_id"][:], 11 + task)
    expect("step_begin", file["tasks/step_begin"][:], 10 * task)
    expect("step_count", file["tasks/step_count"][:], 10 + 0 * task)
    expect("generated_count", file["tasks/generated_count"][:], 7 + 0 * task)
    last = 10 * task[:, None] + np.arange(4, 11)
    expect("generated", file["generated"][:], (last * 7 % 512).ravel())


def main(master, readme, steps):
    bits = fixture_bits(steps, 5, 172)
    step = np.arange(steps)
    with h5py.File(master, "r") as file:
        check_common(file, "thermocline-trace", steps, bits, 0)
        expect("virtual", file["active"].is_virtual, True)
        ranks = np.arange(3)
        expect("compute_ns", file["times/compute_ns"][:], 1000 + step[:, None] + 0 * ranks)
        expect("transfer_ns", file["times/transfer_ns"][:], step[:, None] % 7 + 0 * ranks)
        expect("comm_ns", file["times/comm_ns"][:], step[:, None] + 100 * ranks)
        expect("wait_ns", file["times/wait_ns"][:], 0 * step[:, None] + ranks)
    for rank, (_, _, begin, count) in enumerate(POOLS):
        with h5py.File(master.replace(".h5", f".rank{rank:04}.h5"), "r") as file:
            check_common(file, "thermocline-trace-shard", steps, bits[:, :, begin:begin + count], begin)
            expect("rank", file.attrs["rank"], rank)
            expect("wait_ns", file["times/wait_ns"][:], 0 * step + rank)
    text = open(readme, encoding="utf-8").read()
    example = text.split("```python\n")[1].split("```")[0]
    exec(compile(example, readme, "exec"), {"path": master})
    print("ok")


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
