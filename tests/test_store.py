"""Finished tables are found again by what made them, and only then."""

import pandas as pd

from refusal.store import Store, fingerprint


def test_fingerprint_depends_on_contents_and_settings(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("a")
    other.write_text("a")
    base = fingerprint([one], {"k": 1})
    assert fingerprint([other], {"k": 1}) == base
    assert fingerprint([one], {"k": 2}) != base
    assert fingerprint([one, other], {"k": 1}) != base
    other.write_text("b")
    assert fingerprint([other], {"k": 1}) != base


def test_fetch_finds_only_what_was_kept(tmp_path):
    store, target = Store(tmp_path / "store"), tmp_path / "out" / "table.parquet"
    assert not store.fetch("key", target)
    table = pd.DataFrame({"id": ["a"], "value": [1.5]})
    store.keep("key", table, target)
    target.unlink()
    assert store.fetch("key", target)
    pd.testing.assert_frame_equal(pd.read_parquet(target), table)
    assert not store.fetch("other", target)


def test_editing_a_result_leaves_the_store_alone(tmp_path):
    store, target = Store(tmp_path / "store"), tmp_path / "table.parquet"
    store.keep("key", pd.DataFrame({"value": [1]}), target)
    target.write_bytes(b"overwritten")
    assert store.fetch("key", target)
    assert pd.read_parquet(target).value.tolist() == [1]


def test_no_half_written_file_is_left(tmp_path):
    store = Store(tmp_path / "store")
    store.keep("key", pd.DataFrame({"value": [1]}), tmp_path / "table.parquet")
    assert not list(tmp_path.rglob("*.partial"))
