r"""What the factors of all pixels of a galaxy say together.

Miscalibration varies slowly over the field, while the errors of single pixels do not: each
coefficient of the factor is a smooth field and a scatter of the pixels about it,

.. math:: \hat c_p = \Phi_p \beta + u_p + e_p, \qquad u \sim N(0, \tau^2), \quad e_p \sim N(0, C_p)

with :math:`\Phi` polynomials in the position, as many as the data ask for (Bayesian information
criterion over independent beams), and :math:`\tau` from the scatter of the pixels against their
errors. The best estimate shrinks pixels towards the field (empirical Bayes; e.g. Carlin & Louis
2000, chapter 3),

.. math:: c_p = \Phi_p \beta + K_p (\hat c_p - \Phi_p \beta), \qquad
    K_p = \tau^2 (\tau^2 + C_p)^{-1}

The error ``C`` of a pixel is the noise ``N`` of its spectrum and images, which an average over
pixels takes down, and an error ``M`` of models and zero points, which pixels may share. The scatter
about the field tells what they do not share: by the law of total variance, with :math:`\varphi` the
part of ``M`` that is seen to differ from pixel to pixel,

.. math::
    \langle (\hat c - \Phi \beta)^2 \rangle = \tau^2 + N + \varphi M, \qquad
    S = (1 - \varphi) M, \quad E = N + \varphi M

the shared ``S`` is never averaged, and the error of the estimate is

.. math:: S + K E K^T + (1 - K)\,(\tau^2 + \mathrm{cov}(\Phi \beta; E))\,(1 - K)^T
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Coherent", "Field", "shrink"]

# Fewer independent beams than this tell nothing of a field.
_MIN_BEAMS = 4
# Terms of a polynomial in x and y of order 0, 1 and 2.
_TERMS = (1, 3, 6)
_TURNS = 4
# Scatters that are tried, in units of that of the pixels about their field.
_SCATTERS = np.linspace(0.0, 1.5, 31)
# Pixels further from the field than this many sigma do not shape it: stars, lines, wrong models.
_CLIP = 4.0


class Coherent(NamedTuple):
    r"""Result of :func:`shrink`.

    ``coef`` ``(n_pixel, n_coef)`` and ``cov`` ``(n_pixel, n_coef, n_coef)`` of each pixel, and
    ``own`` ``(n_pixel, n_coef, n_coef)``, the weight of the pixel's own coefficients. ``scatter``
    and ``terms`` ``(n_coef,)`` are :math:`\tau` and the number of polynomials; 0 terms if the
    pixels tell nothing of a field, and are left as they are.
    """

    coef: NDArray[np.float64]
    cov: NDArray[np.float64]
    own: NDArray[np.float64]
    scatter: NDArray[np.float64]
    terms: NDArray[np.intp]


class Field(NamedTuple):
    """Field of one coefficient: ``value`` is ``design @ solver @ coef``; the pixels' scatter."""

    value: NDArray[np.float64]
    design: NDArray[np.float64]
    solver: NDArray[np.float64]
    scatter: float


