"""The sparse autoencoder recovers a planted dictionary; shared features against plain counts."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import build_model

from refusal.activations import sweep, token_activations
from refusal.errors import InputError
from refusal.kinds import CORE
from refusal.sparse_autoencoder import (
    SparseAutoencoder,
    keep_largest,
    load_autoencoder,
    quality,
    save_autoencoder,
    train,
)
from refusal.sparse_features import (
    feature_directions,
    features_frame,
    overlap_frame,
    separation,
    shared_by,
    sharing_frame,
    sharing_scalars,
    top_features,
)

SETTINGS = {"features": 32, "active": 2, "steps": 600, "batch_size": 128, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def planted():
    """Activations made of two of sixteen unit vectors each, and the vectors."""
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(16, 12))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    code = np.zeros((4000, 16))
    for row in code:
        row[rng.choice(16, 2, replace=False)] = rng.uniform(1, 3, size=2)
    return torch.tensor(code @ atoms, dtype=torch.float32), atoms


@pytest.fixture(scope="module")
def autoencoder(planted):
    return train(planted[0][:3000], SETTINGS, seed=0)


def test_a_planted_dictionary_is_recovered(planted, autoencoder):
    activations, atoms = planted
    found = quality(autoencoder, activations[3000:])
    assert found.explained > 0.8
    cosine = np.abs(atoms @ autoencoder.W_dec.double().numpy().T).max(1)
    assert np.median(cosine) > 0.9
    untrained = SparseAutoencoder(12, 32, 2)
    assert quality(untrained.requires_grad_(False), activations[3000:]).explained < 0.5


def test_codes_are_sparse_and_rows_have_norm_one(planted, autoencoder):
    code = autoencoder.encode(planted[0][:50])
    assert ((code > 0).sum(1) <= 2).all() and (code >= 0).all()
    torch.testing.assert_close(autoencoder.W_dec.norm(dim=1), torch.ones(32))


def test_keep_largest_keeps_positive_values_in_place():
    kept = keep_largest(torch.tensor([[3.0, -1.0, 2.0, 1.0], [-1.0, -2.0, -3.0, 0.5]]), 2)
    assert kept.tolist() == [[3, 0, 2, 0], [0, 0, 0, 0.5]]


def test_training_is_the_same_for_a_seed(planted, autoencoder):
    again = train(planted[0][:3000], SETTINGS, seed=0)
    assert torch.equal(again.W_dec, autoencoder.W_dec)


def test_an_autoencoder_survives_saving(tmp_path, planted, autoencoder):
    path = tmp_path / "a.safetensors"
    save_autoencoder(path, autoencoder)
    read = load_autoencoder(path, 12)
    assert torch.equal(read.encode(planted[0][:20]), autoencoder.encode(planted[0][:20]))
    with pytest.raises(InputError, match="decodes to width 12, but the model has 8"):
        load_autoencoder(path, 8)
    (tmp_path / "no.safetensors").write_bytes(b"none")
    with pytest.raises(InputError, match="W_enc, b_enc, W_dec, b_dec"):
        load_autoencoder(tmp_path / "no.safetensors", 12)


def test_token_activations_are_those_of_each_prompt_alone(architecture):
    model = build_model(architecture)
    sequences = [[5, 6, 7], [8, 9, 10, 11, 12], [13, 14]]
    read = token_activations(model, sequences, 1, max_tokens=64)
    assert read.shape[0] == 10
    alone = torch.cat(
        [
            sweep(model, [row], len(row), max_tokens=64, layers=[1]).residual[0, :, 0]
            for row in sequences
        ]
    )
    distances = torch.cdist(alone, read).min(1)
    assert distances.values.max() < 1e-4 and len(set(distances.indices.tolist())) == 10


@pytest.fixture
def fires():
    """Feature 0 fires on every noncompliant prompt, feature 1 + k on those of kind k alone."""
    rng = np.random.default_rng(1)
    kinds = (CORE, "Humanizing-CCN", "Advice-SB")
    found = {}
    for index, kind in enumerate(kinds):
        bad, good = rng.random((20, 10)) < 0.2, rng.random((20, 10)) < 0.2
        bad[:, 0] = bad[:, 1 + index] = True
        found[kind, "noncompliant"], found[kind, "contrast"] = bad, good
    return found


def test_separation_and_lists(fires):
    table = separation(fires)
    negative = fires[CORE, "contrast"]
    expected = fires["Advice-SB", "noncompliant"].mean(0) - negative.mean(0)
    np.testing.assert_allclose(table.loc["Advice-SB"], expected)
    frame = features_frame(table, 2)
    assert set(frame[frame.kind == "Humanizing-CCN"].feature) == {0, 2}
    assert (frame.groupby("kind").separation.diff().dropna() <= 0).all()


def test_sharing_counts_lists_and_its_null_is_lower(fires):
    lists = np.array([[0, 1], [0, 2], [0, 3]])
    assert shared_by(lists, 5).tolist() == [1, 3, 0, 1]
    frame = sharing_frame(fires, 2, seed=0)
    assert frame.value.tolist() == [4, 1, 1]
    assert frame.p_value.iloc[-1] < 0.2 and frame.null.iloc[-1] < 1
    overlap = overlap_frame(separation(fires), 2)
    assert overlap.value.tolist() == pytest.approx([1 / 3] * 3)
    found = sharing_scalars(frame, overlap, 2)
    assert found["feature_core_share"][0].value == 0.5
    gain = found["feature_core_gain"][0]
    assert gain.low <= gain.value <= gain.high


def test_shuffled_labels_share_what_fires_on_both_sides():
    """Features that fire at random in all prompts alike share no more than their null."""
    rng = np.random.default_rng(2)
    noise = {
        (kind, side): rng.random((20, 60)) < 0.3
        for kind in (CORE, "Humanizing-CCN", "Advice-SB")
        for side in ("noncompliant", "contrast")
    }
    frame = sharing_frame(noise, 10, seed=0)
    assert frame.p_value.iloc[-1] > 0.05


def test_feature_directions_are_mean_rows(fires):
    decoder = np.random.default_rng(3).normal(size=(10, 6))
    table = separation(fires)
    found = feature_directions(table, decoder, 2)
    rows = top_features(table.to_numpy(), 2)[0]
    mean = decoder[rows].mean(0)
    np.testing.assert_allclose(found[CORE], mean / np.linalg.norm(mean))
    assert isinstance(table, pd.DataFrame)
