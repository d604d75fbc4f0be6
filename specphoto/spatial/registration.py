r"""Where a cube lies on the images: shift, flux scale, zero of the sky and width of the PSF.

The cube's own image in a band, at the PSF and on the pixels of the images, is compared with the
image of that band. With ``P`` the image, ``m`` the move of the cube that brings it there, and ``v``
the variance (PSF width squared) that the matched cube has beyond the images,

.. math::

    \sum_j A_{oj} w_j f_j = s\, T\!\left[P(x + m) + \tfrac{v}{2} \nabla^2 P\right]_o + b\, c_o

where ``T`` leaves out the light that the operator does not see (:mod:`.comparison`) and ``c`` is
the coverage. The model is linear in ``s``, ``b``, ``s m`` and ``s v`` about any pointing, so
Gauss-Newton is a few linear fits, and the operator is built anew at the pointing found. Each term
is weighed with a smoothed copy of its own image (an instrument), so that the noise of the image
does not look like structure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import signal

from specphoto.spatial.comparison import (
    Limits,
    Scene,
    filled,
    look,
    missing,
    planes_of,
    quadratic,
)
from specphoto.spatial.kernel import gaussian_kernel
from specphoto.spatial.psf import FWHM_PER_SIGMA
from specphoto.spatial.shifts import FEW_PIXELS, NO_STRUCTURE, TERMS, BandFit, judge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spatial.comparison import View

__all__ = ["LARGEST_WIDTH", "fit_band"]

# Light the operator misses, from one to five blurs of the sky too many to none; with the order
# below, what the extrapolation may be wrong by. Order 5 leaves 0.02 arcsec of a shift in bundles
# of 19 fibres (disc of 3 arcsec, 2.5 to 6.4 arcsec), order 3 0.06, no extrapolation 0.2.
_TO_NO_BLUR = np.array([[5.0, -10.0, 10.0, -5.0, 1.0], [4.0, -6.0, 4.0, -1.0, 0.0]])
# Share of the extrapolated light that is doubted in the weights, and how many times the
# difference of the two orders counts as the error it makes.
_DOUBT, _DOUBT_ORDERS = 0.1, 2.0
# The weights of the fit's terms (not its model) are taken from the image blurred by this share of
# its FWHM (sigma): the noise of single pixels no longer looks like structure.
_INSTRUMENT_BLUR = 0.25
# The PSFs differ by less than this share of the images' FWHM (as a sigma, in quadrature) where the
# cube is the sharper; the cube's geometry leaves room for it.
LARGEST_WIDTH = 0.35
_MIN_PIXELS = 12
# Times its information that the width is held by in a first turn.
_HELD = 1e9
# Smallest eigenvalue of a normal matrix of unit diagonal.
_LEAST_INFORMATION = 1e-7
# Side of the impulse whose response tells how the planes share noise.
_IMPULSE = 41
_MAX_POINTINGS = 5
_MAX_STEPS = 8
# Share of pixels that may be left out as outliers, and how far out they are.
_MAX_CLIPPED, _CLIP_SIGMA = 0.1, 4.0


class _Linear(NamedTuple):
    """One linear fit: coefficients, model columns, residuals and the rows that entered."""

    coefficient: NDArray[np.float64]
    inverse: NDArray[np.float64]
    instrument: NDArray[np.float64]
    columns: NDArray[np.float64]
    residual: NDArray[np.float64]
    weight: NDArray[np.float64]
    variance: NDArray[np.float64]
    lost: NDArray[np.float64]
    lost_other: NDArray[np.float64]
    blur: float


def fit_band(scene: Scene, limits: Limits | None = None) -> BandFit:
    """Find where the cube lies on the image of one band.

    Parameters
    ----------
    scene
        What is compared.
    limits
        When a shift counts as found.

    Returns
    -------
    BandFit
        With status other than 0 the terms are what the fit ended with, and no ground to move a
        cube.
    """
    limits = limits or Limits()
    image = filled(scene.image)
    move, width = np.zeros(2), 0.0
    view = look(scene, move, width)
    if view.pixel.size < _MIN_PIXELS:
        return _nothing(scene, FEW_PIXELS)
    move, dropped = _coarse(scene, view, image, limits), np.empty(0, dtype=np.intp)
    for _ in range(_MAX_POINTINGS):
        view = look(scene, move, width)
        if view.pixel.size < _MIN_PIXELS:
            return _nothing(scene, FEW_PIXELS)
        found = _gauss_newton(scene, view, image, width, dropped, limits)
        if found is None:
            return _nothing(scene, NO_STRUCTURE)
        step, new_width, fit = found
        dropped = view.pixel[fit.weight == 0]
        move = move + step
        settled = np.hypot(*step) < 0.02 and abs(new_width - width) < 1e-3 * scene.fwhm**2
        width = new_width
        if settled or np.hypot(*(scene.sky_out @ move)) > 1.5 * limits.max_shift:
            break
    return _result(scene, view, fit, move, width, limits)


def _coarse(
    scene: Scene, view: View, image: NDArray[np.float64], limits: Limits
) -> NDArray[np.float64]:
    """Best move on a grid of half a FWHM, in output pixels."""
    step = max(scene.scale_out, 0.5 * scene.fwhm)
    n = int(np.ceil(limits.max_shift / step))
    axis = np.linspace(-limits.max_shift, limits.max_shift, 2 * n + 1)
    best, move = np.inf, np.zeros(2)
    sigma = np.hypot(view.sigma, view.error)
    for east, north in [(e, k) for e in axis for k in axis]:
        trial = np.linalg.solve(scene.sky_out, np.array([east, north]))
        plane = planes_of(image, trial, 0.0)[:1]
        model = view.of(plane, scene.box)[0] - missing(view, scene, plane, 1)[0, 0]
        floor = limits.model_error * np.abs(model)
        columns = np.stack([model, view.coverage])
        chi2, scale = _chi2(view, columns, np.hypot(sigma, floor))
        if scale > 0 and chi2 < best:
            best, move = chi2, trial
    return move


def _chi2(
    view: View, columns: NDArray[np.float64], sigma: NDArray[np.float64]
) -> tuple[float, float]:
    """Chi-square of the best scale and offset, and the scale."""
    weight = 1.0 / sigma
    coefficient = np.linalg.lstsq((columns * weight).T, view.data * weight, rcond=None)[0]
    residual = (view.data - coefficient @ columns) * weight
    return float(residual @ residual), float(coefficient[0])


def _gauss_newton(
    scene: Scene,
    view: View,
    image: NDArray[np.float64],
    width: float,
    dropped: NDArray[np.intp],
    limits: Limits,
) -> tuple[NDArray[np.float64], float, _Linear] | None:
    """Steps of the move (output pixels) and the width (arcsec^2) at one operator's pointing."""
    largest = (LARGEST_WIDTH * scene.fwhm) ** 2
    farthest = max(1.0, 0.5 * scene.fwhm / scene.scale_out)
    step, start, scale = np.zeros(2), width, 1.0
    keep = ~np.isin(view.pixel, dropped)
    for turn in range(_MAX_STEPS):
        # a negative width is in the operator; a positive one blurs the image
        base = start if start < 0 else max(width, 0.0)
        fit = _linear(scene, view, image, (step, base), keep, scale, limits, first=turn == 0)
        if turn == 0 and not fit.coefficient[0] > 0:
            return None
        # far from the truth the linear model exaggerates; a scale that turns negative is no step
        scale = max(fit.coefficient[0], 0.5 * scale) if turn else fit.coefficient[0]
        change = fit.coefficient[2:] / scale
        size = float(np.hypot(*change[:2]))
        step = step + change[:2] * min(1.0, farthest / max(size, 1e-12))
        before = width
        wider = np.clip(change[2] * scene.scale_out**2, -0.2 * largest, 0.2 * largest)
        width = float(np.clip(base + wider, -largest, 3.0 * largest)) if turn else base
        if turn == 1:
            keep = _without_outliers(fit)
        if turn > 1 and size < 1e-3 and abs(width - before) < 1e-4 * scene.fwhm**2:
            break
    if not fit.coefficient[0] > 0:
        return None
    return step, width, fit


