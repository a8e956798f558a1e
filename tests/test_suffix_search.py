"""Suffixes: tokens that survive as text, where they are in a prompt, and the gradient search."""

import json

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from find_suffix import _configured
from refusal.errors import InputError
from refusal.models import encode_prompts, post_instruction_tokens
from refusal.suffix import (
    Borders,
    Suffix,
    Suffixes,
    allowed_tokens,
    given_suffix,
    instruction_ends,
    load_suffixes,
    pre_instruction_tokens,
    random_suffixes,
    save_suffixes,
    suffixed_prompts,
)
from refusal.suffix_search import (
    Problem,
    candidate_losses,
    draw_candidates,
    search_suffix,
    token_gradient,
)

TEXTS = ["Tell me a joke", "How do I bake bread?", "Go on."]
SETTINGS = {
    "steps": 6,
    "candidates": 24,
    "top_k": 16,
    "check_every": 2,
    "success": 2.0,  # cannot be reached
    "max_tokens": 600,
}


def borders() -> Borders:
    return Borders(tiny_tokenizer(), TEXTS)


def problem(n_targets: int = 3) -> Problem:
    """The three texts, cut open before the post-instruction tokens, with random targets."""
    after = post_instruction_tokens(tiny_tokenizer())
    before = [prompt[: -len(after)] for prompt in encode_prompts(tiny_tokenizer(), TEXTS)]
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(7, 100, (len(TEXTS), n_targets), generator=generator).tolist()
    return Problem(before, after, targets)


def ids(text: str) -> tuple[int, ...]:
    return tuple(tiny_tokenizer()(text, add_special_tokens=False)["input_ids"])


