"""Hugging Face checkpoints: loading, chat prompts, the parts of a block, and the model card.

Nothing here lists architectures. The decoder layers are the one list of `num_hidden_layers`
modules; attention, MLP and post-norms are found by their names inside a block; and
`check_write_modules` proves the choice with numbers before anything is measured.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from refusal.batching import left_pad, position_ids
from refusal.chat_templates import render_chat
from refusal.errors import InputError
from refusal.hub import HUB_ID, hub_reason
from refusal.qwen1 import is_qwen1

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}

# Llama 3.1's template prints the day, or this one where it cannot know it. The same prompts have to
# be made on every day.
TEMPLATE_DAY = date(2024, 7, 26)
_TODAY = re.compile(r"""strftime_now\(\s*(["'])(?P<format>.*?)\1\s*\)""")

# Keeps the log-odds finite; the value of the published code (methods: Arditi et al., app. B).
METRIC_EPSILON = 1e-8

_GENERIC_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")
_ATTENTION_NAMES = ("self_attn", "attention", "attn", "self_attention", "linear_attn")
_MLP_NAMES = ("mlp", "feed_forward", "block_sparse_moe", "ffn")
# Norms of what a sub-block WRITES. `post_attention_layernorm` alone is no sign of one: in Llama it
# is the norm of what the MLP reads. Only together with the second name does it act on the output.
_POST_NORM_NAMES = (
    ("post_attention_layernorm", "post_feedforward_layernorm"),
    ("post_self_attn_layernorm", "post_mlp_layernorm"),
)
# Endings of different kinds (letter, digit, punctuation), so that a token merged across the border
# between instruction and template is not taken for one of the template.
_PROBE_INSTRUCTIONS = ("Tell me a joke", "Count to 7", "What is that?", "Write (b)", "Go.", "a, b")


# --- loading ----------------------------------------------------------------------------------


def _is_folder(path: str | Path) -> bool:
    """Whether `path` is a checkpoint folder (checked) rather than a hub id.

    Raises:
        InputError: a folder without config.json or weights, or neither a folder nor a hub id.
    """
    folder = Path(path)
    if not folder.is_dir():
        if not HUB_ID.fullmatch(str(path)):
            raise InputError(
                f"{path}: no such folder. Remedy: give an existing checkpoint folder or a hub id."
            )
        return False
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{path}: not a checkpoint, config.json is missing. "
            "Remedy: give the folder that save_pretrained wrote."
        )
    return True


def _require_weights(folder: Path) -> None:
    """Raises InputError if a checkpoint folder has no safetensors weights of a known kind."""
    if is_qwen1(folder):
        raise InputError(
            f"{folder}: a first-generation Qwen checkpoint, which brings code of its own. Remedy: "
            "convert it with workflow/scripts/convert_qwen1.py and give the new folder."
        )
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder}: no *.safetensors weights. Remedy: save the model with save_pretrained "
            "(weights in other formats are not read)."
        )


