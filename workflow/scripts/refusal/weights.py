"""Weight orthogonalisation: an intervention made by editing, in memory, what writes.

Arditi et al. 2024, section 2.4 (eq. 5) and appendix E: with W_out <- W_out - r r^T W_out for every
matrix that writes to the residual stream (embedding, positions, attention output, MLP output, and
their biases) no component of the model can write along r any more. For any linear operator on
row vectors h -> h (I - alpha R^T R) the same edit applies it to everything that is written.

    with edited_weights(model, Operator.project(basis)):
        model.generate(...)

Which models it is exact for:
- What attention and MLP hand on is added to the residual stream as it is (Llama, Qwen 2, Mistral,
  Phi-3, GPT-NeoX, GPT-2): the edit equals hooks of scope `writes` for every alpha, and therefore,
  for alpha = 1, those of scope `all` (directional ablation).
- A norm lies in between (Gemma 2 and 3, OLMo 2; `has_post_norms`): NO edit of these matrices
  equals the hooks. The norm divides by the length of what it is given, which the edit changes, and
  its weight turns the direction. `refusal.equivalence` measures the difference.

Nothing is ever written to disk.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from refusal.errors import InputError
from refusal.models import (
    architecture_name,
    block_input,
    decoder_layers,
    first_tensor,
    removing,
    residual_width,
    run_random_tokens,
    sub_blocks,
    write_modules,
)
from refusal.operators import Operator

# Entries that are edited at a time: what bounds the memory of the float64 copy (128 MiB).
_CHUNK = 1 << 24
_REMEDY = "Remedy: use scope 'writes' instead of 'weights', and experiments.weights: false."


def has_post_norms(model: PreTrainedModel) -> bool:
    """Whether blocks normalise what attention and MLP write, so that no edit equals the hooks."""
    parts = zip(sub_blocks(model), write_modules(model), strict=True)
    return any(part is not write for pair in parts for part, write in zip(*pair, strict=True))


# --- the matrices -----------------------------------------------------------------------------


def write_matrices(model: PreTrainedModel) -> list[nn.Module]:
    """The modules that write to the residual stream: embeddings, then two layers per block.

    Embeddings are those of tokens and, where they are learned, of positions; the layers of a block
    are the output projections of attention and MLP, before any post-norm. No name is looked up:
    on a short random pass the input of the first block is the sum of the embeddings (up to a
    factor, as in Gemma), and the output of attention and of MLP is that of one linear layer.

    Raises:
        InputError: a sum or a layer of this kind does not exist (as in a mixture of experts).
    """
    embeddings = [
        module
        for module in model.get_decoder().modules()
        if isinstance(module, nn.Embedding) and module.embedding_dim == residual_width(model)
    ]
    parts = sub_blocks(model)
    layers = {part: _linear_layers(part) for pair in parts for part in pair}
    candidates = [layer for found in layers.values() for layer in found]
    first_input, outputs = _random_pass(model, [*embeddings, *layers, *candidates])
    embeddings = [module for module in embeddings if module in outputs]
    _check_embeddings(model, first_input, [outputs[module] for module in embeddings])
    writers = []
    for index, pair in enumerate(parts):
        for kind, part in zip(("attention", "MLP"), pair, strict=True):
            same = [layer for layer in layers[part] if _equal(outputs, layer, part)]
            if len(same) != 1:
                raise InputError(
                    f"{architecture_name(model)}: the {kind} output of block {index} is not that "
                    f"of one linear layer (a mixture of experts has several). {_REMEDY}"
                )
            writers += same
    return list(dict.fromkeys([*embeddings, *writers]))  # layers shared by blocks come once


def _linear_layers(part: nn.Module) -> list[nn.Module]:
    return [module for module in part.modules() if isinstance(module, nn.Linear | Conv1D)]


def _equal(outputs: dict[nn.Module, Tensor], layer: nn.Module, part: nn.Module) -> bool:
    """Whether a layer ran and its output is, to the last bit, that of the whole part."""
    return layer in outputs and torch.equal(outputs[layer].flatten(), outputs[part].flatten())


def _random_pass(
    model: PreTrainedModel, modules: list[nn.Module]
) -> tuple[Tensor, dict[nn.Module, Tensor]]:
    """Input of the first block, and outputs of the modules that ran, on eight random tokens."""
    first_input: list[Tensor] = []
    outputs: dict[nn.Module, Tensor] = {}

    def record_input(module: nn.Module, args: tuple, kwargs: dict) -> None:
        first_input.append(block_input(args, kwargs).cpu())

    def record(module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
        outputs[module] = first_tensor(output).cpu()

    handles: list = []
    with removing(handles):
        # Before other hooks: what they change is none of the model's construction.
        handles.append(
            decoder_layers(model)[0].register_forward_pre_hook(
                record_input, with_kwargs=True, prepend=True
            )
        )
        handles += [module.register_forward_hook(record, prepend=True) for module in modules]
        run_random_tokens(model)
    return first_input[0], outputs


def _check_embeddings(model: PreTrainedModel, first_input: Tensor, outputs: list[Tensor]) -> None:
    """Raises InputError unless the first block reads the sum of the embeddings, up to a factor."""
    read = first_input.double().squeeze(0)
    written = sum((output.double().reshape(-1, read.shape[-1]) for output in outputs), 0 * read)
    factor = (read * written).sum() / (written * written).sum()
    rounding = 2 * torch.finfo(first_input.dtype).eps
    # Negated, so that NaN (no embedding ran) fails too.
    if not (read - factor * written).norm() <= (1e-4 + rounding) * read.norm():
        raise InputError(
            f"{architecture_name(model)}: the first block does not read the sum of the "
            f"embeddings, so that editing these would do something else. {_REMEDY}"
        )


# --- the edit ---------------------------------------------------------------------------------


@contextmanager
def edited_weights(model: PreTrainedModel, operator: Operator) -> Iterator[None]:
    """Apply a linear operator to all that writes to the residual stream, by editing its weights.

    Every such weight and bias is replaced, one at a time, by an edited copy in its own type,
    computed in float64 by low-rank products. A head tied to the embedding keeps the unedited
    matrix, as ablation by hooks leaves it alone. On leaving, also after an error, the model has
    its own parameters back: the same objects with the same bits, tied as they were. Within the
    block both exist, so that memory grows by the size of the edited weights. Models with
    post-norms are edited too, but see the head of this file.

    Raises:
        InputError: an operator that is not linear (an origin, a shift, a side) or of another
            width, an architecture without such matrices, or weights that are quantised or not
            in memory.
    """
    _check_operator(model, operator)
    if operator.is_identity:
        yield
        return
    originals: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        for module in write_matrices(model):
            for name in ("weight", "bias"):
                parameter = getattr(module, name, None)
                if parameter is not None:
                    edited = _edited(model, module, parameter, operator)
                    originals.append((module, name, parameter))
                    setattr(module, name, edited)
        yield
    finally:
        for module, name, parameter in originals:
            setattr(module, name, parameter)


def _check_operator(model: PreTrainedModel, operator: Operator) -> None:
    """Raises InputError unless the operator is linear and of the model's width."""
    linear = operator.origin is None and operator.shift is None and not operator.side
    if not linear or operator.read.ndim != 2:
        raise InputError(
            "scope 'weights': edited weights can only project, without origin, shift or side. "
            "Remedy: use another scope."
        )
    if operator.width not in (0, residual_width(model)):
        raise InputError(
            f"scope 'weights': the operator has width {operator.width}, the model "
            f"{residual_width(model)}. Remedy: use an intervention made from this model."
        )