def _linear(
    scene: Scene, view: View, image: NDArray[np.float64], at: tuple[NDArray[np.float64], float],
    keep: NDArray[np.bool_], scale: float, limits: Limits, *, first: bool = False,
) -> _Linear:  # fmt: skip
    """Weighted linear fit of image, coverage, gradient and Laplacian to the cube's image.

    ``at`` is the step of the image (output pixels) and the width that is taken care of, by blur
    of the image where it is positive (arcsec^2); in the ``first`` turn it stays as it is.
    """
    step, base = at
    sigma = float(np.sqrt(max(base, 0.0)) / scene.scale_out)
    planes = planes_of(image, step, sigma)
    lost, other = _TO_NO_BLUR @ missing(view, scene, planes[:1], _TO_NO_BLUR.shape[1])[:, 0]
    # the derivatives only have to lead to where the fit settles
    slopes = view.of(planes[1:], scene.box) - missing(view, scene, planes[1:], 1)[0]
    seen = view.of(planes[:1], scene.box)[0] - lost
    columns = np.stack([seen, view.coverage, *slopes])
    doubt = np.hypot(np.hypot(_DOUBT * lost, lost - other), limits.model_error * seen)
    blurs = (sigma, float(np.hypot(sigma, _INSTRUMENT_BLUR * scene.fwhm / scene.scale_out)))
    shared, gain = _shared_noise(scene, step, *blurs)
    variance = view.sigma**2 + scale**2 * gain * view.error**2
    weight = np.where(keep, 1.0 / (variance + (scale * doubt) ** 2), 0.0)
    smooth = view.of(planes_of(image, step, blurs[1]), scene.box)
    instrument = weight * view.coverage * np.stack([smooth[0], np.ones(weight.size), *smooth[1:]])
    noise = shared * float((weight * view.coverage * view.error**2).sum())
    matrix, vector = instrument @ columns.T, instrument @ view.data
    prior = scene.prior(limits) / scale**2
    matrix[4, 4] += prior
    vector[4] -= prior * scale * base / scene.scale_out**2
    if first:
        matrix[4, 4] *= _HELD
    inverse = _inverse(matrix, noise)
    coefficient = inverse @ vector
    residual = view.data - coefficient @ columns
    return _Linear(
        coefficient, inverse, instrument, columns, residual, weight, variance, lost, other, sigma,
    )  # fmt: skip


