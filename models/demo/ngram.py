"""The baseline that the demo model must beat: a 5-gram model on the same tokens.

usage: ngram.py FOLDER      reads train.npy, held-out.npy, held-out-parts.json; prints and writes
                            ngram.json: nats per token, of all and of each part

Interpolated modified Kneser-Ney (Chen and Goodman 1999): absolute discounts of three sizes from
counts of counts; orders below the highest count the different words in front. Repeats of a document
are left out: they would spoil its counts of counts.
"""
import json
import pathlib
import sys

import numpy

ORDER = 5
VOCABULARY = 2048
BOS = 0


def once_each(ids):
    """The documents of the run, each once."""
    documents = numpy.split(ids, numpy.flatnonzero(ids == BOS)[1:])
    return numpy.concatenate([numpy.frombuffer(d, dtype=ids.dtype)
                              for d in dict.fromkeys(d.tobytes() for d in documents)])


def grams(ids, order):
    """One integer for the `order` tokens that end at each place, from place order - 1 on."""
    keys = numpy.zeros(len(ids) - order + 1, dtype=numpy.int64)
    for i in range(order):
        keys = keys * VOCABULARY + ids[i:len(ids) - order + 1 + i]
    return keys


class Order:
    """Counts of one order and what its contexts discount."""

    def __init__(self, keys, counts):
        self.keys, self.counts = keys, counts
        ones, twos, threes, fours = (numpy.count_nonzero(counts == n) for n in (1, 2, 3, 4))
        y = ones / (ones + 2 * twos)
        self.discounts = numpy.array([0.0, 1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos,
                                      3 - 4 * y * fours / threes])
        self.contexts, starts = numpy.unique(keys // VOCABULARY, return_index=True)
        self.totals = numpy.add.reduceat(counts, starts)
        self.discounted = numpy.add.reduceat(self.discounts[numpy.minimum(counts, 3)], starts)

    def probability(self, keys, lower):
        """P(last token | those before it), given the next lower order's answer."""
        counts = found(self.keys, self.counts, keys)
        contexts = keys // VOCABULARY
        totals = found(self.contexts, self.totals, contexts)
        rest = found(self.contexts, self.discounted, contexts)
        seen = counts - self.discounts[numpy.minimum(counts, 3)]
        mixed = (seen + rest * lower) / numpy.maximum(totals, 1)
        return numpy.where(totals > 0, mixed, lower)


def found(keys, values, wanted):
    place = numpy.minimum(numpy.searchsorted(keys, wanted), len(keys) - 1)
    return numpy.where(keys[place] == wanted, values[place], 0)


def orders_of(ids):
    """From the highest to the lowest; lower orders count distinct words in front."""
    keys, counts = numpy.unique(grams(ids, ORDER), return_counts=True)
    result = [Order(keys, counts)]
    for order in range(ORDER - 1, 0, -1):
        keys, counts = numpy.unique(keys % VOCABULARY**order, return_counts=True)
        result.append(Order(keys, counts))
    return result


def losses(orders, ids):
    """-ln P of each token from the fifth on."""
    probability = numpy.full(len(ids) - ORDER + 1, 1 / VOCABULARY)
    for order in reversed(range(ORDER)):
        keys = grams(ids, ORDER) % VOCABULARY**(ORDER - order)
        probability = orders[order].probability(keys, probability)
    return -numpy.log(probability)


def main():
    folder = pathlib.Path(sys.argv[1])
    train = once_each(numpy.load(folder / "train.npy"))
    orders = orders_of(train.astype(numpy.int64))
    held_out = numpy.load(folder / "held-out.npy").astype(numpy.int64)
    parts = json.loads((folder / "held-out-parts.json").read_text())
    result = {"all": losses(orders, held_out).mean()}
    begin = 0
    for part, size in parts.items():
        result[part] = losses(orders, held_out[begin:begin + size]).mean()
        begin += size
    (folder / "ngram.json").write_text(json.dumps(result, indent=2) + "\n")
    print(", ".join(f"{part} {loss:.4f}" for part, loss in result.items()), "nats per token")


if __name__ == "__main__":
    main()
