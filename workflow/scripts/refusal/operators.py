"""Operators: one low-rank formula for every linear intervention of the literature.

    h <- h - alpha ((h - origin) R^T) W + shift,

with R, W of k rows: directional ablation (k = 1, alpha = 1) and activation addition (k = 0 and a
shift) of Arditi et al. 2024, section 2.4; nullspace projection (alpha = 1) and counterfactual
flipping (alpha = 2) of Rocchetti & Ferrara 2026, section 3.3; affine ablation (an origin) of
Marshall et al. 2024; LEACE (W != R) of Belrose et al. 2023. AlterRep (Ravfogel et al. 2021) also
chooses the sign of each coordinate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from refusal.directions import Direction

# float32 bases of a few dozen directions are orthonormal to 1e-6; anything above is another matrix.
_ORTHONORMAL_TOLERANCE = 1e-4


class _Constants(NamedTuple):
    """An operator's tensors as the two products of a hook need them, on one device."""

    read: Tensor
    offset: Tensor | None
    write: Tensor
    shift: Tensor | None


@dataclass(frozen=True, eq=False)
class Operator:
    """h <- h - alpha ((h - origin) read^T) write + shift, without ever forming a d x d matrix.

    Computed in float32 (float64 for float64 activations) and cast back to the type of h. All
    tensors may carry one leading batch dimension b: row i of a batch then has its own operator.

    Attributes:
        read: [k, d] or [b, k, d], directions along which coordinates are read.
        write: same shape, directions along which they are written; orthogonal projections have
            write = read with orthonormal rows.
        alpha: 0 changes nothing, 1 removes the coordinates, 2 reflects them.
        origin: [d] or [b, d], the point with coordinates zero; None is the origin of the space.
        shift: [d] or [b, d], added at the end.
        side: 0, or for AlterRep -1 or +1: coordinates c become side alpha |c| instead.

    Raises:
        ValueError: shapes that do not fit, NaN or infinite entries, side not in -1, 0, +1.
    """

    read: Tensor
    write: Tensor
    alpha: float = 1.0
    origin: Tensor | None = None
    shift: Tensor | None = None
    side: int = 0
    _cache: dict = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("read", "write", "origin", "shift"):
            value = getattr(self, name)
            if value is not None:
                value = torch.as_tensor(value).detach().to("cpu", torch.float32)
                object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        if self.read.ndim not in (2, 3) or self.read.shape != self.write.shape:
            shapes = f"{tuple(self.read.shape)} and {tuple(self.write.shape)}"
            raise ValueError(f"read and write must be [k, d] or [b, k, d] alike, not {shapes}")
        vector = (*self.read.shape[:-2], self.width)
        for name in ("read", "write", "origin", "shift"):
            value = getattr(self, name)
            if value is None:
                continue
            if name in ("origin", "shift") and value.shape != vector:
                raise ValueError(f"{name} must have shape {vector}, not {tuple(value.shape)}")
            if not value.isfinite().all():
                raise ValueError(f"{name} has NaN or infinite entries")
        if not math.isfinite(self.alpha) or self.side not in (-1, 0, 1):
            raise ValueError(f"alpha must be finite and side -1, 0 or 1: {self.alpha}, {self.side}")

    @classmethod
    def identity(cls) -> "Operator":
        """The operator that returns h itself, for activations of any width."""
        return cls(torch.empty(0, 0), torch.empty(0, 0))

    @classmethod
    def project(cls, basis: Tensor, alpha: float = 1.0, origin: Tensor | None = None) -> "Operator":
        """Remove (alpha 1), reflect (2) or scale the coordinates along orthonormal rows [k, d].

        alpha = 1 is the nullspace projection, alpha = 2 the counterfactual flipping of
        Rocchetti & Ferrara 2026, section 3.3: I - alpha P_R, for row vectors h.
        """
        _require_orthonormal(basis)
        return cls(basis, basis, alpha, origin)

    @classmethod
    def add(cls, vector: Tensor) -> "Operator":
        """Add `vector`, [d] or [b, d] (activation addition, Arditi et al. 2024, section 2.4)."""
        vector = torch.as_tensor(vector)
        nothing = vector.new_empty(*vector.shape[:-1], 0, vector.shape[-1])
        return cls(nothing, nothing, shift=vector)

    @classmethod
    def alterrep(cls, basis: Tensor, side: int, alpha: float = 1.0) -> "Operator":
        """h_N + side alpha sum_i |w_i . h| w_i over orthonormal rows w_i (Ravfogel et al. 2021).

        Puts every input on one side of every classifier, whichever side it was on; alpha = 0 is
        the nullspace projection.
        """
        if side not in (-1, 1):
            raise ValueError(f"side must be -1 or +1, not {side}")
        _require_orthonormal(basis)
        return cls(basis, basis, alpha, side=side)

    @classmethod
    def erase(cls, direction: "Direction") -> "Operator":
        """Least-squares concept erasure, an oblique affine projection (Belrose et al. 2023)."""
        if direction.write is None or direction.origin is None:
            raise ValueError("erase needs a direction with write and origin (method leace)")
        return cls(direction.basis, direction.write, origin=direction.origin)

    @classmethod
    def stack(cls, operators: Sequence["Operator"]) -> "Operator":
        """One operator per row of a batch, in this order; ranks and strengths may differ.

        Raises:
            ValueError: AlterRep operators, whose strength cannot be folded into `write`, or
                operators that have a batch dimension already.
        """
        if any(one.side or one.read.ndim == 3 for one in operators):
            raise ValueError("only linear operators without a batch dimension can be stacked")
        width, rank = (max(getattr(one, name) for one in operators) for name in ("width", "rank"))
        read, write = torch.zeros(2, len(operators), rank, width)
        origin, shift = torch.zeros(2, len(operators), width)
        for row, one in enumerate(operators):
            # Rows of zeros read and write nothing, so that smaller ranks and identities fit in.
            read[row, : one.rank, : one.width] = one.read
            write[row, : one.rank, : one.width] = one.alpha * one.write
            for target, value in ((origin, one.origin), (shift, one.shift)):
                if value is not None:
                    target[row] = value
        return cls(
            read,
            write,
            origin=origin if any(one.origin is not None for one in operators) else None,
            shift=shift if any(one.shift is not None for one in operators) else None,
        )

    @property
    def width(self) -> int:
        """Width d of the activations; 0 for the identity, which takes any."""
        return self.read.shape[-1]

    @property
    def rank(self) -> int:
        """Number of directions k."""
        return self.read.shape[-2]

    @property
    def is_identity(self) -> bool:
        """Whether every activation is returned as it is, to the last bit."""
        return not self.side and self.shift is None and (self.alpha == 0 or self.rank == 0)

    @property
    def is_idempotent(self) -> bool:
        """Whether acting twice is acting once, as scope 'all' needs: only with alpha = 1."""
        return self.is_identity or (self.shift is None and self.alpha == 1)

    def _constants(self, device: torch.device, dtype: torch.dtype) -> _Constants:
        """The folded tensors on `device`, made once per device and type."""
        if (device, dtype) not in self._cache:
            offset = None
            if self.origin is not None:
                origin = self.origin.double().unsqueeze(-2)
                offset = -(origin @ self.read.double().mT)
            factor = -1.0 if self.side else -self.alpha
            tensors = (
                self.read.mT,
                offset,
                factor * self.write.double(),
                None if self.shift is None else self.shift.unsqueeze(-2),
            )
            self._cache[device, dtype] = _Constants(
                *(None if t is None else t.to(dtype).to(device) for t in tensors)
            )
        return self._cache[device, dtype]

    def __call__(self, h: Tensor) -> Tensor:
        """Transform activations [..., d], or [b, ..., d] for a batch of operators.

        Never changes `h` in place; returns `h` itself if nothing changes.
        """
        if self.is_identity:
            return h
        constants = self._constants(h.device, torch.promote_types(h.dtype, torch.float32))
        batch = self.read.shape[:-2]
        rows = h.to(constants.write.dtype).reshape(*batch, -1, h.shape[-1])
        multiply_add = torch.baddbmm if batch else torch.addmm
        if self.rank:
            if constants.offset is None:
                coordinates = rows @ constants.read
            else:
                coordinates = multiply_add(constants.offset, rows, constants.read)
            if self.side:
                coordinates = coordinates - self.side * self.alpha * coordinates.abs()
            rows = multiply_add(rows, coordinates, constants.write)
        if constants.shift is not None:
            rows = rows + constants.shift
        return rows.view(h.shape).to(h.dtype)


def _require_orthonormal(basis: Tensor) -> None:
    """Raises ValueError unless the rows of `basis` [..., k, d] are orthonormal (or zero)."""
    rows = torch.as_tensor(basis).double()
    gram = rows @ rows.mT
    # Rows of zeros are allowed: they pad a batch of operators of different rank.
    expected = torch.diag_embed((gram.diagonal(dim1=-2, dim2=-1) != 0).to(gram.dtype))
    if not torch.allclose(gram, expected, rtol=0, atol=_ORTHONORMAL_TOLERANCE):
        raise ValueError("the rows of the basis are not orthonormal")
