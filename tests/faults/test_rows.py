"""Rows that are hard to keep: equal keys, poison among good ones."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from tests.e2e.documents import made, messages, run, source
from tests.faults import flood
from tests.faults.flood import FOUND

each_way = pytest.mark.parametrize("publish", ["atomic", "stream"])


def with_equal_keys(seed, clients, keys):
    """Batches of rows whose keys come again within a batch, in a later one and with another client."""
    chance = random.Random(seed)
    return {
        client: [
            [[chance.choice(keys), f"{client} {batch} {place}"] for place in range(chance.randrange(1, 60))]
            for batch in range(4)
        ]
        for client in clients
    }


def last_of_each_client(batches):
    """By id: the text that each client sent last, by its place in what that client sent."""
    last: dict[int, dict[str, str]] = defaultdict(dict)
    for client, parts in batches.items():
        for number, text in (row for part in parts for row in part):
            last[number][client] = text
    return {number: set(texts.values()) for number, texts in last.items()}


@each_way
@pytest.mark.parametrize("clients", [["one"], ["one", "two", "three"]], ids=["one client", "three clients"])
def test_of_equal_keys_the_last_one_stays(place, clients, publish):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    for version, keys in enumerate([range(40), range(20, 60)]):
        batches = with_equal_keys(seed + version, clients, keys)

        result = run(flood.document(version=version, batches=batches), place.document(publish=publish))

        assert result.outcome == "complete", messages(result)
        # Clients are read side by side, so which of theirs comes last is open; of each one's only the last may stay.
        allowed = last_of_each_client(batches)
        found = place.query(FOUND)
        assert sorted(number for number, _, _ in found) == sorted(allowed)
        assert {row for row in found if row[1] != version or row[2] not in allowed[row[0]]} == set()


POISON = {
    "a NUL": (101, "nul", "a\0b"),
    "a value that is missing": (102, "none", None),
    # No shorter when it is packed.
    "a key that is too long": (103, "".join(random.Random(3).choices("abcdefghij0123456789", k=9_000)), "long"),
    "a text of a megabyte": (104, "wide", "w" * (1 << 20)),
}
REFUSED = {
    "duckdb": {"a value that is missing"},
    "sqlite": {"a value that is missing"},
    "postgresql": {"a NUL", "a value that is missing", "a key that is too long"},
    "mysql": {"a value that is missing", "a key that is too long"},
    "clickhouse": {"a value that is missing"},
}
"""What each cannot keep; everything else has to arrive as it is."""
GOOD = [(number, f"key {number}", f"value {number}") for number in range(1, 30)]
KEYED_BY_TEXT = {"id": "int64!", "key": "utf8!", "value": "utf8!"}


def poisoned(rows):
    return made(drops={"columns": KEYED_BY_TEXT, "primary_key": ["key"], "rows": [list(row) for row in rows]})


def inside(place):
    quoted = "`key`" if place.plugin in ("mysql", "clickhouse") else '"key"'
    return set(place.query(f"select id, {quoted}, value from drops"))


@each_way
@pytest.mark.parametrize("poison", POISON)
def test_one_poison_row_ends_its_table_or_is_put_aside(place, poison, publish):
    old = [(1, "key 1", "old"), (900, "gone at the source", "old")]
    assert run(poisoned(old), place.document(publish=publish)).outcome == "complete"
    rows = [*GOOD[:10], POISON[poison], *GOOD[10:]]

    refused = poison in REFUSED[place.plugin]
    result = run(poisoned(rows), place.document(publish=publish))
    if not refused:
        assert result.outcome == "complete", messages(result)
        assert inside(place) == set(rows)
        return
    assert result.outcome == "partial"
    assert inside(place) == set(old)
    assert f'the row with key {{"key":"{POISON[poison][1][:50]}' in messages(result)
    assert len(messages(result)) < 1_000

    result = run(poisoned(rows), place.document(publish=publish, max_rejects=1))

    # The good ones arrive, and nothing goes: the poison row may be the new version of any of them.
    assert result.outcome == "partial"
    assert inside(place) == {*GOOD, old[1]}
    [(aside,)] = place.query("select count(*) from _catchment_rejects")
    assert aside == 1
    assert run(poisoned(GOOD), place.document(publish=publish)).outcome == "complete"
    assert inside(place) == set(GOOD)


@pytest.mark.parametrize("way", ["error", "skip"])
def test_a_value_of_a_wrong_type_is_told_and_costs_nothing_that_was_there(tmp_path, duck_file, caplog, way):
    def sync(text):
        (tmp_path / "drops.csv").write_text(text)
        table = {"name": "drops", "path": "drops.csv", "primary_keys": ["id"], "columns": {"id": "int64", "n": "int64"}}
        spec = {"path": str(tmp_path), "on_bad_row": way, "tables": [table]}
        return run(source("files", "file", ["*"], spec=spec), duck_file.document())

    assert sync("id,n\n1,1\n2,2\n").outcome == "complete"

    result = sync("id,n\n1,10\n3,three\n4,40\n")

    [row] = result.tables
    found = dict(duck_file.query("select id, n from drops"))
    assert found[2] == 2, "row 2 went though nobody knows what the bad row was"
    if way == "skip":
        assert found == {1: 10, 2: 2, 4: 40}
        assert (row.rows_rejected, row.complete) == (1, False)
        assert "drops.csv:3: column `n`: 'three' is no int64" in caplog.text
    else:
        assert result.outcome == "partial"
        assert "drops.csv:3: column `n`: 'three' is no int64" in messages(result)
        assert set(found.items()) <= {(1, 1), (1, 10), (2, 2), (4, 40)}
