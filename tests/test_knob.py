"""The balanced test, the choice of strengths, and one knob against many in simulated worlds."""

import numpy as np
import pandas as pd
import pytest

from refusal.errors import InputError
from refusal.kind_responses import CELLS, behaviour_frame, cells, judged, require_kinds
from refusal.kinds import CORE
from refusal.knob import (
    ABLATION,
    Choice,
    Sweep,
    areas,
    choose_strengths,
    curves_frame,
    draw_cells,
    knob_scalars,
    spread,
    sweep_of,
)
from refusal.statistics import Intervals

INTERVALS = Intervals(resamples=300, seed=1)


def simulated(sharpness, n=50, seed=0, shared_noise=False) -> Sweep:
    """Directions with the same or different discrimination of harmful from benign prompts.

    Every prompt is refused if its own threshold lies below strength times the direction's push.
    """
    rng = np.random.default_rng(seed)
    strengths = (ABLATION, 0.25, 0.5, 1.0)
    push = np.array([0.0, 0.25, 0.5, 1.0])  # ablation does nothing in this world
    refused = {}
    for cell in CELLS:
        base = 0.5 if cell.endswith("-refused") else -0.5
        harmful = cell.startswith("harmful")
        values = np.empty((len(sharpness), len(push), n))
        threshold = rng.normal(size=n) * 0.3
        for d, sharp in enumerate(sharpness):
            own = threshold if shared_noise else rng.normal(size=n) * 0.3
            gain = push * (1 + (sharp if harmful else -sharp))
            values[d] = (base + gain[:, None] > own[None]).astype(float)
        refused[cell] = values
    return Sweep(tuple(f"d{i}" for i in range(len(sharpness))), strengths, refused)


def test_the_unsteered_model_has_one_half_by_construction_whatever_the_cells():
    refused = {
        "harmful-refused": np.ones((1, 1, 50)),
        "harmful-complied": np.zeros((1, 1, 7)),
        "benign-refused": np.ones((1, 1, 5)),
        "benign-complied": np.zeros((1, 1, 50)),
    }
    rates = Sweep(("d",), (1.0,), refused).rates()
    np.testing.assert_array_equal(rates[:, 0, 0], [0.5, 0.5, 0.5])


def test_full_cells_give_the_published_rates():
    sweep = simulated([0.3], n=50)
    hr, hc, br, bc = (sweep.refused[cell][0, 2].sum() for cell in CELLS)
    refusal, over_refusal, accuracy = sweep.rates()[:, 0, 2]
    assert refusal == pytest.approx((hr + hc) / 100)
    assert over_refusal == pytest.approx((br + bc) / 100)
    assert accuracy == pytest.approx((hr + hc + 100 - br - bc) / 200)


def test_resamples_equal_plain_loops():
    sweep = simulated([0.1, 0.4], n=6)
    resampled = sweep.resampled(Intervals(resamples=3, seed=5))
    for draw in range(3):
        means = {}
        for index, cell in enumerate(CELLS):
            counts = Intervals(resamples=3, seed=5 + index).counts(6)[draw]
            means[cell] = (sweep.refused[cell] * counts).sum(-1) / counts.sum()
        refusal = (means["harmful-refused"] + means["harmful-complied"]) / 2
        np.testing.assert_allclose(resampled[0, draw], refusal, atol=1e-12)


def test_small_cells_say_nothing():
    sweep = simulated([0.1], n=3)
    assert np.isnan(sweep.rates()).all()
    assert curves_frame(sweep, INTERVALS).value.isna().all()
    found = knob_scalars(sweep, [Choice("d0", 0.25, False, np.nan, np.nan)], ["d0"], INTERVALS)
    assert np.isnan(found["knob_refusal"][0].value)
    assert np.isnan(found["knob_spread_ratio"][0].value)


def test_area_knows_no_discrimination_and_perfect_discrimination():
    diagonal = np.array([[0.2, 0.5, 0.9]] * 2 + [[0.5] * 3])
    assert areas(diagonal) == pytest.approx(0.5)
    perfect = np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.5, 1.0, 0.5]])
    assert areas(perfect) == pytest.approx(1.0)
    shuffled = perfect[:, [2, 0, 1]]
    assert areas(shuffled) == pytest.approx(1.0)


def area_spread(sharpness, seed):
    sweep = simulated(sharpness, seed=seed)
    return spread(areas(sweep.rates()), areas(sweep.resampled(INTERVALS)), INTERVALS)


def test_one_shared_curve_has_a_ratio_of_about_one():
    ratios = [area_spread([0.2] * 11, seed).ratio.value for seed in range(12)]
    assert 0.8 < np.mean(ratios) < 1.25
    covered = [area_spread([0.2] * 11, seed).excess.low <= 0 for seed in range(12)]
    assert np.mean(covered) >= 0.75


def test_different_curves_have_a_larger_spread():
    measured = area_spread(np.linspace(-0.8, 0.8, 11), 0)
    assert measured.ratio.value > 3 and measured.ratio.low > 2
    assert measured.excess.value == pytest.approx(
        np.sqrt(measured.observed**2 - measured.expected**2)
    )


def sweep_with(refusal, over_refusal) -> Sweep:
    """One direction with the given rates over strengths, in cells of twenty."""
    refused = {}
    for cell in CELLS:
        shares = refusal if cell.startswith("harmful") else over_refusal
        refused[cell] = np.stack([(np.arange(20) < 20 * share) for share in shares])[None] * 1.0
    strengths = (ABLATION, *(0.25 * (1 + i) for i in range(len(refusal) - 1)))
    return Sweep(("d",), strengths, refused)


