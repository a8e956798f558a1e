"""Tiny random models of every architecture, made here: no test downloads anything."""

import os
from functools import cache
from pathlib import Path

import pytest
import torch
from command_line import SMOKE_STUDY, clone, snakemake
from filelock import FileLock
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

torch.set_num_threads(1)

# Files that run whole studies: they begin first, so that no process is left with one of them.
LONG = ("test_workflow", "test_conda", "test_recovery", "test_slurm", "test_rehearsal")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files come first; pytest-xdist hands out whole files in the order of the items."""
    items.sort(key=lambda item: item.path.stem not in LONG)


ARCHITECTURES = (
    "llama",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "mistral",
    "phi3",
    "gpt_neox",
    "olmo2",
)
WIDTH = 32
N_LAYERS = 3
SPECIAL_TOKENS = ("<pad>", "<unk>", "<bos>", "<eos>", "<user>", "<assistant>", "<end>")
CHAT_TEMPLATE = (
    "<bos>{% for message in messages %}<{{ message.role }}>\n{{ message.content }}<end>\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}"
)

# What differs from the shared settings. A short sliding window, so that prompts outgrow it.
_SETTINGS = {
    "gemma": {"head_dim": 8},
    "qwen3": {"head_dim": 8},
    "gemma2": {
        "model_type": "gemma2",
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 16,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "mistral": {"model_type": "mistral", "sliding_window": 16},
}


@cache
def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """Byte-level tokenizer over printable ASCII (other bytes are <unk>), with a chat template."""
    characters = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
    vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *characters))}
    merges = [("t", "h"), ("Ġ", "a"), ("i", "n"), ("e", "r")]
    for pair in merges:
        vocabulary["".join(pair)] = len(vocabulary)
    backend = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
    )


def build_model(architecture: str, seed: int = 0):
    """A fresh random model of 3 blocks; every parameter is random, norm weights and biases too.

    Weights inside the blocks have a gain of 2, so that attention is sharp and logits differ between
    prompts and positions; norm weights spread around their neutral value, so that a hook before a
    post-norm and one after it are told apart.
    """
    tokenizer = tiny_tokenizer()
    settings = {
        "model_type": architecture,
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 48,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    } | _SETTINGS.get(architecture, {})
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 2 * parameter.shape[-1] ** -0.5, generator=generator)
            else:
                parameter.add_(torch.empty_like(parameter).uniform_(-0.4, 0.4, generator=generator))
        model.get_input_embeddings().weight.normal_(0, 0.5, generator=generator)
        model.get_output_embeddings().weight.mul_(0.5)
    # A random model never stops on purpose: tests of generation ask for the end tokens they want.
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model.eval().requires_grad_(False)


@cache
def tiny_model(architecture: str):
    """(model, tokenizer), made once per session: tests share it and must not change it."""
    return build_model(architecture), tiny_tokenizer()


def save_tiny_checkpoint(path: Path, architecture: str = "llama") -> Path:
    """Write the tiny model and its tokenizer as a checkpoint folder; returns the folder."""
    model, tokenizer = tiny_model(architecture)
    folder = Path(path) / architecture
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=ARCHITECTURES)
def architecture(request) -> str:
    """Runs a test once for every architecture."""
    return request.param


@pytest.fixture(scope="session")
def smoke_folder(tmp_path_factory) -> Path:
    """A copy of the repository as a fresh clone would have it, in which the smoke study can run."""
    return clone(tmp_path_factory.mktemp("smoke"))


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> Path:
    """A copy after the smoke study ran uninterrupted on this machine: what others are held to.

    The processes of the tests share it, so nobody may change it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smoke_run"
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            (shared / "printed.txt").write_text(snakemake(clone(shared), study=SMOKE_STUDY).stdout)
    printed = (shared / "printed.txt").read_text()
    assert (shared / "results/smoke/paper/main.pdf").exists(), printed[-6000:]
    return shared