def shrink(
    coef: NDArray[np.float64],
    cov: NDArray[np.float64],
    noise: NDArray[np.float64],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    beam: float,
    use: NDArray[np.bool_] | None = None,
) -> Coherent:
    """Shrink the coefficients of pixels towards a smooth field.

    Parameters
    ----------
    coef
        Coefficients of each pixel, ``(n_pixel, n_coef)``; NaN is unknown and stays so.
    cov
        Their covariance, ``(n_pixel, n_coef, n_coef)``.
    noise
        The part of it that is noise of spectrum and images.
    x, y
        Positions of the pixels, any unit, ``(n_pixel,)``.
    beam
        Pixels that share their noise: the area of the PSF in pixels, at least 1.
    use
        Which pixels shape the field, ``(n_pixel,)``; all by default. The others follow it too.

    Returns
    -------
    Coherent
    """
    n_coef = coef.shape[1]
    known = np.asarray(np.isfinite(coef).all(axis=1) & np.isfinite(cov).all(axis=(1, 2)))
    beam = max(beam, 1.0)
    shaping = known if use is None else known & np.asarray(use)
    if shaping.sum() < _MIN_BEAMS * beam:
        own = np.broadcast_to(np.eye(n_coef), cov.shape).copy()
        return Coherent(coef, cov, own, np.full(n_coef, np.nan), np.zeros(n_coef, dtype=int))
    phi = _polynomials(x[known], y[known])
    C, N = cov[known], noise[known]
    M = _positive(C - N)
    fields = [
        _smoothest(coef[known, k], C[:, k, k], phi, shaping[known], beam) for k in range(n_coef)
    ]
    smooth = np.stack([f.value for f in fields], axis=1)
    tau2 = np.diag([f.scatter**2 for f in fields])
    K = tau2 @ np.linalg.inv(C + tau2 + 1e-30 * np.eye(n_coef))
    rest = np.eye(n_coef) - K
    apart = np.sqrt([
        _part_apart(f, coef[known, k], N[:, k, k], M[:, k, k], shaping[known], beam)
        for k, f in enumerate(fields)
    ])  # fmt: skip
    E = N + np.outer(apart, apart) * M
    S = _positive(C - E)
    out = Coherent(
        np.full_like(coef, np.nan), np.full_like(cov, np.nan), np.full_like(cov, np.nan),
        np.array([f.scatter for f in fields]), np.array([f.design.shape[1] for f in fields]),
    )  # fmt: skip
    out.coef[known] = smooth + np.einsum("pkl,pl->pk", K, coef[known] - smooth)
    field = tau2 + _field_covariance(fields, E, beam)
    out.cov[known] = S + K @ E @ K.transpose(0, 2, 1) + rest @ field @ rest.transpose(0, 2, 1)
    out.own[known] = K + rest @ _leverage(fields)
    return out