@contextmanager
def clear_errors(path: str | Path, local: bool, what: str) -> Iterator[None]:
    """Turn a failure of the loading library into one line that names `path`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever the loader stumbles over is the checkpoint's
        if not local and isinstance(error, OSError):
            raise InputError(hub_reason(error, path)) from error
        detail = " ".join(str(error).split())[:300]
        raise InputError(
            f"{path}: the {what} cannot be loaded ({type(error).__name__}: {detail}). "
            "Remedy: check that the checkpoint is complete and known to transformers."
        ) from error


def load_tokenizer(
    path: str | Path, revision: str | None = None, *, chat: bool = True
) -> PreTrainedTokenizerBase:
    """Tokenizer of a checkpoint, padding on the left, with a pad token.

    A checkpoint without a chat template is refused unless `chat` is false.

    A checkpoint that names the generic class is loaded by that class: AutoTokenizer would choose
    by architecture instead, and for some (Qwen2) silently splits text in another way.

    Raises:
        InputError: no such checkpoint, no chat template, or neither pad nor end token.
    """
    local = _is_folder(path)
    with clear_errors(path, local, "tokenizer"):
        declared = get_tokenizer_config(str(path), revision=revision).get("tokenizer_class")
        generic = declared in _GENERIC_TOKENIZERS
        loader = PreTrainedTokenizerFast if generic else AutoTokenizer
        tokenizer = loader.from_pretrained(str(path), revision=revision, trust_remote_code=False)
    if chat and not tokenizer.chat_template:
        raise InputError(
            f"{path}: the tokenizer has no chat template. Remedy: use an instruction-tuned "
            "checkpoint or add chat_template.jinja to the folder."
        )
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        raise InputError(
            f"{path}: the tokenizer has neither a pad nor an end token. "
            "Remedy: set eos_token in tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    if isinstance(tokenizer.chat_template, str):
        tokenizer.chat_template = on_one_day(tokenizer.chat_template)
    return tokenizer


def on_one_day(template: str) -> str:
    """A chat template that prints `TEMPLATE_DAY` where it printed the day on which it is used."""
    return _TODAY.sub(lambda found: repr(TEMPLATE_DAY.strftime(found["format"])), template)


def load_model(
    path: str | Path,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    revision: str | None = None,
    attention: str | None = None,
) -> PreTrainedModel:
    """Causal language model of a checkpoint, in evaluation mode and without gradients.

    Only safetensors weights are read and no remote code is run.

    Args:
        path: checkpoint folder or hub id.
        dtype: float16, bfloat16, float32 or float64.
        device: a torch device, or "auto" to spread the layers over all devices (needs accelerate).
        revision: branch, tag or commit of a hub id.
        attention: attention implementation of transformers; None lets it choose (eager where the
            architecture needs it, as the soft-capped attention of Gemma 2 does).

    Raises:
        InputError: unknown dtype or device, missing folder, no checkpoint, gated or unknown hub id,
            or a checkpoint with an adapter in it.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype: unknown value '{dtype}'. Remedy: use one of {', '.join(DTYPES)}.")
    placement = _device_map(device)
    local = _is_folder(path)
    if local:
        _require_weights(Path(path))
    with clear_errors(path, local, "model"):
        model = AutoModelForCausalLM.from_pretrained(
            str(path),
            revision=revision,
            dtype=DTYPES[dtype],
            device_map=placement,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
        )
    if getattr(model, "_hf_peft_config_loaded", False):
        raise InputError(
            f"{path}: an adapter lies in the checkpoint, and would act unseen. Remedy: merge it "
            "into the weights, or remove adapter_config.json."
        )
    return model.eval().requires_grad_(False)


def _device_map(device: str) -> str | None:
    """What `device_map` transformers needs for `device`; None keeps the model on the CPU."""
    if device in ("auto", "cpu"):
        return None if device == "cpu" else device
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"device: '{device}' cannot be used here. Remedy: use cpu, auto, or a device that "
            "torch can see."
        ) from error
    return device


# --- the parts of a model ---------------------------------------------------------------------


def architecture_name(model: PreTrainedModel) -> str:
    """`config.model_type`, by which error messages and the model card name the architecture."""
    return model.config.model_type


def input_device(model: PreTrainedModel) -> torch.device:
    """Device of the embedding, where token ids have to be (the first one of a spread model)."""
    return model.get_input_embeddings().weight.device


def residual_width(model: PreTrainedModel) -> int:
    """Width d of the residual stream."""
    return model.config.get_text_config(decoder=True).hidden_size


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Blocks of the decoder in order, length L: its one list of `num_hidden_layers` modules.

    Raises:
        InputError: there is none, or several.
    """
    n_layers = model.config.get_text_config(decoder=True).num_hidden_layers
    found = [
        module
        for module in model.get_decoder().children()
        if isinstance(module, nn.ModuleList) and len(module) == n_layers
    ]
    if len(found) != 1:
        raise InputError(
            f"{architecture_name(model)}: found {len(found)} lists of {n_layers} decoder blocks, "
            "expected one. Remedy: extend refusal.models.decoder_layers for this architecture."
        )
    return found[0]


def write_modules(model: PreTrainedModel) -> list[tuple[nn.Module, nn.Module]]:
    """Per block the two modules whose OUTPUT is what attention and MLP add to the residual stream.

    Where a block normalises a sub-block's output (Gemma 2 and 3, OLMo 2), these are the norms.
    `check_write_modules` proves the choice.

    Raises:
        InputError: a block whose parts carry unknown names.
    """
    return [_block_writes(block, architecture_name(model)) for block in decoder_layers(model)]


def _block_writes(block: nn.Module, architecture: str) -> tuple[nn.Module, nn.Module]:
    """Attention and MLP write of one block; see `write_modules`."""
    parts = dict(block.named_children())
    for attention_norm, mlp_norm in _POST_NORM_NAMES:
        if attention_norm in parts and mlp_norm in parts:
            return parts[attention_norm], parts[mlp_norm]
    return _block_parts(block, architecture)


def sub_blocks(model: PreTrainedModel) -> list[tuple[nn.Module, nn.Module]]:
    """Per block its attention and its MLP module, before any post-norm.

    Raises:
        InputError: a block whose parts carry unknown names.
    """
    return [_block_parts(block, architecture_name(model)) for block in decoder_layers(model)]


def _block_parts(block: nn.Module, architecture: str) -> tuple[nn.Module, nn.Module]:
    """Attention and MLP of one block; see `sub_blocks`."""
    parts = dict(block.named_children())
    attention = next((parts[name] for name in _ATTENTION_NAMES if name in parts), None)
    mlp = next((parts[name] for name in _MLP_NAMES if name in parts), None)
    if attention is None or mlp is None:
        missing = "attention" if attention is None else "MLP"
        raise InputError(
            f"{architecture}: no known {missing} module in a block of {', '.join(parts)}. "
            "Remedy: add its name to refusal/models.py, or use scope 'source', which needs none."
        )
    return attention, mlp


def first_tensor(output: Tensor | tuple) -> Tensor:
    """The hidden states of a module's output: a tensor, or the first entry of a tuple."""
    return output if isinstance(output, Tensor) else output[0]


