"""Reads the text format of Prometheus from standard input with the parser of its own Python client, holds it against the
rules that the parser leaves to others, and prints the value of every sample as a JSON object."""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families

samples = {}
text = sys.stdin.read()
families = list(text_string_to_metric_families(text))
assert text.count("# TYPE") == text.count("# HELP") == len(families), "a family is there twice, or in parts"
assert len({family.name for family in families}) == len(families)
for family in families:
    assert family.documentation, f"{family.name}: no HELP"
    assert family.type in ("counter", "gauge", "histogram"), f"{family.name}: {family.type}"
    buckets = {}
    for sample in family.samples:
        labels = dict(sample.labels)
        mount = labels.pop("mount")
        assert mount == sys.argv[1], mount
        if family.type == "counter":
            # The parser takes the ending off the family's name.
            assert sample.name == family.name + "_total", sample.name
        if sample.name.endswith("_bucket"):
            le = labels.pop("le")
            key = tuple(sorted(labels.items()))
            buckets.setdefault(key, []).append((float(le.replace("+Inf", "inf")), sample.value))
            continue
        assert sample.value >= 0
        key = ",".join([sample.name.removeprefix("layerfs_"), *labels.values()])
        assert key not in samples, f"{key} is there twice"
        samples[key] = sample.value
    for key, told in buckets.items():
        ends, counts = zip(*told)
        name = family.name.removeprefix("layerfs_")
        label = key[0][1]
        assert list(ends) == sorted(set(ends)) and ends[-1] == float("inf"), ends
        assert list(counts) == sorted(counts), counts
        assert counts[-1] == samples[f"{name}_count,{label}"]
        # Between what it is at least and at most by its buckets, as far as those have an end.
        total = samples[f"{name}_sum,{label}"]
        each = [count - before for count, before in zip(counts, (0, *counts))]
        assert total >= sum(start * count for start, count in zip((0, *ends), each)) - 1e-9
        if each[-1] == 0:
            assert total <= sum(end * count for end, count in zip(ends[:-1], each)) + 1e-9
json.dump(samples, sys.stdout)