def _polynomials(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Polynomials of order 0 to 2 about the middle of the pixels, ``(n_pixel, 6)``."""
    size = max(float(np.ptp(x)), float(np.ptp(y)), 1e-30) / 2.0
    u, v = (x - x.mean()) / size, (y - y.mean()) / size
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=1)


def _smoothest(
    coef: NDArray[np.float64], variance: NDArray[np.float64], phi: NDArray[np.float64],
    use: NDArray[np.bool_], beam: float,
) -> Field:  # fmt: skip
    """Field of the order that the information criterion prefers.

    Chi-square counts pixels, of which ``beam`` share their noise: it is divided by that, and
    compared with the penalty of as many independent data. It is relative to the whole error, that
    of models too, so that gradients of populations make no field.
    """
    best, least = None, np.inf
    n_beam = use.sum() / beam
    for n in _TERMS:
        if n > 1 and (n > n_beam / 2.0 or np.linalg.matrix_rank(phi[use, :n]) < n):
            break  # too few pixels, or all of them in a row
        field = _field(coef, variance, phi[:, :n], use, beam)
        # the scatter counts: a wilder field must lower what it does not explain
        total = (variance + field.scatter**2)[use]
        pull2 = np.minimum((coef - field.value)[use] ** 2 / total, _CLIP**2)
        criterion = float((pull2 + np.log(total)).sum()) / beam + n * np.log(n_beam)
        if criterion < least:
            best, least = field, criterion
    assert best is not None
    return best


def _field(
    coef: NDArray[np.float64], variance: NDArray[np.float64], design: NDArray[np.float64],
    use: NDArray[np.bool_], beam: float,
) -> Field:  # fmt: skip
    """Weighted fit of a field, and the scatter about it that errors do not explain.

    The scatter is the root of the mean of its square over the restricted likelihood of the pixels
    (flat in the scatter, ``beam`` pixels counting as one): a maximum at 0 does not make it 0.
    """
    plain = _solve(coef, variance, design, use, 0.0)
    size = float(np.sqrt(np.mean((coef - plain.value)[use] ** 2)))
    trials = [_solve(coef, variance, design, use, tau) for tau in size * _SCATTERS]
    likelihood = np.array([_log_likelihood(coef, variance, f, use) for f in trials]) / beam
    p = np.exp(likelihood - likelihood.max())
    tau = np.array([f.scatter for f in trials])
    return _solve(coef, variance, design, use, float(np.sqrt((p * tau**2).sum() / p.sum())))


def _solve(
    coef: NDArray[np.float64], variance: NDArray[np.float64], design: NDArray[np.float64],
    use: NDArray[np.bool_], scatter: float,
) -> Field:  # fmt: skip
    """Field for a known scatter, by pixels that are not far off it."""
    total, keep = variance + scatter**2, use
    for _ in range(_TURNS):
        weight = np.where(keep, 1.0 / total, 0.0)
        solver = np.linalg.pinv((design.T * weight) @ design) @ (design.T * weight)
        value = design @ (solver @ coef)
        keep = use & ((coef - value) ** 2 < _CLIP**2 * total)
    return Field(value, design, solver, scatter)


def _part_apart(
    field: Field, coef: NDArray[np.float64], noise: NDArray[np.float64],
    models: NDArray[np.float64], use: NDArray[np.bool_], beam: float,
) -> float:  # fmt: skip
    """Part of the variance of models that the scatter of pixels about their field shows, 0 to 1."""
    # the field follows a part of what it is fitted to
    freedom = 1.0 - field.design.shape[1] * beam / use.sum()
    away2 = (coef - field.value) ** 2 / freedom
    total = noise + models + field.scatter**2
    keep = use & (away2 < _CLIP**2 * total)
    weight = np.where(keep, 1.0 / total**2, 0.0)
    most = float((weight * models**2).sum())
    seen = float((weight * models * (away2 - noise - field.scatter**2)).sum())
    return min(max(seen / most, 0.0), 1.0) if most > 0 else 0.0


def _log_likelihood(
    coef: NDArray[np.float64], variance: NDArray[np.float64], field: Field,
    use: NDArray[np.bool_],
) -> float:  # fmt: skip
    """Restricted log likelihood of pixels about a field; those far off count as if at the limit."""
    total = (variance + field.scatter**2)[use]
    pull2 = np.minimum((coef - field.value)[use] ** 2 / total, _CLIP**2)
    normal = (field.design[use].T / total) @ field.design[use]
    return float(-0.5 * (np.log(total) + pull2).sum() - 0.5 * np.linalg.slogdet(normal)[1])


def _field_covariance(
    fields: list[Field], noise: NDArray[np.float64], beam: float
) -> NDArray[np.float64]:
    """Covariance of the fields at each pixel from the noise of all, ``(n_pixel, n, n)``."""
    n_pixel, n = fields[0].value.size, len(fields)
    out = np.empty((n_pixel, n, n))
    for k, one in enumerate(fields):
        for j, other in enumerate(fields[: k + 1]):
            inner = beam * (one.solver * noise[:, k, j]) @ other.solver.T
            out[:, k, j] = np.einsum("pa,ab,pb->p", one.design, inner, other.design)
            out[:, j, k] = out[:, k, j]
    return out


def _leverage(fields: list[Field]) -> NDArray[np.float64]:
    """Weight of a pixel's own coefficients in the field there, ``(n_pixel, n, n)`` diagonal."""
    diagonal = [np.einsum("pa,ap->p", f.design, f.solver) for f in fields]
    return np.asarray(np.stack(diagonal, axis=1)[:, :, None] * np.eye(len(fields)))


def _positive(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nearest matrices without negative eigenvalues."""
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.transpose(0, 2, 1)))
    return np.asarray((vectors * np.maximum(values, 0.0)[:, None]) @ vectors.transpose(0, 2, 1))
