"""Reads a page of /metrics with Prometheus' own client library and holds it against the page of
/counters.json of the same snapshot.

usage: check_exposition.py METRICS.txt COUNTERS.json
"""
import json
import sys

from prometheus_client.parser import text_string_to_metric_families


def samples_of(path):
    """{(name, labels): value}; every family has a type and a help."""
    with open(path, newline="") as page:
        families = list(text_string_to_metric_families(page.read()))
    found = {}
    for family in families:
        assert family.type in ("counter", "gauge"), (family.name, family.type)
        assert family.documentation, family.name
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def expected_of(counters):
    run = {name: counters[name] for name in ("model", "weights", "weight_hash", "layout", "version")}
    yield "run_info", run, 1
    yield "run_ended", {}, counters["ended"]
    yield "tasks", {}, counters["tasks"]["total"]
    yield "tasks_done_total", {}, counters["tasks"]["done"]
    for phase in ("prefill", "decode"):
        yield "steps_total", {"phase": phase}, counters["steps"][phase]
        yield "passes_total", {"phase": phase}, counters["passes"][phase]
    for rank in counters["ranks"]:
        for phase in ("prefill", "decode"):
            for part in ("compute", "transfer", "comm", "wait"):
                labels = {"rank": str(rank["rank"]), "phase": phase, "part": part}
                yield "rank_seconds_total", labels, rank[phase][part + "_seconds"]
        yield "weight_bytes", {"rank": str(rank["rank"])}, rank["weight_bytes"]
    for link in counters["links"]:
        labels = {"from": str(link["from"]), "to": str(link["to"])}
        yield "link_bytes_total", labels, link["run_bytes"]
        yield "link_decode_bytes_total", labels, link["decode_bytes"]


def main():
    metrics, counters = sys.argv[1:]
    found = samples_of(metrics)
    with open(counters) as page:
        document = json.load(page)
    checked = 0
    for name, labels, value in expected_of(document):
        key = "thermocline_" + name, tuple(sorted(labels.items()))
        assert found[key] == float(value), (key, found[key], value)
        checked += 1
    for policy in document["policies"]:
        for name, count in policy["counters"].items():
            family = "thermocline_policy_" + name + ("" if name == "hot_count_peak" else "_total")
            values = [value for (sample, labels), value in found.items() if sample == family]
            assert float(count) in values, (family, count, values)
            checked += 1
    print(f"{len(found)} samples, {checked} as the JSON has them")


main()
