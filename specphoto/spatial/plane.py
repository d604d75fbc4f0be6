"""Match a block of planes: what one task of the spatial stage does.

The quantities that are smooth in wavelength (ratio of correlated to independent variance,
coverage map, edge terms) are evaluated at a few node wavelengths (:func:`match_node`) and
interpolated to the channels of each block (:func:`match_planes`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from specphoto.spatial.covariance import variance_ratio
from specphoto.spatial.edges import at_limit, compensation, guessed_share, star_share
from specphoto.spatial.varying import apply, interpolation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spatial.edges import Sky
    from specphoto.spatial.varying import VaryingOperator

__all__ = ["NODE_FIELDS", "PLANE_FIELDS", "match_node", "match_planes", "mean_light", "usual_noise"]

#: Layers of :func:`match_node`'s result.
NODE_FIELDS = ("ratio", "coverage", "edge_factor", "edge_bias", "gain", "star")
#: Layers of :func:`match_planes`'s result; ``bad`` is 1 where the value must not be used.
PLANE_FIELDS = ("flux", "err", "bad", "coverage")

# The bias that is left is estimated from what the last steps of sharpening and the cube's detail
# each change. Over discs of 1.5 to 4 arcsec, bulges and nuclei, 19- to 127-fibre bundles, centres
# on and off the edge: where it is below 2%, so is the bias in 99.7% of pixels, 3.6% at worst.
_LEFT = 0.7
# What no change tells, as a share of the light that is missing: colours that differ from place to
# place between the bands, the images' sampling.
_UNSEEN = 0.01
# More of a pixel's light than this in foreground spaxels: the galaxy's is not known.
_STAR = 0.2
# A channel that misses this much more of a pixel's light than is usual at its wavelength is masked
# there. Less than it is compensated: to 1.2% at worst for a continuum, holes of 1.5 to 6 arcsec.
_MUCH_MORE = 0.2


def match_node(
    operator: VaryingOperator,
    variance: NDArray[np.float32],
    good: NDArray[np.bool_],
    wave: float,
    stencil: NDArray[np.float64],
    sky: Sky,
    band_wave: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Smooth terms at one node wavelength.

    Parameters
    ----------
    operator
        The operator.
    variance, good
        A few neighbouring channels, ``(n_wave, n_y, n_x)``; a spaxel counts as good if it is in
        at least half of those that hold any.
    wave
        Node wavelength in Angstrom.
    stencil
        Correlation of input spaxels.
    sky, band_wave
        The images and their pivot wavelengths, or the cube's own light and its.

    Returns
    -------
    numpy.ndarray
        ``(6, n_y_out, n_x_out)``, layers :data:`NODE_FIELDS`.
    """
    usual, sigma = usual_noise(variance, good)
    ratio = variance_ratio(operator.at(wave), usual, sigma, stencil)
    here, inside = np.array([wave]), np.flatnonzero(usual)
    weight = operator.transmit(here, np.ones((1, inside.size), dtype=np.float32), inside)
    # a dead stretch of the spectrum says nothing about where the bundle is
    coverage = (
        weight / operator.common.area if usual.any() else np.full_like(weight, np.nan)
    ).astype(np.float32)
    terms = _edge_terms(operator, usual, coverage, here, sky, band_wave)
    layers = np.stack([ratio, coverage[0], *terms]).astype(np.float32)
    return operator.common.scatter(layers)


