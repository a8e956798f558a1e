"""A tiny planted organism with random changes in place of trained ones, for tests."""

import copy

import torch
from conftest import build_model

from refusal import planted

WIDTH, RESERVED, RANK = 32, 6, 3
DROPOUT = {"share": 0.8, "adversaries": 2, "active": 2}
DROPOUT |= {"learning_rate": 0.1, "restart": 0.0}
SETTINGS = {
    "writer_blocks": 1,
    "heads": 4,
    "neurons": 8,
    "dropout": DROPOUT,
    "place_share": 0.0,
    "reader_std": 0.5,
    "new_std": 0.3,
}
IDS = torch.randint(7, 90, (4, 12), generator=torch.Generator().manual_seed(1))


def logits(model) -> torch.Tensor:
    """Logits [4, 12, vocabulary] of fixed random tokens."""
    with torch.no_grad():
        return model(input_ids=IDS).logits


def reserved() -> torch.Tensor:
    """The subspace that the base keeps empty."""
    return planted.reserved_basis(WIDTH, RESERVED, seed=0)


def basis() -> torch.Tensor:
    """U."""
    return planted.planted_basis(reserved(), RANK, seed=1)


def empty_base(architecture: str):
    """A random model that writes nothing to the reserved subspace."""
    model = copy.deepcopy(build_model(architecture))
    with planted.keeping_empty(model, reserved()):
        pass
    return model.requires_grad_(False)


def plant(base, directions: int = RANK):
    """A planted organism whose writers use the first directions of U."""
    with planted.planting(base, basis(), SETTINGS, seed=0) as (model, _):
        generator = torch.Generator().manual_seed(2)
        for name, parameter in model.named_parameters():
            if name.endswith("coordinates"):
                parameter.data[:directions].normal_(0, 0.3, generator=generator)
    return model