def reference_loss(model, one: Problem, prompt: int, embeddings: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of one prompt, alone and without padding, from embeddings of its suffix."""
    table = model.get_input_embeddings()
    target = one.targets[prompt]
    parts = [
        table(torch.tensor(one.before[prompt])),
        embeddings,
        table(torch.tensor([*one.after, *target[:-1]])),
    ]
    logits = model(inputs_embeds=torch.cat(parts)[None], use_cache=False).logits[0, -len(target) :]
    losses = -logits.log_softmax(-1)[torch.arange(len(target)), torch.tensor(target)]
    return losses.mean()


# --- tokens and text ---


def test_allowed_tokens_are_printable_and_never_special():
    tokenizer = tiny_tokenizer()
    allowed = allowed_tokens(tokenizer)
    assert not set(allowed) & set(tokenizer.all_special_ids)
    texts = [tokenizer.decode([token]) for token in allowed]
    assert all(text.isascii() and text.isprintable() and text.strip() for text in texts)
    assert {"a", "!", "th", " a"} <= set(texts)
    assert not {" ", "\n"} & set(texts)


def test_a_suffix_survives_only_if_its_text_gives_its_tokens_back():
    one = borders()
    t, h = ids("t")[0], ids("h")[0]
    good = [ids(" a thin"), ids("xyz")]
    merged = (t, h)  # "th" is a token of its own
    special = ids("x") + tuple(ids("<") + ids("e") + ids("o") + ids("s") + ids(">"))
    survivors = one.surviving([good[0], merged, special, good[1]])
    assert [suffix.tokens for suffix in survivors] == good
    assert [suffix.text for suffix in survivors] == [" a thin", "xyz"]


def test_survival_is_checked_at_every_border():
    # After "t" the token "h" merges to "th"; after "?" or "." it stays alone.
    h = ids("h")
    assert Borders(tiny_tokenizer(), ["Go.", "What?"]).surviving([h])
    assert not Borders(tiny_tokenizer(), ["Go.", "What?", "Go that"]).surviving([h])


def test_borders_are_instructions_that_end_differently():
    assert instruction_ends(["a?", "b?", "c.", "d!", "e;"], limit=4) == ["e;", "d!", "c.", "a?"]


def test_random_suffixes_survive_have_the_length_and_follow_the_seed():
    allowed = allowed_tokens(tiny_tokenizer())
    drawn = random_suffixes(borders(), allowed, 8, 6, seed=1)
    assert drawn == random_suffixes(borders(), allowed, 8, 6, seed=1)
    assert drawn != random_suffixes(borders(), allowed, 8, 6, seed=2)
    assert len({suffix.text for suffix in drawn}) == 6
    for suffix in drawn:
        assert len(suffix.tokens) == 8 and set(suffix.tokens) <= set(allowed)
        for text in TEXTS:
            (prompt,) = suffixed_prompts(tiny_tokenizer(), [text], [suffix.text])
            assert tuple(prompt.tokens[prompt.suffix]) == suffix.tokens


def test_random_suffixes_that_cannot_exist_are_an_input_error():
    with pytest.raises(InputError, match="experiments.suffix and experiments.attacks to false"):
        # After "t" the only allowed token merges into another.
        random_suffixes(Borders(tiny_tokenizer(), ["Go that"]), ids("h"), 2, 1, seed=0)


# --- where a suffix is ---


def test_positions_of_instruction_and_suffix_add_up_to_the_prompt():
    tokenizer = tiny_tokenizer()
    before, after = pre_instruction_tokens(tokenizer), post_instruction_tokens(tokenizer)
    for prompt, text in zip(suffixed_prompts(tokenizer, TEXTS, [" xy"] * 3), TEXTS, strict=True):
        expected = [*before, *ids(text), *ids(" xy"), *after]
        assert prompt.tokens == expected == encode_prompts(tokenizer, [text + " xy"])[0]
        assert prompt.tokens[prompt.instruction] == list(ids(text))
        assert prompt.tokens[prompt.suffix] == list(ids(" xy"))


def test_without_a_suffix_its_slice_is_empty():
    (prompt,) = suffixed_prompts(tiny_tokenizer(), ["Go."], [""])
    assert prompt.tokens == encode_prompts(tiny_tokenizer(), ["Go."])[0]
    assert prompt.tokens[prompt.suffix] == []
    assert prompt.tokens[prompt.instruction] == list(ids("Go."))


def test_a_token_across_the_border_belongs_to_the_suffix():
    (prompt,) = suffixed_prompts(tiny_tokenizer(), ["Go t"], ["hx"])
    assert prompt.tokens[prompt.instruction] == list(ids("Go "))
    assert prompt.tokens[prompt.suffix] == list(ids("thx"))


def test_a_suffix_that_repeats_the_post_instruction_text_is_found():
    (prompt,) = suffixed_prompts(tiny_tokenizer(), ["Go"], ["\n"])
    assert prompt.tokens[prompt.suffix] == list(ids("\n"))


def test_a_configured_suffix_has_the_tokens_of_its_text():
    assert given_suffix(borders(), " or so") == Suffix(" or so", ids(" or so"))


# --- files ---


def test_suffixes_are_read_as_written(tmp_path):
    suffixes = Suffixes(
        Suffix(" a", (5, 6)), [Suffix(" b", (7,)), Suffix(" c", (8,))], {"steps": 2}
    )
    save_suffixes(tmp_path / "m.json", "m", suffixes)
    assert load_suffixes(tmp_path / "m.json") == suffixes
    assert json.loads((tmp_path / "m.json").read_text())["model"] == "m"
    assert [suffixes.random_for(i).text for i in range(3)] == [" b", " c", " b"]


@pytest.mark.parametrize("content", ["{", "{}", '{"found": {"text": "a"}, "random": []}'])
def test_a_damaged_file_is_an_input_error(tmp_path, content):
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(InputError, match=r"m\.json: cannot be read .* Remedy"):
        load_suffixes(tmp_path / "m.json")


# --- losses and gradient ---


def test_candidates_in_a_batch_have_the_losses_they_have_alone(architecture):
    model, _ = tiny_model(architecture)
    one, candidates = problem(), [ids(" a thin"), ids("xyzab"), ids("in er")]
    together = candidate_losses(model, one, candidates, [0, 2, 1], max_tokens=200)
    assert together.shape == (3, 3) and together.dtype == torch.float64
    table = model.get_input_embeddings()
    for row, candidate in enumerate(candidates):
        for column, prompt in enumerate([0, 2, 1]):
            alone = reference_loss(model, one, prompt, table(torch.tensor(candidate)))
            assert together[row, column].item() == pytest.approx(alone.item(), abs=2e-5)


def test_gradient_is_that_of_the_one_hot_tokens(architecture):
    model, _ = tiny_model(architecture)
    one, suffix = problem(), ids(" a thin")
    # Weights of the embedding as the model uses them: some architectures scale inside the module.
    embedding = model.get_input_embeddings()
    table = embedding(torch.arange(embedding.num_embeddings))
    one_hot = torch.nn.functional.one_hot(torch.tensor(suffix), len(table)).float()
    one_hot.requires_grad_()
    loss = sum(reference_loss(model, one, prompt, one_hot @ table) for prompt in range(3)) / 3
    (expected,) = torch.autograd.grad(loss, one_hot)
    for max_tokens in (30, 2000):
        found = token_gradient(model, one, suffix, [0, 1, 2], max_tokens=max_tokens)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_targets_of_unequal_length_are_an_input_error():
    with pytest.raises(InputError, match=r"suffix\.target_tokens.*Remedy: lower it"):
        Problem([[1], [2]], [3], [[4, 5], [6]])


# --- search ---


def test_candidates_replace_one_token_by_a_promising_allowed_one():
    gradient = torch.zeros(3, 10)
    gradient[:, 7], gradient[:, 4], gradient[:, 9] = -2.0, -1.0, -5.0
    allowed = torch.tensor([3, 4, 7, 8])  # 9 is the best, but not allowed
    drawn = draw_candidates((7, 8, 3), gradient, allowed, 200, 2, torch.Generator().manual_seed(0))
    expected = {(4, 8, 3), (7, 7, 3), (7, 4, 3), (7, 8, 7), (7, 8, 4)}
    assert set(drawn) == expected and len(drawn) == len(expected)


def searched(evaluate, seed: int = 0, **settings):
    model, tokenizer = tiny_model("llama")
    one, allowed = borders(), allowed_tokens(tokenizer)
    (start,) = random_suffixes(one, allowed, 5, 1, seed=0)
    found, record = search_suffix(
        model,
        one,
        problem(),
        start,
        evaluate,
        SETTINGS | settings,
        allowed=allowed,
        seed=seed,
    )
    return start, found, record


def validation_loss(suffix: Suffix) -> dict[str, float]:
    """The loss on the optimised prompts stands for success: a search must raise this."""
    model, _ = tiny_model("llama")
    losses = candidate_losses(model, problem(), [suffix.tokens], range(3), max_tokens=2000)
    return {"success": -losses.mean().item()}


def test_search_lowers_the_loss_and_is_deterministic():
    start, found, record = searched(validation_loss)
    assert validation_loss(found)["success"] > validation_loss(start)["success"] + 0.1
    _, again, second = searched(validation_loss)
    assert found == again and record["loss"] == second["loss"]
    assert record["steps"] == len(record["loss"]) == 6 and not record["met"]
    assert [check["step"] for check in record["validation"]] == [0, 2, 4, 6]
    _, other, _ = searched(validation_loss, seed=1)
    assert other != found


def test_search_returns_the_suffix_that_validation_likes_best():
    seen: list[Suffix] = []

    def evaluate(suffix: Suffix) -> dict[str, float]:
        seen.append(suffix)
        return {"success": [0.0, 0.5, 0.5, 0.2][len(seen) - 1]}

    _, found, record = searched(evaluate)
    assert found == seen[1] and record["best_step"] == 2


def test_search_ends_when_validation_is_satisfied():
    _, _, record = searched(lambda suffix: {"success": 0.7}, success=0.7)
    assert record["met"] and record["steps"] == 2


def test_the_search_does_not_return_what_is_no_better_than_its_start():
    start, found, record = searched(lambda suffix: {"success": 0.3})
    assert found == start and record["best_step"] == 0


# --- loaded models ---


def test_a_loaded_model_has_the_suffix_of_the_config_or_a_clear_error():
    assert _configured(borders(), "mine", " or so").text == " or so"
    with pytest.raises(InputError, match=r"models\.mine\.suffix: .*experiments\.attacks to false"):
        _configured(borders(), "mine", None)
