"""Hits of caches on small traces, counted by the libcachesim and cachetools packages.

usage: python make_cache_counts.py FILE [FIRST_SEED [TRACES]]
Writes a line for every trace, capacity, policy and package that can be imported:
  SEED LAYERS NEURONS STEPS DRIFT REQUESTS CAPACITY POLICY PACKAGE HITS
A trace is random_steps of tests/policies/tiny_traces.h, made here again: its active neurons are the
requests, in the order of step, layer and neuron, each of size 1. The versions that made the
committed file are in README.md. Belady's requests carry the index of the neuron's next one.
"""
import sys

PACKAGES = {}
try:
    import cachetools
    PACKAGES["cachetools"] = cachetools
except ImportError:
    pass
try:
    import libcachesim
    PACKAGES["libcachesim"] = libcachesim
except ImportError:
    pass

MASK = (1 << 64) - 1
NEVER = (1 << 63) - 1
CAPACITIES = [1, 2, 3, 10, 20, 33, 50, 80, 120, 200]


class Lcg:
    """tests/policies/tiny_traces.h has the same."""

    def __init__(self, seed):
        self.state = (seed * 2654435769 + 1) & MASK

    def below(self, limit):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & MASK
        return (self.state >> 32) * limit >> 32


def requests_of(seed, neurons, steps, drift):
    random = Lcg(seed)

    def draw():
        return random.below(1000) if random.below(4) == 0 else random.below(200)

    rates = [draw() for _ in range(neurons)]
    requests = []
    for step in range(steps):
        for flat in range(neurons):
            if drift != 0 and step % drift == drift - 1 and random.below(4) == 0:
                rates[flat] = draw()
            if random.below(1000) < rates[flat]:
                requests.append(flat)
    return requests


def next_uses(requests):
    later, uses = {}, [NEVER] * len(requests)
    for i in range(len(requests) - 1, -1, -1):
        uses[i] = later.get(requests[i], NEVER)
        later[requests[i]] = i
    return uses


def cachetools_hits(name, requests, capacity):
    cache = getattr(cachetools, name)(maxsize=capacity)
    hits = 0
    for neuron in requests:
        try:
            cache[neuron]
            hits += 1
        except KeyError:
            cache[neuron] = True
    return hits


def libcachesim_hits(name, requests, capacity, **parameters):
    cache = getattr(libcachesim, name)(cache_size=capacity, hashpower=12, **parameters)
    hits = 0
    for i, (neuron, use) in enumerate(zip(requests, next_uses(requests))):
        request = libcachesim.Request(obj_size=1, obj_id=neuron + 1, next_access_vtime=use)
        request.clock_time = i
        hits += cache.get(request)
    return hits


def s3fifo(small, ghost, threshold):
    """libcachesim admits nothing where the small queue has one place."""
    def hits(requests, capacity):
        if int(capacity * small) < 2:
            return None
        return libcachesim_hits("S3FIFO", requests, capacity, small_size_ratio=small,
                                ghost_size_ratio=ghost, move_to_main_threshold=threshold)
    return hits


COUNTERS = [
    ("lru", "cachetools", lambda r, c: cachetools_hits("LRUCache", r, c)),
    ("fifo", "cachetools", lambda r, c: cachetools_hits("FIFOCache", r, c)),
    ("lfu", "cachetools", lambda r, c: cachetools_hits("LFUCache", r, c)),
    ("lru", "libcachesim", lambda r, c: libcachesim_hits("LRU", r, c)),
    ("fifo", "libcachesim", lambda r, c: libcachesim_hits("FIFO", r, c)),
    ("lfu", "libcachesim", lambda r, c: libcachesim_hits("LFU", r, c)),
    ("arc", "libcachesim", lambda r, c: libcachesim_hits("ARC", r, c)),
    ("belady", "libcachesim", lambda r, c: libcachesim_hits("Belady", r, c)),
    ("s3fifo", "libcachesim", s3fifo(0.1, 0.9, 2)),
    ("s3fifo:small=0.3,ghost=2,threshold=1", "libcachesim", s3fifo(0.3, 2.0, 1)),
]


def main():
    path = sys.argv[1]
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    traces = int(sys.argv[3]) if len(sys.argv) > 3 else 6
    with open(path, "w") as out:
        for seed in range(first, first + traces):
            layers, neurons, steps, drift = 1 + seed % 3, 70 + seed % 4, 60 + 10 * (seed % 5), \
                [0, 7, 20][seed % 3]
            requests = requests_of(seed, layers * neurons, steps, drift)
            for capacity in CAPACITIES:
                for policy, package, count in COUNTERS:
                    hits = count(requests, capacity) if package in PACKAGES else None
                    if hits is not None:
                        print(seed, layers, neurons, steps, drift, len(requests), capacity, policy,
                              package, hits, file=out)


main()
