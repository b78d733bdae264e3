"""Makes bootstrap.json: tasks of two policies, and numpy's paired percentile bootstrap of their ratios
of sums with 400,000 resamples: intervals of each side and of the difference.

Task lengths are uneven, the sides share what a task is like, and a few tasks need nothing.
"""
import json
import pathlib

import numpy

RESAMPLES = 400_000


def make_tasks(random, count):
    tokens = random.integers(1, 400, count).astype(float)
    needed = numpy.round(tokens * random.uniform(800, 1200, count))
    needed[:: max(count // 3, 7)] = 0
    shared = random.normal(0, 0.05, count)
    sides = []
    for level, ms, noise in ((0.62, 41.0, 0.01), (0.65, 40.2, 0.02)):
        share = numpy.clip(level + shared + random.normal(0, noise, count), 0, 1)
        hits = numpy.round(needed * share)
        decode_ms = numpy.round(tokens * (ms - 60 * shared + random.normal(0, 1, count)), 3)
        sides.append(numpy.stack([hits, needed, decode_ms, tokens], axis=1))
    return sides


def resampled_ratios(random, sides):
    count = len(sides[0])
    weights = random.multinomial(count, numpy.full(count, 1 / count), RESAMPLES)
    ratios = []
    for side in sides:
        sums = weights @ side
        ratios.append((sums[:, 0] / sums[:, 1], sums[:, 2] / sums[:, 3]))
    return ratios


def interval(values):
    return [round(float(x), 9) for x in numpy.percentile(values, [2.5, 97.5])]


def make_case(seed, count):
    random = numpy.random.default_rng(seed)
    sides = make_tasks(random, count)
    case = {"sides": [side.tolist() for side in sides]}
    a, b = resampled_ratios(random, sides)
    for index, metric in enumerate(("hit_ratio", "tpot_ms")):
        difference = a[index] - b[index]
        case[metric] = {
            "side": interval(a[index]),
            "difference": interval(difference),
            "side_deviation": round(float(a[index].std()), 9),
            "difference_deviation": round(float(difference.std()), 9),
        }
    return case


folder = pathlib.Path(__file__).parent
cases = [make_case(1, 12), make_case(2, 60)]
(folder / "bootstrap.json").write_text(json.dumps({"cases": cases}) + "\n")
