r"""The spatial match when the PSF varies with wavelength.

One operator at each of a few wavelengths where the PSF is known, over the same pixels, linear in
wavelength between them and constant past the ends:

.. math:: A(\lambda) = \sum_k t_k(\lambda) A_k, \quad \sum_k t_k = 1

so that it is continuous, and its variance is that of the interpolated operator itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from specphoto.spatial.operator import Operator, build_operators

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["Matched", "VaryingOperator", "apply", "build_varying", "interpolation", "same_shape"]


@dataclass(frozen=True)
class VaryingOperator:
    """Operators at a few wavelengths, over the same rows.

    Attributes
    ----------
    wave
        Where the PSF is known, in Angstrom, increasing, ``(n_node,)``.
    node
        The operators there; all but ``weight`` and ``kernel`` they have in common.
    """

    wave: NDArray[np.float64]
    node: tuple[Operator, ...]

    @classmethod
    def constant(cls, operator: Operator) -> VaryingOperator:
        """Return the same operator at all wavelengths."""
        return cls(np.zeros(1), (operator,))

    @property
    def common(self) -> Operator:
        """One of the operators, for what they have in common."""
        return self.node[0]

    def share(self, wave: NDArray[np.float64]) -> NDArray[np.float32]:
        """Share ``t`` of each node at each wavelength, ``(n_wave, n_node)``."""
        return interpolation(wave, self.wave)

    def at(self, wave: float) -> Operator:
        """Operator at one wavelength in Angstrom."""
        share = self.share(np.array([wave]))[0]
        k = int(np.argmax(share))
        if share[k] == 1.0:
            return self.node[k]
        terms = [(t, node) for t, node in zip(share, self.node, strict=True) if t > 0]
        weight = sum(t * node.weight for t, node in terms)
        kernel = sum(float(t) * node.kernel for t, node in terms)
        return replace(self.common, weight=weight, kernel=kernel)  # type: ignore[arg-type]

    def transmit(
        self,
        wave: NDArray[np.float64],
        planes: NDArray[np.float32],
        used: NDArray[np.intp],
    ) -> NDArray[np.float32]:
        r"""Planes through the operator, :math:`\sum_j A_{oj}(\lambda) f_j(\lambda)`.

        Parameters
        ----------
        wave
            Wavelengths of the planes, ``(n_wave,)``.
        planes
            ``(n_wave, n_used)``.
        used
            Input spaxels that the columns of ``planes`` are, ``(n_used,)``.

        Returns
        -------
        numpy.ndarray
            ``(n_wave, n_row)``.
        """
        out = np.zeros((planes.shape[0], self.common.row.size), dtype=np.float32)
        for k, rows, share in self._terms(wave):
            out[rows] += share[:, None] * (planes[rows] @ self.node[k].weight[used])
        return out

    def transmit_variance(
        self,
        wave: NDArray[np.float64],
        planes: NDArray[np.float32],
        used: NDArray[np.intp],
    ) -> NDArray[np.float32]:
        r"""Variances of independent spaxels, :math:`\sum_j A_{oj}(\lambda)^2 v_j(\lambda)`.

        With two neighbouring nodes, :math:`A^2 = t_1^2 A_1^2 + 2 t_1 t_2 A_1 A_2 + t_2^2 A_2^2`.
        Parameters and result as for :meth:`transmit`.
        """
        out = np.zeros((planes.shape[0], self.common.row.size), dtype=np.float32)
        for k, rows, share in self._terms(wave):
            weight = self.node[k].weight[used]
            out[rows] += (share**2)[:, None] * (planes[rows] @ (weight * weight))
        share = self.share(wave)
        for k in range(self.wave.size - 1):
            both = 2.0 * share[:, k] * share[:, k + 1]
            rows = np.flatnonzero(both)
            if rows.size > 0:
                product = self.node[k].weight[used] * self.node[k + 1].weight[used]
                out[rows] += both[rows, None] * (planes[rows] @ product)
        return out

    def _terms(
        self, wave: NDArray[np.float64]
    ) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.float32]]]:
        """Nodes that count, the planes where they do, and how much."""
        share = self.share(wave)
        for k in range(self.wave.size):
            rows = np.flatnonzero(share[:, k])
            if rows.size > 0:
                yield k, rows, share[rows, k]


def interpolation(wave: NDArray[np.float64], node: NDArray[np.float64]) -> NDArray[np.float32]:
    """Linear interpolation between nodes as weights, ``(n_wave, n_node)``; constant past the ends.

    Nodes need not be in order of wavelength.
    """
    order = np.argsort(node)
    unit = np.eye(node.size)[order]
    weights = [np.interp(wave, node[order], unit[:, k]) for k in range(node.size)]
    return np.stack(weights, axis=1).astype(np.float32)


def same_shape(kernels: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Kernels with zeros about the smaller ones, so that all have the shape of the largest."""
    side = max(max(kernel.shape) for kernel in kernels)
    widths = [[((side - n) // 2, (side - n) // 2) for n in kernel.shape] for kernel in kernels]
    return [np.pad(kernel, width) for kernel, width in zip(kernels, widths, strict=True)]


def build_varying(
    corner_x: NDArray[np.float64],
    corner_y: NDArray[np.float64],
    shape_in: tuple[int, int],
    wave: NDArray[np.float64],
    kernels: Sequence[NDArray[np.float64]],
    *,
    min_coverage: float = 0.0,
    pad: int | None = None,
    shift: tuple[float, float] = (0.0, 0.0),
) -> VaryingOperator:
    """Build the operators of all nodes over the same rows.

    Parameters
    ----------
    corner_x, corner_y, shape_in, min_coverage, pad
        As for :func:`~specphoto.spatial.operator.build_operators`.
    wave
        Wavelengths of the nodes in Angstrom, ``(n_node,)``.
    kernels
        PSF-matching kernel at each node, :func:`same_shape`.
    shift
        Added to the corners, ``(x, y)`` in input pixels: a change of the cube's pointing.

    Returns
    -------
    VaryingOperator
    """
    x, y = corner_x + shift[0], corner_y + shift[1]
    nodes = build_operators(x, y, shape_in, kernels, min_coverage=min_coverage, pad=pad)
    return VaryingOperator(np.asarray(wave, dtype=float), nodes)


class Matched(NamedTuple):
    """Sums over input spaxels for ``(n_wave, n_row)``, before any division.

    ``flux`` = A (w f), ``variance`` = (A w)^2 var for independent spaxels, ``weight`` = A w.
    """

    flux: NDArray[np.float32]
    variance: NDArray[np.float32]
    weight: NDArray[np.float32]


def apply(
    operator: VaryingOperator,
    wave: NDArray[np.float64],
    flux: NDArray[np.float32],
    variance: NDArray[np.float32],
    good: NDArray[np.bool_],
) -> Matched:
    r"""Apply the operator of each channel's wavelength to planes.

    .. math::

        F_o = \sum_j A_{oj} w_j f_j, \quad V_o = \sum_j A_{oj}^2 w_j \mathrm{var}_j, \quad
        W_o = \sum_j A_{oj} w_j

    Flux per output pixel is ``F / c`` with coverage ``c = W / area``; its variance ``V / c^2``
    (times the ratio of :mod:`specphoto.spatial.covariance` for correlated spaxels).

    Parameters
    ----------
    operator
        The operator.
    wave
        Wavelengths of the channels in Angstrom, ``(n_wave,)``.
    flux, variance, good
        ``(n_wave, n_y, n_x)``; values that are not ``good`` are not read.

    Returns
    -------
    Matched
        Each ``(n_wave, n_row)`` float32.
    """
    n_in = operator.common.shape_in[0] * operator.common.shape_in[1]
    good = good.reshape(-1, n_in)
    # spaxels that are bad in every plane (outside the bundle) need not be multiplied
    used = np.flatnonzero(good.any(axis=0))
    w = good[:, used]
    f = np.where(w, flux.reshape(-1, n_in)[:, used], np.float32(0.0))
    v = np.where(w, variance.reshape(-1, n_in)[:, used], np.float32(0.0))
    return Matched(
        flux=operator.transmit(wave, f, used),
        variance=operator.transmit_variance(wave, v, used),
        weight=operator.transmit(wave, w.astype(np.float32), used),
    )
