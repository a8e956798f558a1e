"""Every row once, within the budget, the last tokens aligned."""

import random

import pytest
import torch

from refusal.batching import left_pad, length_sorted_batches, position_ids


@pytest.mark.parametrize("max_tokens", [1, 7, 50, 10_000])
def test_batches_hold_every_row_once_within_the_budget(max_tokens):
    generator = random.Random(0)
    lengths = [generator.randint(1, 30) for _ in range(101)]
    batches = length_sorted_batches(lengths, max_tokens)
    assert sorted(row for batch in batches for row in batch) == list(range(101))
    for batch in batches:
        longest = max(lengths[row] for row in batch)
        assert len(batch) * longest <= max_tokens or len(batch) == 1
    flat = [lengths[row] for batch in batches for row in batch]
    assert flat == sorted(lengths, reverse=True)


def test_batches_are_as_full_as_the_budget_allows():
    assert length_sorted_batches([5] * 7, 15) == [[0, 1, 2], [3, 4, 5], [6]]
    assert length_sorted_batches([2, 9, 2, 2], 6) == [[1], [0, 2, 3]]
    assert length_sorted_batches([], 6) == []


def test_budget_below_one_token_is_refused():
    with pytest.raises(ValueError, match="max_tokens"):
        length_sorted_batches([1], 0)


def test_left_pad_aligns_the_last_tokens():
    ids, mask = left_pad([[1, 2, 3], [4]], pad_id=9, device="cpu")
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert ids.dtype == mask.dtype == torch.int64
    assert position_ids(mask).tolist() == [[0, 1, 2], [0, 0, 0]]
