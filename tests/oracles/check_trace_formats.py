"""Reads what `trace convert` wrote, with numpy, zipfile and a pickle reader that calls nothing, and
holds it against the trace as plain h5py sees it.

usage: check_trace_formats.py TRACE.h5 FORMAT=PATH ...
"""
import csv
import io
import pickle
import sys
import zipfile

import h5py
import numpy as np


def check_npy(path, bits, steps):
    packed = np.load(path, mmap_mode="r")
    assert packed.dtype == np.uint8 and packed.flags.c_contiguous
    found = np.unpackbits(packed, axis=2, bitorder="little")
    assert (found[:, :, : bits.shape[2]] == bits).all() and not found[:, :, bits.shape[2]:].any()
    with open(path.replace(".npy", ".steps.csv"), newline="") as table:
        rows = list(csv.DictReader(table))
    assert [int(row["token"]) for row in rows] == steps["token"].tolist()
    assert [int(row["position"]) for row in rows] == steps["position"].tolist()
    assert [row["phase"] == "decode" for row in rows] == (steps["phase"][:] == 1).tolist()
    assert [int(row["step"]) for row in rows] == list(range(len(bits)))


def check_counts_csv(path, bits, steps):
    table = np.genfromtxt(path, delimiter=",", names=True, dtype=np.int64)
    layers, neurons = bits.shape[1:]
    assert (table["layer"] == np.repeat(np.arange(layers), neurons)).all()
    assert (table["neuron"] == np.tile(np.arange(neurons), layers)).all()
    assert (table["active_count"] == bits.sum(axis=0, dtype=np.int64).ravel()).all()
    assert (table["step_count"] == len(bits)).all()


class Recipe(pickle.Unpickler):
    """Knows the three names of a plain tensor; everything else is refused."""

    def find_class(self, module, name):
        names = {("torch._utils", "_rebuild_tensor_v2"): lambda *facts: facts,
                 ("torch", "LongStorage"): "int64",
                 ("collections", "OrderedDict"): dict}
        return names[module, name]

    def persistent_load(self, described):
        return described


def check_powerinfer(folder, bits, steps):
    for layer in range(bits.shape[1]):
        with zipfile.ZipFile(f"{folder}/activation_{layer}.pt") as archive:
            assert archive.testzip() is None
            name = f"activation_{layer}"
            assert archive.read(f"{name}/byteorder") == b"little"
            facts = Recipe(io.BytesIO(archive.read(f"{name}/data.pkl"))).load()
            storage, offset, size, stride = facts[:4]
            assert storage == ("storage", "int64", "0", "cpu", bits.shape[2])
            assert (offset, size, stride) == (0, (bits.shape[2],), (1,))
            counts = np.frombuffer(archive.read(f"{name}/data/0"), "<i8")
            for entry in archive.infolist():
                local = entry.header_offset + 26
                archive.fp.seek(local)
                lengths = np.frombuffer(archive.fp.read(4), "<u2")
                assert (local + 4 + int(lengths.sum())) % 64 == 0, "elements can be mapped"
        assert (counts == bits[:, layer].sum(axis=0)).all()


def check_oracle_general(path, bits, steps):
    record = np.dtype([("clock_time", "<u4"), ("obj_id", "<u8"), ("obj_size", "<u4"),
                       ("next_access_vtime", "<i8")])
    assert record.itemsize == 24
    records = np.fromfile(path, record)
    step, layer, neuron = np.nonzero(bits)
    assert (records["clock_time"] == step).all()
    assert (records["obj_id"] == 1 + layer * bits.shape[2] + neuron).all()
    assert len(set(records["obj_size"].tolist())) == 1
    coming = {}
    for number in range(len(records), 0, -1):  # libCacheSim counts requests from 1
        identity = int(records["obj_id"][number - 1])
        assert records["next_access_vtime"][number - 1] == coming.get(identity, -1)
        coming[identity] = number


def main():
    with h5py.File(sys.argv[1], "r") as trace:
        words = trace["active"][:].view(np.uint8).reshape(-1, *trace["active"].shape[1:], 8)
        by_place = np.unpackbits(words, axis=3, bitorder="little").transpose(0, 3, 1, 2)
        by_place = by_place.reshape(-1, *by_place.shape[2:])[:trace.attrs["step_count"]]
        bits = np.empty_like(by_place)
        np.put_along_axis(bits, trace["neuron_order"][:][None].astype(int), by_place, axis=2)
        steps = {name: trace["steps/" + name][:] for name in ("token", "position", "phase")}
    checks = {"npy": check_npy, "counts-csv": check_counts_csv, "powerinfer": check_powerinfer,
              "oracle-general": check_oracle_general}
    for argument in sys.argv[2:]:
        name, path = argument.split("=", 1)
        checks[name](path, bits, steps)
    print(f"ok: {len(sys.argv) - 2} formats")


main()