def usual_noise(
    variance: NDArray[np.float32], good: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Good spaxels of a few neighbouring channels and their 1-sigma error, ``(n_y, n_x)`` each.

    A spaxel counts as good if it is in at least half of the channels that hold any.
    """
    n_good = good.sum(axis=0)
    # channels in which nothing is good (a dead stretch) do not vote
    usual = (n_good > 0) & (2 * n_good >= good.any(axis=(1, 2)).sum())
    mean_var = np.where(good, variance, 0.0).sum(axis=0) / np.maximum(n_good, 1)
    return usual, np.sqrt(mean_var)


def mean_light(
    flux: NDArray[np.float32], variance: NDArray[np.float32], good: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Mean flux of a few neighbouring channels and its variance, ``(2, n_y, n_x)``.

    NaN where fewer than half of the channels that hold any are good.
    """
    usual, sigma = usual_noise(variance, good)
    n_good = np.maximum(good.sum(axis=0), 1)
    mean = np.where(good, flux, 0.0).sum(axis=0) / n_good
    return np.where(usual, np.stack([mean, sigma**2 / n_good]), np.nan).astype(np.float32)


def _edge_terms(
    operator: VaryingOperator,
    good: NDArray[np.bool_],
    coverage: NDArray[np.float32],
    wave: NDArray[np.float64],
    sky: Sky,
    band_wave: NDArray[np.float64],
) -> tuple[NDArray[np.float32], ...]:
    """Size of the compensation, bias that is left, factor, share of stars, each ``(n_row,)``."""
    plain = _inverse(coverage)
    mix = interpolation(wave, band_wave)
    g = compensation(operator, wave, good[None], mix, sky.inner, sky.full, plain)
    others = [
        compensation(operator, wave, good[None], mix, inner, full, plain)
        for inner, full in zip(sky.other_inner, sky.other_full, strict=True)
    ]
    # light that is made up may not be there at all
    guess = guessed_share(operator, wave, good[None], mix, sky, coverage)
    star = star_share(operator, wave, mix, sky)
    with np.errstate(invalid="ignore", divide="ignore"):
        changes = [_LEFT * (g / other - 1.0) for other in others]
        missing = np.clip(1.0 - coverage, 0.0, 1.0)
        noise = missing * (mix @ sky.rel_err)
        terms = (*changes, noise, guess, star, _UNSEEN * missing)
        bias = np.sqrt(sum(term**2 for term in terms))
        # at its limit the compensation says nothing of what is missing
        for factor in (g, *others):
            bias[at_limit(factor, plain)] = np.nan
        size = g / plain
    return size[0], bias[0], g[0], star[0]


def _inverse(coverage: NDArray[np.float32]) -> NDArray[np.float32]:
    """``1 / c``, NaN where nothing is covered."""
    seen = coverage > 0
    return np.where(seen, 1.0 / np.where(seen, coverage, 1.0), np.nan).astype(np.float32)


def match_planes(
    operator: VaryingOperator,
    flux: NDArray[np.float32],
    variance: NDArray[np.float32],
    good: NDArray[np.bool_],
    wave: NDArray[np.float64],
    nodes: NDArray[np.float32],
    node_wave: NDArray[np.float64],
    sky: Sky,
    band_wave: NDArray[np.float64],
    *,
    min_coverage: float,
) -> NDArray[np.float32]:
    r"""Flux, error, mask and coverage of a block of channels on the output grid.

    .. math::

        f_o = g_o \sum_j A_{oj} w_j f_j, \qquad
        \sigma_o^2 = g_o^2 \, r_o \sum_j A_{oj}^2 w_j \sigma_j^2

    with the edge compensation ``g`` (``1 / c`` without images), and ``r`` the ratio of
    correlated to independent variance. The compensation is a factor, so its own error is not in
    :math:`\sigma_o`; it is what ``edge_bias`` estimates.

    Parameters
    ----------
    operator
        The operator.
    flux, variance, good
        ``(n_wave, n_y, n_x)``.
    wave
        Wavelengths of the channels, ``(n_wave,)``.
    nodes, node_wave
        Stacked results of :func:`match_node`, ``(n_node, 6, n_y_out, n_x_out)``, and where.
    sky, band_wave
        The images and their pivot wavelengths, or the cube's own light and its.
    min_coverage
        Output pixels covered less than this are unknown.

    Returns
    -------
    numpy.ndarray
        ``(4, n_wave, n_y_out, n_x_out)``, layers :data:`PLANE_FIELDS`; unknown is NaN.
    """
    sums = apply(operator, wave, flux, variance, good)
    common = operator.common
    coverage = (sums.weight / common.area).astype(np.float32)
    factor = _inverse(coverage)
    node_rows = nodes.reshape(*nodes.shape[:2], -1)[..., common.row]
    ratio = _along_wave(wave, node_wave, node_rows[:, NODE_FIELDS.index("ratio")])
    mix = interpolation(wave, band_wave)
    factor = compensation(operator, wave, good, mix, sky.inner, sky.full, factor)
    usual, star = (
        _along_wave(wave, node_wave, node_rows[:, NODE_FIELDS.index(name)])
        for name in ("gain", "star")
    )
    out_flux = sums.flux * factor
    out_err = np.sqrt(sums.variance * ratio) * factor
    bad = ~(coverage >= min_coverage) | ~np.isfinite(out_flux) | ~(out_err > 0)
    # what is missing from this channel only is not in the estimate of the bias
    bad |= (factor * (1.0 - _MUCH_MORE) > usual) | (star > _STAR)
    out_flux[bad] = np.nan
    out_err[bad] = np.nan
    frame = common.scatter(np.stack([out_flux, out_err, bad.astype(np.float32), coverage]))
    frame[2:] = np.nan_to_num(frame[2:], nan=0.0)
    outside = np.ones(frame.shape[2] * frame.shape[3], dtype=bool)
    outside[common.row] = False
    frame[2, :, outside.reshape(frame.shape[2:])] = 1.0
    return frame


def _along_wave(
    wave: NDArray[np.float64], node_wave: NDArray[np.float64], values: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Linear in wavelength between nodes, constant past them; unknown nodes are skipped.

    ``values`` is ``(n_node, n_row)``; returns ``(n_wave, n_row)``.
    """
    known = np.isfinite(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0.0).sum(axis=0) / count
    # a node without good data takes the mean of the others
    filled = np.where(known, values, np.where(known.any(axis=0), mean, np.nan))
    return np.asarray(interpolation(wave, node_wave) @ filled, dtype=np.float32)
