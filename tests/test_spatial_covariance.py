"""Correlated errors against a^T C a written out, and against noise that is really correlated."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from scipy import linalg, ndimage
from spatial_cases import cube, tan_wcs

from specphoto.cube import Grid
from specphoto.spatial.covariance import correlation_stencil, variance_ratio
from specphoto.spatial.kernel import matching_kernel
from specphoto.spatial.match import match_spatial
from specphoto.spatial.operator import build_operator
from specphoto.spatial.psf import PSF

SCALE, CUTOFF = 1.92, 6.4  # MaNGA, spaxels
MANGA = {"model": "gaussian", "scale": SCALE, "cutoff": CUTOFF}


def operator(shape=(20, 18), fwhm=4.0, step=2.6, n_out=6):
    edge = np.arange(n_out + 1) * step + 1.3
    x, y = np.meshgrid(edge, edge)
    kernel = matching_kernel(PSF("gaussian", 2.54), PSF("gaussian", fwhm), 0.5)
    return build_operator(x, y, shape, kernel)


def correlation_matrix(shape, scale, cutoff):
    y, x = (axis.ravel() for axis in np.indices(shape))
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    return np.where(distance <= cutoff, np.exp(-0.5 * (distance / scale) ** 2), 0.0)


def weights(op):
    return np.asarray(op.weight if isinstance(op.weight, np.ndarray) else op.weight.toarray())


def test_correlation_stencil__is_the_gaussian_with_a_cutoff():
    rho = correlation_stencil(SCALE, CUTOFF)
    assert rho.shape == (13, 13)
    assert rho[6, 6] == 1.0
    assert rho[6, 9] == pytest.approx(np.exp(-4.5 / SCALE**2))
    assert rho[6, 12] > 0
    assert rho[1, 1] == 0.0  # 7.07 spaxels away
    np.testing.assert_array_equal(correlation_stencil(0.0, 0.0), [[1.0]])


def test_variance_ratio__is_the_quadratic_form_written_out():
    op = operator()
    rng = np.random.default_rng(1)
    good = rng.random(op.shape_in) > 0.2
    sigma = rng.uniform(0.5, 2.0, op.shape_in)
    got = variance_ratio(op, good, sigma, correlation_stencil(SCALE, CUTOFF))
    C = correlation_matrix(op.shape_in, SCALE, CUTOFF)
    b = weights(op).astype(float) * (good * sigma).ravel()[:, None]
    wanted = np.einsum("jo,jk,ko->o", b, C, b) / (b**2).sum(axis=0)
    assert wanted.min() > 5.0
    np.testing.assert_allclose(got, wanted, rtol=2e-3)


def test_variance_ratio__needs_a_positive_variance_of_any_pattern():
    # the cut Gaussian is not positive semi-definite: alternating signs reach its bad side
    shape = (20, 20)
    C = correlation_matrix(shape, SCALE, CUTOFF)
    eigenvalue, vector = linalg.eigh(C, subset_by_index=[0, 0])
    assert eigenvalue[0] < -0.02
    bad = build_operator(*np.meshgrid([-0.5, 19.5], [-0.5, 19.5]), shape, np.ones((1, 1)))
    worst = type(bad)(
        weight=vector.astype(np.float32), row=bad.row, area=bad.area, overlap=bad.overlap,
        kernel=bad.kernel, pad=bad.pad, shape_in=bad.shape_in, shape_out=bad.shape_out,
    )  # fmt: skip
    ones = np.ones(shape)
    ratio = variance_ratio(worst, ones > 0, ones, correlation_stencil(SCALE, CUTOFF))
    assert 0.0 <= ratio[0] < 0.02


def test_variance_ratio__no_correlation_is_one():
    op = operator()
    ones = np.ones(op.shape_in)
    ratio = variance_ratio(op, ones > 0, ones, correlation_stencil(0.0, 0.0))
    np.testing.assert_array_equal(ratio, 1.0)


def test_variance_ratio__nothing_good_is_unknown():
    op = operator()
    ones = np.ones(op.shape_in)
    ratio = variance_ratio(op, ones < 0, ones, correlation_stencil(SCALE, CUTOFF))
    assert np.isnan(ratio).all()


def test_variance_ratio__sparse_and_dense_agree(monkeypatch):
    ratios = []
    for below in (0.0, 1.1):
        monkeypatch.setattr("specphoto.spatial.operator._SPARSE_BELOW", below)
        op = operator()
        ones = np.ones(op.shape_in)
        ratios.append(variance_ratio(op, ones > 0, ones, correlation_stencil(SCALE, CUTOFF)))
    np.testing.assert_allclose(*ratios, rtol=1e-6)


@pytest.mark.parametrize("pixel", [1.5, 3.0])
def test_variance_ratio__manga_errors_without_correlation_are_4_6_times_too_small(pixel):
    # DESIGN: from 2.54" to 6.4" the exact operator without rho gives errors 4.6 times too small
    kernel = matching_kernel(PSF("gaussian", 2.54), PSF("gaussian", 6.4), 0.5)
    edge = (np.arange(10) - 4.5) * pixel / 0.5 + 36.5
    op = build_operator(*np.meshgrid(edge, edge), (74, 74), kernel)
    ones = np.ones(op.shape_in)
    ratio = variance_ratio(op, ones > 0, ones, correlation_stencil(SCALE, CUTOFF))
    middle = np.sqrt(ratio[op.row.tolist().index(40)])
    assert middle == pytest.approx(4.65, abs=0.08)


def noise_realisations(shape, sigma, n, *, scale, seed):
    """Noise with a Gaussian correlation of the given scale (0: none), ``(n, y, x)``.

    White noise through a Gaussian filter has a Gaussian correlation sqrt(2) as wide.
    """
    rng = np.random.default_rng(seed)
    if scale == 0:
        return (rng.standard_normal((n, *shape), dtype=np.float32) * sigma).astype(np.float32)
    margin = 12
    wide = rng.standard_normal((n, shape[0] + 2 * margin, shape[1] + 2 * margin), dtype=np.float32)
    width = scale / np.sqrt(2.0)
    smooth = ndimage.gaussian_filter(wide, (0, width, width), truncate=5.0)
    smooth = smooth[:, margin:-margin, margin:-margin]
    point = np.zeros((51, 51))
    point[25, 25] = 1.0
    power = (ndimage.gaussian_filter(point, width, truncate=5.0) ** 2).sum()
    return (smooth / np.sqrt(power) * sigma).astype(np.float32)


def scatter_over_error(noise, sigma, correlation, *, angle=15.0):
    """Variance over realisations of each matched pixel, over the variance predicted."""
    shape = noise.shape[1:]
    ifs = cube(noise, tan_wcs(shape, 0.5), variance=sigma**2, chunks=4000, correlation=correlation)
    grid = Grid(tan_wcs((9, 9), 1.5, angle=angle), (9, 9), 3.6)
    with dask.config.set(scheduler="synchronous"):
        out = match_spatial(ifs, grid, min_coverage=0.5)[["spec_flux", "spec_err"]].compute()
    known = np.isfinite(out["spec_flux"].values[0])
    assert known.sum() > 15
    # the error does not vary from channel to channel but through interpolation's rounding
    predicted = (out["spec_err"].values.astype(float) ** 2).mean(axis=0)[known]
    return out["spec_flux"].values.astype(float).var(axis=0)[known] / predicted


def test_match_spatial__independent_noise_has_the_predicted_variance():
    shape = (18, 18)
    sigma = np.random.default_rng(0).uniform(0.5, 2.0, shape)
    noise = noise_realisations(shape, sigma, 40_000, scale=0, seed=1)
    ratio = scatter_over_error(noise, sigma, {"model": "none"})
    # per pixel 40 000 realisations give 0.7%
    np.testing.assert_allclose(ratio, 1.0, atol=0.03)
    assert ratio.mean() == pytest.approx(1.0, abs=0.006)


def test_match_spatial__correlated_noise_has_the_predicted_variance():
    shape = (18, 18)
    sigma = 1.0 + 0.4 * np.sin(np.arange(18) / 4.0)[:, None] * np.ones(shape)
    noise = noise_realisations(shape, sigma, 10_000, scale=SCALE, seed=2)
    ratio = scatter_over_error(noise, sigma, MANGA)
    np.testing.assert_allclose(ratio, 1.0, atol=0.06)
    assert ratio.mean() == pytest.approx(1.0, abs=0.02)
    # and it is the correlation that makes it so
    assert scatter_over_error(noise, sigma, {"model": "none"}).mean() > 8.0
