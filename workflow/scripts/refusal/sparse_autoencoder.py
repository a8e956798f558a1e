"""A TopK sparse autoencoder of the residual stream (Gao et al. 2024, arXiv 2406.04093, sec. 2.3).

    z = TopK(W_enc (x - b_dec) + b_enc),    x' = W_dec z + b_dec

Only the k largest latents of a token are kept, negative ones set to zero. Decoder rows have norm 1;
the encoder starts as their transpose. Latents that do not fire for a while learn to explain what
the others leave over (the paper's AuxK loss). Libraries that train autoencoders bring their own
model classes and pin other versions of transformers; on activations that are read already, the
method is these few lines.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from refusal.errors import InputError

NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")
AUXILIARY_WEIGHT = 1 / 32  # of Gao et al., appendix A.1
DEAD_AFTER = 100  # steps without firing


class SparseAutoencoder(nn.Module):
    """Dictionary of `features` unit vectors [features, d] with a sparse code.

    `scale` divides activations first, so that learning does not depend on the model's norm.
    """

    def __init__(self, width: int, features: int, active: int, scale: float = 1.0) -> None:
        super().__init__()
        self.active = active
        self.register_buffer("scale", torch.tensor(scale))
        rows = nn.functional.normalize(torch.randn(features, width), dim=1)
        self.W_dec = nn.Parameter(rows)
        self.W_enc = nn.Parameter(rows.T.clone())
        self.b_enc = nn.Parameter(torch.zeros(features))
        self.b_dec = nn.Parameter(torch.zeros(width))

    def latents(self, x: Tensor) -> Tensor:
        """Latents before sparsity, [..., features]."""
        return (x / self.scale - self.b_dec) @ self.W_enc + self.b_enc

    def encode(self, x: Tensor) -> Tensor:
        """Sparse code of activations [..., d]: [..., features], at most `active` above zero."""
        return keep_largest(self.latents(x), self.active)

    def decode(self, code: Tensor) -> Tensor:
        """Activations [..., d] of a code."""
        return (code @ self.W_dec + self.b_dec) * self.scale

    @torch.no_grad()
    def unit_rows(self) -> None:
        """Bring the decoder rows back to norm 1."""
        self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-8))


def keep_largest(values: Tensor, k: int) -> Tensor:
    """The k largest of the last axis, negative ones and all others set to zero."""
    top = values.topk(min(k, values.shape[-1]), dim=-1)
    return torch.zeros_like(values).scatter(-1, top.indices, top.values.clamp_min(0))


def train(activations: Tensor, settings: Mapping, seed: int) -> SparseAutoencoder:
    """Train on activations [tokens, d], float32.

    `settings`: features, active (latents per token), steps, batch_size, learning_rate.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    mean = activations.mean(0)
    # Scaled to a mean squared norm of d, as in the paper.
    scale = float((activations - mean).pow(2).mean().sqrt())
    width = activations.shape[1]
    autoencoder = SparseAutoencoder(width, settings["features"], settings["active"], scale)
    autoencoder.b_dec.data = mean / scale
    optimizer = torch.optim.Adam(autoencoder.parameters(), settings["learning_rate"])
    idle = torch.zeros(settings["features"])
    for _ in range(settings["steps"]):
        rows = torch.randint(len(activations), (settings["batch_size"],), generator=generator)
        x = activations[rows] / scale
        latents = autoencoder.latents(activations[rows])
        code = keep_largest(latents, settings["active"])
        residual = x - (code @ autoencoder.W_dec + autoencoder.b_dec)
        loss = residual.pow(2).mean()
        idle = torch.where((code > 0).any(0), 0, idle + 1)
        loss = loss + AUXILIARY_WEIGHT * _auxiliary(autoencoder, latents, residual, idle)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        autoencoder.unit_rows()
    return autoencoder.requires_grad_(False)


def _auxiliary(
    autoencoder: SparseAutoencoder, latents: Tensor, residual: Tensor, idle: Tensor
) -> Tensor:
    """Error of dead latents that explain the residual; zero while none is dead."""
    dead = idle > DEAD_AFTER
    if not dead.any():
        return latents.new_zeros(())
    code = keep_largest(latents[:, dead], autoencoder.active)
    return (residual.detach() - code @ autoencoder.W_dec[dead]).pow(2).mean()


@dataclass(frozen=True)
class Quality:
    """Of held-out activations: variance explained, and share of latents that never fire."""

    explained: float
    dead: float


def quality(autoencoder: SparseAutoencoder, activations: Tensor) -> Quality:
    """How well the autoencoder does on activations [tokens, d] that it was not trained on."""
    code = autoencoder.encode(activations)
    error = (activations - autoencoder.decode(code)).double().pow(2).sum()
    total = (activations - activations.mean(0)).double().pow(2).sum()
    return Quality(float(1 - error / total), float((code.amax(0) <= 0).double().mean()))


def save_autoencoder(path: Path | str, autoencoder: SparseAutoencoder) -> None:
    """Write the weights as safetensors (`NAMES`, scale, active)."""
    tensors = {name: getattr(autoencoder, name).contiguous() for name in NAMES}
    tensors |= {"scale": autoencoder.scale, "active": torch.tensor(autoencoder.active)}
    save_file(tensors, path)


def load_autoencoder(path: Path | str, width: int) -> SparseAutoencoder:
    """Read an autoencoder with W_enc [d, f], b_enc [f], W_dec [f, d] and b_dec [d].

    Published ones that fire above a threshold keep all positive latents here.

    Raises:
        InputError: no such file, other names, or another width.
    """
    try:
        tensors = load_file(str(path))
        features, read = tensors["W_dec"].shape
        parts = [tensors[name].float() for name in NAMES]
    except (KeyError, ValueError, OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: cannot be read as a sparse autoencoder ({error}). It needs the tensors "
            f"{', '.join(NAMES)} (sparse_features.autoencoder)."
        ) from None
    if read != width:
        raise InputError(
            f"{path}: decodes to width {read}, but the model has {width}. "
            "Name an autoencoder of this model (sparse_features.autoencoder)."
        )
    active = int(tensors.get("active", torch.tensor(features)))
    loaded = SparseAutoencoder(width, features, active, float(tensors.get("scale", 1.0)))
    for name, part in zip(NAMES, parts, strict=True):
        getattr(loaded, name).data = part
    return loaded.requires_grad_(False)


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector divided by its norm."""
    return vector / np.linalg.norm(vector)
