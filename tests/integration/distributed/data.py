"""Pairs of made-up sentences, and files of them."""

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = "iron melts bread oven ship wind river forest metal grain market harbour stone".split()


def pairs(count, seed=1):
    """Rows with a query, a text of 1 to 60 words, and a number."""
    chosen = random.Random(seed)
    return [
        {
            "query": " ".join(chosen.choices(WORDS, k=3)),
            "text": " ".join(chosen.choices(WORDS, k=chosen.randint(1, 60))),
            "n": n,
        }
        for n in range(count)
    ]


def parquet(path, rows, rows_per_group=70):
    """Write rows into a Parquet file of several row groups."""
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=rows_per_group)
    return path


def json_lines(path, rows):
    """Write rows into a file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def scored(directory):
    """The rows of a job's results, in the order of its files."""
    rows = []
    for file in sorted(directory.glob("part-*")):
        if file.suffix == ".parquet":
            rows += pq.read_table(file).to_pylist()
        else:
            rows += [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return rows
