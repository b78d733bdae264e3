"""Makes count_tensors/: one-dimensional tensors of counts as torch.save stores them, in each type that
our reader takes, and files that it must refuse. With a folder of ours as argument, loads every
activation_LAYER.pt of it with torch.load instead (weights_only, plain and mapped).

usage: make_count_tensors.py [FOLDER_OF_OURS]
"""
import pathlib
import sys

import torch


def make(folder):
    folder.mkdir(exist_ok=True)
    for layer, kind in enumerate([torch.float32, torch.float64, torch.int32, torch.int64]):
        counts = torch.tensor([(i * 2654435761 + layer) % 100003 for i in range(300)])
        torch.save(counts.to(kind), folder / f"activation_{layer}.pt")
    torch.save(torch.arange(10)[2:6], folder / "view.pt")
    torch.save(torch.nn.Parameter(torch.arange(4.0)), folder / "parameter.pt")
    torch.save(torch.arange(4).half(), folder / "half.pt")
    torch.save(torch.zeros(2, 3), folder / "matrix.pt")
    torch.save(torch.arange(4), folder / "legacy.pt", _use_new_zipfile_serialization=False)


def check(folder):
    layers = sorted(folder.glob("activation_*.pt"))
    for path in layers:
        plain, mapped = torch.load(path), torch.load(path, mmap=True)
        assert plain.dtype == torch.int64 and plain.dim() == 1 and torch.equal(plain, mapped)
        print(path.name, len(plain), int(plain.sum()), int(plain.max()))
    print(f"torch {torch.__version__} opens {len(layers)} files")


if len(sys.argv) > 1:
    check(pathlib.Path(sys.argv[1]))
else:
    make(pathlib.Path(__file__).parent / "count_tensors")