@pytest.mark.parametrize(
    ("refusal", "over_refusal", "strength", "satisfied"),
    [
        ([0.0, 0.8, 0.9, 1.0], [0.0, 0.5, 0.6, 0.7], 0.5, True),  # the smallest that does
        ([0.0, 0.95, 0.9, 1.0], [0.0, 0.9, 0.85, 0.95], 0.5, False),  # least over-refusal
        ([1.0, 0.6, 0.7, 0.5], [0.0, 0.1, 0.1, 0.1], 0.5, False),  # most refusal, not by ablation
    ],
)
def test_strengths_are_chosen_by_the_rule(refusal, over_refusal, strength, satisfied):
    choice = choose_strengths(sweep_with(refusal, over_refusal), 0.9, 0.75)[0]
    assert (choice.strength, choice.satisfied) == (strength, satisfied)


def test_scores_become_a_sweep_in_order_of_strength():
    rows = [
        (direction, strength, cell, f"{cell}-{n}", float(n < 2))
        for direction in ("b", "a")
        for strength in (0.5, 0.25, ABLATION)
        for cell in CELLS
        for n in range(5)
    ]
    scores = pd.DataFrame(rows, columns=["direction", "strength", "cell", "id", "refused"])
    scores.loc[(scores.direction == "a") & (scores.strength == 0.25), "refused"] = 1.0
    sweep = sweep_of(scores)
    assert sweep.directions == ("b", "a") and sweep.strengths == (ABLATION, 0.25, 0.5)
    assert sweep.rates()[0].tolist() == pytest.approx(np.array([[0.4] * 3, [0.4, 1.0, 0.4]]))
    frame = curves_frame(sweep, INTERVALS).set_index(["direction", "strength", "metric"])
    assert frame.loc[("a", "0.25", "refusal"), "value"] == 1
    assert frame.loc[("a", "0.25", "accuracy"), "n"] == 20


def test_scalars_read_the_chosen_strengths_and_the_controls():
    sweep = simulated([0.3, 0.3, 0.0])
    sweep = Sweep((CORE, "Advice-SB", "random-0"), sweep.strengths, sweep.refused)
    choices = [Choice(CORE, 0.5, True, 1, 1), Choice("Advice-SB", 1.0, False, 1, 1)]
    found = knob_scalars(sweep, choices, (CORE, "Advice-SB"), INTERVALS)
    rates = sweep.rates()
    assert found["knob_refusal"][0].value == pytest.approx((rates[0, 0, 2] + rates[0, 1, 3]) / 2)
    assert found["knob_random_refusal"][0].value == pytest.approx(rates[0, 2, 2])
    assert found["knob_satisfied"][0].value == 0.5
    assert found["knob_ablation_refusal"][0].value == pytest.approx(rates[0, :2, 0].mean())


# ------------------------------------------------------------------------------- responses, cells

PROMPTS = pd.DataFrame(
    [
        ("a", "noncompliant", CORE, "test", ["car"]),
        ("b", "contrast", CORE, "test", ["cake"]),
        ("c", "noncompliant", "Humanizing-CCN", "test", ["sad"]),
        ("d", "borderline", "kill", "test", None),
    ],
    columns=["id", "label", "kind", "split", "keywords"],
)


def completed(*texts) -> pd.DataFrame:
    return pd.DataFrame(
        {"id": list("abcd"), "completion": texts, "tokens": 5, "stop_reason": "eos"}
    )


def test_responses_are_judged_by_the_grammar_or_by_the_published_rule():
    texts = (
        "I cannot help you steal a car.",
        "Sure, a cake.",
        "Software is all that I am.",
        "Yes.",
    )
    own = judged(PROMPTS, completed(*texts), grammar=True)
    assert own.refused.tolist() == [1, 0, 1, 0]
    assert own["style"].tolist()[:3] == [CORE, None, "Humanizing-CCN"]
    assert own.complied.tolist()[:3] == [0, 1, 0] and np.isnan(own.complied[3])
    published = judged(PROMPTS, completed(*texts), grammar=False)
    assert published.refused.tolist() == [1, 0, 0, 0] and published["style"].isna().all()
    assert cells(own).tolist() == ["harmful-refused", "benign-complied", None, "benign-complied"]
    behaviour = behaviour_frame(own, 0.95).set_index(["kind", "label", "metric"])
    assert behaviour.loc[(CORE, "noncompliant", "right_style"), "value"] == 1


def test_cells_are_drawn_with_a_seed_and_never_beyond_what_there_is():
    table = pd.DataFrame({"id": [f"{i}" for i in range(30)]})
    cell = pd.Series(["harmful-refused"] * 20 + ["benign-refused"] * 5 + [None] * 5)
    drawn = draw_cells(table, cell, 8, seed=1)
    assert drawn.cell.value_counts().to_dict() == {"harmful-refused": 8, "benign-refused": 5}
    assert drawn.id.tolist() == draw_cells(table, cell, 8, seed=1).id.tolist()
    assert drawn.id.tolist() != draw_cells(table, cell, 8, seed=2).id.tolist()


def test_prompts_without_kinds_name_the_key_to_turn_off():
    with pytest.raises(InputError, match="no noncompliant prompt.*experiments.knob: false"):
        require_kinds(PROMPTS, "knob")