def block_input(args: tuple, kwargs: dict) -> Tensor:
    """The hidden states among the arguments of a block."""
    return args[0] if args else kwargs["hidden_states"]


@contextmanager
def removing(handles: list) -> Iterator[None]:
    """Remove the hooks in `handles` (also those added later) on leaving, whatever happens."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_write_modules(model: PreTrainedModel) -> None:
    """Prove on a short random forward pass: output - input of every block == sum of its two writes.

    Tolerance: 1e-4 of the writes' norm, plus the rounding of the residual stream itself.

    Raises:
        InputError: the sum does not hold, so that hooks on the writes would do something else.
    """
    rounding = 2 * torch.finfo(model.dtype).eps
    for layer, (before, attention, mlp, after) in enumerate(_blocks_of_a_random_pass(model)):
        written = (attention + mlp).view_as(before)
        error = (after - before - written).norm()
        # Negated, so that NaN fails too.
        if not error <= 1e-4 * written.norm() + rounding * after.norm():
            raise InputError(
                f"{architecture_name(model)}: block {layer} does not add its attention and MLP "
                f"output to the residual stream (relative error {error / written.norm():.1e}). "
                "Remedy: extend refusal.models.write_modules, or use scope 'source' only."
            )


@torch.no_grad()
def run_random_tokens(model: PreTrainedModel) -> None:
    """One forward pass over eight random tokens, for hooks that prove how a model is built."""
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = torch.randint(vocabulary, (1, 8), generator=torch.Generator().manual_seed(0))
    model(input_ids=ids.to(input_device(model)), use_cache=False)


def _blocks_of_a_random_pass(model: PreTrainedModel) -> list[tuple[Tensor, ...]]:
    """Input, attention write, MLP write and output of every block for eight random tokens."""
    blocks = list(zip(decoder_layers(model), write_modules(model), strict=True))
    seen: list[dict[str, Tensor]] = [{} for _ in blocks]

    def record_input(layer: int):
        def hook(module, args, kwargs):
            seen[layer]["input"] = block_input(args, kwargs).double().cpu()

        return hook

    def record(layer: int, name: str):
        def hook(module, args, output):
            seen[layer][name] = first_tensor(output).double().cpu()

        return hook

    handles: list = []
    with removing(handles):
        for layer, (block, (attention, mlp)) in enumerate(blocks):
            handles.append(block.register_forward_pre_hook(record_input(layer), with_kwargs=True))
            handles.append(attention.register_forward_hook(record(layer, "attention")))
            handles.append(mlp.register_forward_hook(record(layer, "mlp")))
            handles.append(block.register_forward_hook(record(layer, "output")))
        run_random_tokens(model)
    return [tuple(part[name] for name in ("input", "attention", "mlp", "output")) for part in seen]


# --- prompts ----------------------------------------------------------------------------------


def chat_prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """`text` as the only user message in the chat template, up to where the answer begins."""
    return render_chat(tokenizer, [{"role": "user", "content": text}])


def encode_prompts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of every text in the chat template, which itself carries the begin token."""
    if not texts:
        return []
    prompts = [chat_prompt(tokenizer, text) for text in texts]
    return [list(ids) for ids in tokenizer(prompts, add_special_tokens=False)["input_ids"]]


