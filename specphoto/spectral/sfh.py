"""Star-formation histories as weights on the age nodes of a population grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from specphoto.errors import InputError
from specphoto.spectral.priors import HISTORIES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from specphoto.spectral.parameters import ModelParameters

__all__ = ["BIRTH_CLOUD_AGE", "age_weights", "metallicity_weights", "star_formation_rate"]

BIRTH_CLOUD_AGE = 1.0e7  # yr: younger stars are still in the clouds they were born in

# Gauss-Legendre points inside each age interval, on [0, 1]
_POINTS, _SHARES = np.polynomial.legendre.leggauss(6)
_POINTS, _SHARES = 0.5 * (_POINTS + 1.0), 0.5 * _SHARES

# Models worked on at a time: the arrays (model, interval, point) then stay in cache.
_BLOCK = 512


def star_formation_rate(
    since: NDArray[np.float64], parameters: ModelParameters
) -> NDArray[np.float64]:
    r"""Star formation rate, in arbitrary units, at times since it began.

    =================  ======================================================
    delayed            :math:`s e^{-s/\tau}`
    double power law   :math:`[(s/\tau)^\alpha + (s/\tau)^{-\beta}]^{-1}`
    exponential        :math:`e^{-s/\tau}`
    log-normal         :math:`s^{-1} e^{-[\ln(s/\tau)]^2 / 2 \alpha^2}`
    gaussian           :math:`e^{-(s - \tau)^2 / 2 (\alpha\tau)^2}`
    constant           1
    =================  ======================================================

    Parameters
    ----------
    since
        Time :math:`s` since star formation began, yr, shape ``(n_model, n_time)``.
    parameters
        The models.

    Returns
    -------
    array of shape ``(n_model, n_time)``
        Zero before the beginning.
    """
    out = np.empty(since.shape)
    s = np.maximum(since, 1.0)  # one year: the power laws have no value at 0
    for i, name in enumerate(HISTORIES):
        rows = parameters.history == i
        if rows.any():
            out[rows] = _RATES[name](s[rows], parameters.take(rows))
    out[since <= 0] = 0.0
    return out


def _delayed(s: NDArray[np.float64], p: ModelParameters) -> NDArray[np.float64]:
    u = s / p.tau[:, None]
    return u * np.exp(-u)


def _double_power(s: NDArray[np.float64], p: ModelParameters) -> NDArray[np.float64]:
    log_u = np.log(s / p.tau[:, None])
    return np.asarray(1.0 / (np.exp(p.alpha[:, None] * log_u) + np.exp(-p.beta[:, None] * log_u)))


def _exponential(s: NDArray[np.float64], p: ModelParameters) -> NDArray[np.float64]:
    return np.asarray(np.exp(-s / p.tau[:, None]))


def _log_normal(s: NDArray[np.float64], p: ModelParameters) -> NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * (np.log(s / p.tau[:, None]) / p.alpha[:, None]) ** 2) / s)


def _gaussian(s: NDArray[np.float64], p: ModelParameters) -> NDArray[np.float64]:
    return np.asarray(np.exp(-0.5 * ((s / p.tau[:, None] - 1.0) / p.alpha[:, None]) ** 2))


def _constant(s: NDArray[np.float64], p: ModelParameters) -> NDArray[np.float64]:  # noqa: ARG001
    return np.ones(s.shape)


_RATES: Mapping[str, Callable[[NDArray[np.float64], ModelParameters], NDArray[np.float64]]] = {
    "delayed": _delayed, "double power law": _double_power, "exponential": _exponential,
    "log-normal": _log_normal, "gaussian": _gaussian, "constant": _constant,
}  # fmt: skip


def age_weights(
    parameters: ModelParameters, nodes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Mass of each composite population that goes to each age node, young and old apart.

    Spectra between nodes are linear in age, so that a composite is
    :math:`\sum_i W_i f_i` with :math:`W_i = \int \psi(t)\, h_i(t)\, dt` for hat functions
    :math:`h_i` and a star formation rate :math:`\psi` at look-back time :math:`t` that
    integrates to one solar mass; six Gauss-Legendre points per interval (1 model in 100,
    with a burst far shorter than the intervals, is off by more than 0.05 %).

    Parameters
    ----------
    parameters
        The models.
    nodes
        Ages, increasing from 0, yr, shape ``(n_age,)``; :data:`BIRTH_CLOUD_AGE` is one of them.
        Stars older than the last node are counted nowhere.

    Returns
    -------
    young : array of shape ``(n_model, n_young)``
        Weights of stars below :data:`BIRTH_CLOUD_AGE`, on the nodes up to and including it.
    old : array of shape ``(n_model, n_age - n_young + 1)``
        Weights of the others, on the nodes from it on. ``young`` and ``old`` sum to 1 together.
    """
    split = int(np.searchsorted(nodes, BIRTH_CLOUD_AGE))
    weights = [
        _block_weights(parameters.take(slice(i, i + _BLOCK)), nodes, split)
        for i in range(0, len(parameters), _BLOCK)
    ]
    return np.concatenate([w[0] for w in weights]), np.concatenate([w[1] for w in weights])


def _block_weights(
    parameters: ModelParameters, nodes: NDArray[np.float64], split: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, step = nodes[:-1], np.diff(nodes)
    # the interval in which star formation began counts from there on
    width = np.clip(parameters.age[:, None] - low, 0.0, step)
    share = (width / step)[..., None] * _POINTS
    since = parameters.age[:, None, None] - low[:, None] - step[:, None] * share
    rate = star_formation_rate(since.reshape(len(parameters), -1), parameters).reshape(since.shape)
    mass = rate * width[..., None] * _SHARES
    total = mass.sum(axis=(1, 2), keepdims=True)
    if not np.all(total > 0):
        raise InputError(
            "star formation histories", expected="histories that form stars within the age",
            found=f"{np.sum(~(total > 0))} models that form none on the nodes of the grid",
            remedy="give a shorter tau, or a wider alpha",
        )  # fmt: skip
    mass /= total
    upper = (mass * share).sum(axis=-1)
    lower = mass.sum(axis=-1) - upper
    return _to_nodes(lower[:, :split], upper[:, :split]), _to_nodes(
        lower[:, split:], upper[:, split:]
    )


def _to_nodes(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights on nodes from the weights on the two ends of each interval."""
    out = np.zeros((len(lower), lower.shape[1] + 1))
    out[:, :-1] += lower
    out[:, 1:] += upper
    return out


def metallicity_weights(
    metallicity: NDArray[np.float64], nodes: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Place metallicities between those of a grid, linearly in log Z.

    Parameters
    ----------
    metallicity
        Mass fractions, shape ``(n_model,)``; clipped to the range of the nodes.
    nodes
        Mass fractions of the grid, increasing, shape ``(n_met,)``.

    Returns
    -------
    lower : array of shape ``(n_model,)``
        Index of the node below.
    share : array of shape ``(n_model,)``
        Weight of the node above, 0 to 1.
    """
    lower = np.clip(np.searchsorted(nodes, metallicity, side="right") - 1, 0, len(nodes) - 2)
    share = np.log(metallicity / nodes[lower]) / np.log(nodes[lower + 1] / nodes[lower])
    return lower, np.clip(share, 0.0, 1.0)