def _shared_noise(
    scene: Scene, step: NDArray[np.float64], sigma: float, wider: float
) -> tuple[NDArray[np.float64], float]:
    """Noise that instruments and columns share for image noise of 1, ``(5, 5)``; the image's own.

    Taken from the normal matrix: image and Laplacian share noise, so a noisy image would look too
    sharp.
    """
    delta = np.zeros((_IMPULSE, _IMPULSE))
    delta[_IMPULSE // 2, _IMPULSE // 2] = 1.0
    planes = np.concatenate([planes_of(delta, step, wider), planes_of(delta, step, sigma)])
    both = quadratic(planes, scene.image_correlation)
    out = np.zeros((5, 5))
    terms = np.array([0, 2, 3, 4])
    out[np.ix_(terms, terms)] = both[:4, 4:]
    return out, float(both[4, 4])


def _inverse(matrix: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of a normal matrix less its noise; 0 for terms of which it tells nothing."""
    out, clean = np.zeros_like(matrix), matrix - noise
    active = np.diag(clean) > np.abs(np.diag(noise))
    while active.any():
        index = np.flatnonzero(active)
        square = np.ix_(index, index)
        # noise taken off a singular matrix makes it look regular, so both are asked
        least, share = min(
            (_least_information(m[square]) for m in (matrix, clean)), key=lambda found: found[0]
        )
        if least > _LEAST_INFORMATION:
            out[square] = np.linalg.inv(clean[square])
            break
        # of terms that cannot be told apart the last one (width, then shift) goes
        active[index[np.flatnonzero(share > 0.3)[-1]]] = False
    return out


def _least_information(matrix: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Smallest singular value of a normal matrix of unit diagonal, and each term's share in it."""
    norm = np.sqrt(np.diag(matrix))
    _, values, vectors = np.linalg.svd(matrix / np.outer(norm, norm))
    return float(values[-1]), np.abs(vectors[-1])


def _without_outliers(fit: _Linear) -> NDArray[np.bool_]:
    """Leave out pixels far from the fit (cosmic rays, stars), the worst few per cent at most."""
    pull = np.abs(fit.residual) * np.sqrt(fit.weight)
    spread = max(1.0, 1.4826 * float(np.median(pull)))
    limit = max(_CLIP_SIGMA * spread, float(np.quantile(pull, 1.0 - _MAX_CLIPPED)))
    return np.asarray(pull <= limit)


def _result(
    scene: Scene, view: View, fit: _Linear, move: NDArray[np.float64], width: float,
    limits: Limits,
) -> BandFit:  # fmt: skip
    """Terms, errors and maps of a fit that has settled."""
    scale, offset = fit.coefficient[:2]
    covariance, chi2 = _covariance(scene, view, fit, limits)
    shift = scene.sky_out @ move
    with np.errstate(invalid="ignore"):  # the error of an unknown term is infinite
        sky = covariance[2:4, 2:4] / scale**2
    if np.isfinite(sky).all():
        sky = scene.sky_out @ sky @ scene.sky_out.T
    per_fwhm2 = FWHM_PER_SIGMA**2
    fwhm = np.sqrt(max(scene.fwhm**2 + per_fwhm2 * width, 1e-6))
    variance = np.concatenate([np.diag(sky), np.diag(covariance)[[0, 1, 4]]])
    error = np.sqrt(variance)
    error[4] *= 0.5 * per_fwhm2 * scene.scale_out**2 / (scale * fwhm)
    used = fit.weight > 0
    image = fit.columns[0] + fit.lost
    synthetic = (view.data + scale * fit.lost - offset * view.coverage) / scale
    correlation, residual = _likeness(image[used], synthetic[used], offset / scale)
    status = judge(shift, sky, correlation, _significance(scene, view, fit), limits)
    both = np.where(used, np.stack([image, synthetic]), np.nan)
    maps = _on_box(scene, view, both, fill=np.nan).astype(np.float32)
    term = np.array([*shift, scale, offset, fwhm - scene.fwhm])
    return BandFit(term, error, sky, chi2, correlation, residual, status, *maps)


def _covariance(
    scene: Scene, view: View, fit: _Linear, limits: Limits
) -> tuple[NDArray[np.float64], float]:
    r"""Sandwich covariance of the coefficients, ``(5, 5)``, and chi-square over its expectation.

    :math:`M^{-1} X^T W C W X M^{-1}`, :math:`M = X^T W X`, whatever the weights ``W``; the noise
    ``C`` is that of cube (correlated between spaxels) and images. If the residuals are larger
    than that, so are the errors.
    """
    scale = fit.coefficient[0]
    inverse = fit.inverse
    B = _noise(scene, view, fit)
    B[4, 4] += scene.prior(limits) / scale**2
    expected = float((fit.weight * fit.variance).sum() - np.trace(inverse @ B))
    chi2 = float((fit.weight * fit.residual**2).sum()) / max(expected, 1e-30)
    doubt = _DOUBT_ORDERS * scale * (inverse @ (fit.instrument @ (fit.lost - fit.lost_other)))
    covariance = inverse @ B @ inverse.T * max(1.0, chi2) + np.outer(doubt, doubt)
    unknown = np.diag(inverse) == 0
    covariance[unknown] = covariance[:, unknown] = 0.0
    covariance[unknown, unknown] = np.inf
    return covariance, chi2


def _significance(scene: Scene, view: View, fit: _Linear) -> float:
    """Flux scale over its error, for a fit of image and offset alone."""
    two = slice(0, 2)
    matrix = fit.instrument[two] @ fit.columns[two].T
    if not (np.diag(matrix) > 0).all() or _least_information(matrix)[0] < _LEAST_INFORMATION:
        return 0.0  # a flat image looks like an offset, but for rounding
    inverse = np.linalg.inv(matrix)
    error = np.sqrt((inverse @ _noise(scene, view, fit)[two, two] @ inverse.T)[0, 0])
    return float(fit.coefficient[0] / error)


def _noise(scene: Scene, view: View, fit: _Linear) -> NDArray[np.float64]:
    """``X^T W C W X``: spaxels' noise through the operator and pixels' noise, with correlation."""
    sigma = np.sqrt(np.where(scene.good, scene.variance, 0.0))
    spaxels = view.back(fit.instrument, scene.flux.shape) * sigma
    pixels = _on_box(scene, view, fit.instrument * fit.coefficient[0], fill=0.0)
    if fit.blur > 0:
        kernel = gaussian_kernel(fit.blur)[None]
        pixels = signal.fftconvolve(pixels, kernel, mode="same", axes=(1, 2))
    pixels = pixels * np.nan_to_num(scene.error[scene.box], nan=0.0, posinf=0.0)
    return quadratic(spaxels, scene.correlation) + quadratic(pixels, scene.image_correlation)


def _on_box(
    scene: Scene, view: View, values: NDArray[np.float64], *, fill: float
) -> NDArray[np.float64]:
    """Values of the compared pixels on the box, ``(n_plane, n_y, n_x)``."""
    shape = (scene.corner_x.shape[0] - 1, scene.corner_x.shape[1] - 1)
    frame = np.full((values.shape[0], shape[0] * shape[1]), fill)
    frame[:, view.pixel] = values
    return frame.reshape(-1, *shape)


def _likeness(
    image: NDArray[np.float64], synthetic: NDArray[np.float64], pedestal: float
) -> tuple[float, float]:
    """Correlation, and rms difference as a share of the brightest pixel above the sky."""
    if image.std() == 0 or synthetic.std() == 0:
        return 0.0, np.inf
    correlation = float(np.corrcoef(image, synthetic)[0, 1])
    core = float(image.max() + pedestal)
    return correlation, float(np.std(synthetic - image)) / core if core > 0 else np.inf


def _nothing(scene: Scene, status: int) -> BandFit:
    """Result of a fit that cannot be made."""
    n_y, n_x = scene.corner_x.shape[0] - 1, scene.corner_x.shape[1] - 1
    unknown, blank = np.full(len(TERMS), np.nan), np.full((n_y, n_x), np.nan, dtype=np.float32)
    return BandFit(
        unknown, unknown, np.full((2, 2), np.nan), np.nan, np.nan, np.nan, status, blank, blank
    )