@torch.no_grad()
def _edited(
    model: PreTrainedModel, module: nn.Module, parameter: nn.Parameter, operator: Operator
) -> nn.Parameter:
    """An edited copy of a weight or bias of a module that writes."""
    if parameter.is_meta or not parameter.is_floating_point():
        raise InputError(
            f"{architecture_name(model)}: weights that are quantised or kept on disk cannot be "
            f"edited. {_REMEDY}"
        )
    # What is written lies in the rows: of an embedding, of Conv1D [in, out], of a bias (one row);
    # nn.Linear holds [out, in].
    turned = isinstance(module, nn.Linear) and parameter.ndim == 2
    rows = parameter.T if turned else parameter.view(-1, parameter.shape[-1])
    edited = _operated(rows, operator)
    edited = edited.T if turned else edited.view(parameter.shape)
    return nn.Parameter(edited, requires_grad=parameter.requires_grad)


def _operated(rows: Tensor, operator: Operator) -> Tensor:
    """The operator applied to rows [n, d] in float64, in the type and layout of the rows."""
    edited = torch.empty_like(rows)
    step = max(1, _CHUNK // rows.shape[-1])
    # Apple's GPUs have no float64.
    exact = torch.float32 if rows.device.type == "mps" else torch.float64
    for old, new in zip(rows.split(step), edited.split(step), strict=True):
        new.copy_(operator(old.to(exact)))
    return edited