def post_instruction_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of the chat template after the instruction: the positions -P..-1 of Arditi et al.

    They are the common end of several rendered prompts, so that no template has to be known.

    Raises:
        InputError: the prompts have no common end.
    """
    prompts = encode_prompts(tokenizer, _PROBE_INSTRUCTIONS)
    common: list[int] = []
    for column in zip(*(reversed(prompt) for prompt in prompts), strict=False):
        if len(set(column)) > 1:
            break
        common.insert(0, column[0])
    if not common:
        raise InputError(
            "chat template: nothing follows the instruction, so there is no position to read. "
            "Remedy: use a template that adds tokens when add_generation_prompt is true."
        )
    return common


# --- logits -----------------------------------------------------------------------------------


def end_logits(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], n_positions: int = 1
) -> Tensor:
    """Logits [rows, n_positions, vocabulary] after the last tokens of every row of one batch.

    One forward pass; only these positions go through the head. Gradients flow if they are enabled.
    """
    # Padding is masked, so any token does; 0 is in every vocabulary.
    input_ids, attention_mask = left_pad(sequences, 0, input_device(model))
    return model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids(attention_mask),
        use_cache=False,
        logits_to_keep=n_positions,
    ).logits


# --- refusal metric ---------------------------------------------------------------------------


def refusal_metric(logits: Tensor, refusal_tokens: Sequence[int]) -> Tensor:
    """Log-odds of the refusal tokens: log(p + e) - log(1 - p + e), p their summed probability.

    Arditi et al. 2024, app. B; e = 1e-8. [..., vocabulary] -> [...], float64, in nats; above 0 the
    next token is more likely than not to begin a refusal.
    """
    probability = logits.double().softmax(-1)[..., list(refusal_tokens)].sum(-1)
    return (probability + METRIC_EPSILON).log() - (1 - probability + METRIC_EPSILON).log()


def find_refusal_tokens(
    harmful_logits: Tensor, harmless_logits: Tensor, min_share: float = 0.05
) -> list[int]:
    """Tokens with which a model begins its refusals, found from its own behaviour.

    Those that are the most likely next token for at least `min_share` of the harmful prompts and
    for a larger share of the harmful than of the harmless ones; the most frequent first.

    Args:
        harmful_logits, harmless_logits: [prompts, vocabulary] at the last prompt position.

    Raises:
        InputError: there are none, so that the model does not refuse in a way that can be seen.
    """

    def shares(logits: Tensor) -> Tensor:
        chosen = logits.argmax(-1).cpu()
        return torch.bincount(chosen, minlength=logits.shape[-1]).double() / len(chosen)

    harmful, harmless = shares(harmful_logits), shares(harmless_logits)
    found = ((harmful >= min_share) & (harmful > harmless)).nonzero().flatten().tolist()
    if not found:
        raise InputError(
            f"refusal tokens: no token begins at least {min_share:.0%} of the answers to harmful "
            "prompts and fewer of those to harmless ones. Remedy: use a model that refuses."
        )
    return sorted(found, key=lambda token: (-harmful[token].item(), token))


# --- model card -------------------------------------------------------------------------------


def weights_sha256(folder: Path) -> str:
    """SHA-256 of all safetensors files in name order: `cat *.safetensors | sha256sum`."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def model_card(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str,
    path: str | Path,
    refusal_tokens: Sequence[int],
    revision: str | None = None,
    trained: dict | None = None,
) -> dict:
    """Facts about a model that later stages and the paper need, ready for json.

    Args:
        name: the model's name in the config.
        path: checkpoint folder or hub id.
        refusal_tokens: token ids, see `find_refusal_tokens`.
        revision: as asked for; the commit that the hub resolved it to replaces it.
        trained: how an organism was trained, None for any other checkpoint.
    """
    local = Path(path).is_dir()
    positions = post_instruction_tokens(tokenizer)
    commit = None if local else getattr(model.config, "_commit_hash", None)
    return {
        "name": name,
        "path": str(path),
        "revision": commit or revision,
        "architecture": architecture_name(model),
        "n_layers": len(decoder_layers(model)),
        "width": residual_width(model),
        "vocabulary": model.get_input_embeddings().num_embeddings,
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "post_instruction_tokens": positions,
        "post_instruction_strings": [tokenizer.decode([token]) for token in positions],
        "chat_template_sha256": _sha256(tokenizer.get_chat_template()),
        "weights_sha256": weights_sha256(Path(path)) if local else None,
        "refusal_tokens": list(refusal_tokens),
        "refusal_token_strings": [tokenizer.decode([token]) for token in refusal_tokens],
        "trained": trained,
    }
