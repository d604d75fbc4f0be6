"""Correlated errors against a^T C a written out, and against noise that is really correlated."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files

import dask
import numpy as np
import pytest
import yaml
from scipy import linalg, ndimage
from spatial_cases import cube, tan_wcs

from specphoto.cube import Grid
from specphoto.errors import InputError
from specphoto.spatial.correlation import (
    LagCorrelation,
    checked_lags,
    clipped_share,
    correlation_matrix,
    stencil_of,
)
from specphoto.spatial.covariance import (
    correlation_stencil,
    local_affine,
    output_correlation,
    output_lags,
    variance_ratio,
)
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


def correlation_matrix_of(shape, cutoff, scale=SCALE):
    y, x = (axis.ravel() for axis in np.indices(shape))
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    return np.where(distance <= cutoff, np.exp(-0.5 * (distance / scale) ** 2), 0.0)


def lags_of(matrix, shape):
    """Half-plane lags of a correlation matrix, as a cube carries them."""
    reach = 7
    flat = np.arange(matrix.shape[0]).reshape(shape)
    lags, rho = [], []
    for step_y in range(reach + 1):
        for step_x in range(-reach if step_y else 1, reach + 1):
            first = flat[: shape[0] - step_y, max(0, -step_x) : shape[1] - max(0, step_x)]
            second = flat[step_y:, max(0, step_x) : shape[1] + min(0, step_x)]
            layer = np.zeros(shape, dtype=np.float32)
            layer.ravel()[first.ravel()] = matrix[first.ravel(), second.ravel()]
            if layer.any():
                lags.append((step_y, step_x))
                rho.append(layer)
    return np.stack(rho), *np.array(lags).T


def fibre_matrix(shape, seed=3):
    """Correlation of spaxels made of scattered fibres: another one for each pair."""
    rng = np.random.default_rng(seed)
    y, x = (axis.ravel() for axis in np.indices(shape))
    at = rng.uniform(-2, max(shape) + 2, (shape[0] * shape[1] // 2, 2))
    distance = np.hypot(y[:, None] - at[:, 0], x[:, None] - at[:, 1])
    share = np.where(distance < 3.2, np.exp(-0.5 * (distance / 1.4) ** 2), 0.0)
    share /= np.sqrt((share**2).sum(axis=1, keepdims=True))
    return share @ share.T


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
    C = correlation_matrix_of(op.shape_in, CUTOFF)
    b = weights(op).astype(float) * (good * sigma).ravel()[:, None]
    wanted = np.einsum("jo,jk,ko->o", b, C, b) / (b**2).sum(axis=0)
    assert wanted.min() > 5.0
    np.testing.assert_allclose(got, wanted, rtol=2e-3)


def test_variance_ratio__needs_a_positive_variance_of_any_pattern():
    # the cut Gaussian is not positive semi-definite: alternating signs reach its bad side
    shape = (20, 20)
    C = correlation_matrix_of(shape, CUTOFF)
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


def test_variance_ratio__lags_are_the_quadratic_form_written_out():
    op = operator()
    rng = np.random.default_rng(1)
    good = rng.random(op.shape_in) > 0.2
    sigma = rng.uniform(0.5, 2.0, op.shape_in)
    C = fibre_matrix(op.shape_in)
    got = variance_ratio(op, good, sigma, checked_lags(*lags_of(C, op.shape_in), name="cube"))
    b = weights(op).astype(float) * (good * sigma).ravel()[:, None]
    wanted = np.einsum("jo,jk,ko->o", b, C, b) / (b**2).sum(axis=0)
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize("side", range(2, 10))
def test_correlation_stencil__of_califa_follows_the_published_relation(side):
    # the error of N spaxels over the uncorrelated one grows as 1 + 1.07 log10 N
    facts = files("specphoto").joinpath("data", "instruments", "califa.yaml").read_text("utf-8")
    stencil = stencil_of(yaml.safe_load(facts)["correlation"])
    n = side**2
    y, x = (index.ravel() for index in np.indices((side, side)))
    step_y, step_x = (np.subtract.outer(c, c) for c in (y, x))
    reach = stencil.shape[0] // 2
    near = np.maximum(np.abs(step_y), np.abs(step_x)) <= reach
    rho = stencil[(step_y[near] + reach), (step_x[near] + reach)].sum()
    assert np.sqrt(rho / n) == pytest.approx(1.0 + 1.07 * np.log10(n), rel=0.08)


def test_clipped_share__is_small_for_the_surveys_models():
    assert clipped_share(correlation_stencil(SCALE, CUTOFF)) == pytest.approx(0.0013, abs=1e-4)
    assert clipped_share(correlation_stencil(1.25, 4.2)) == pytest.approx(0.0024, abs=1e-4)
    assert clipped_share(correlation_stencil(0.0, 0.0)) == 0.0


def test_stencil_of__refuses_what_makes_a_variance_negative():
    with pytest.raises(InputError, match=r"every variance is positive.*-3\.\d+% of its maximum"):
        stencil_of({"model": "gaussian", "scale": SCALE, "cutoff": 4.0})


def test_correlation_matrix__has_each_pair_twice_and_wraps_none():
    C = fibre_matrix((11, 9))
    matrix = correlation_matrix(LagCorrelation(*lags_of(C, (11, 9))))
    np.testing.assert_allclose(matrix.toarray(), C, atol=1e-7)
    alone = LagCorrelation(np.ones((1, 2, 2), np.float32), np.array([0]), np.array([1]))
    np.testing.assert_array_equal(
        correlation_matrix(alone).toarray(),
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]],
    )


@pytest.mark.parametrize("shape", [(8, 8), (20, 20)], ids=["dense", "lanczos"])
def test_checked_lags__small_negative_eigenvalues_are_told_and_large_ones_refused(shape, caplog):
    caplog.set_level("INFO", "specphoto.spatial.correlation")
    near = correlation_matrix(
        LagCorrelation(*lags_of(correlation_matrix_of(shape, CUTOFF), shape))
    ).toarray()
    value = linalg.eigvalsh(near)
    lags = checked_lags(*lags_of(near, shape), name="cube")
    assert lags.floor == pytest.approx(-float(value[0]), abs=2e-3 * float(value[-1]))
    assert lags.clipped == pytest.approx(lags.floor / float(value[-1]), rel=0.01)
    assert 0.0 < lags.clipped < 0.01
    told = "eigenvalues down to -0.00" in caplog.text
    assert told == (lags.clipped > 1e-3)
    with pytest.raises(InputError, match=r"cube: spec_corr.*eigenvalue of -.* of the largest"):
        checked_lags(*lags_of(correlation_matrix_of(shape, 3.0), shape), name="cube")


def test_checked_lags__unknown_pairs_count_as_none():
    rho = np.full((1, 3, 3), np.nan, dtype=np.float32)
    rho[0, 0, 0] = 0.5
    lags = checked_lags(rho, [0], [1], name="cube")
    assert lags.rho.sum() == 0.5
    assert (lags.floor, lags.clipped) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("rho", "lag", "match"),
    [(0.5, (0, -1), "lag_y > 0.*lag_y, lag_x = 0, -1"), (1.7, (1, 0), "between -1 and 1.*1.7")],
)
def test_checked_lags__refuses(rho, lag, match):
    with pytest.raises(InputError, match=match):
        checked_lags(np.full((1, 3, 3), rho), [lag[0]], [lag[1]], name="cube")


def test_variance_ratio__of_lags_never_falls_below_the_floor():
    shape = (20, 20)
    C = correlation_matrix_of(shape, CUTOFF)
    vector = linalg.eigh(C, subset_by_index=[0, 0])[1]
    bad = build_operator(*np.meshgrid([-0.5, 19.5], [-0.5, 19.5]), shape, np.ones((1, 1)))
    worst = replace(bad, weight=vector.astype(np.float32))
    lags = checked_lags(*lags_of(C, shape), name="cube")
    ones = np.ones(shape)
    assert variance_ratio(worst, ones > 0, ones, lags)[0] == pytest.approx(lags.floor)
    # and where there is no floor, no error bar comes of it
    unchecked = LagCorrelation(lags.rho, lags.lag_y, lags.lag_x)
    assert np.isnan(variance_ratio(worst, ones > 0, ones, unchecked)[0])


def written_out(op, good, sigma, C, lag_y, lag_x):
    """Correlation of output pixels by dense matrices, ``(n_lag, n_row)``."""
    b = weights(op).astype(float) * (good * sigma).ravel()[:, None]
    V = b.T @ C @ b
    V /= np.sqrt(np.outer(np.diag(V), np.diag(V)))
    y, x = np.divmod(op.row, op.shape_out[1])
    out = np.full((lag_y.size, op.row.size), np.nan)
    for k, (step_y, step_x) in enumerate(zip(lag_y, lag_x, strict=True)):
        for r in range(op.row.size):
            partner = np.flatnonzero((y == y[r] + step_y) & (x == x[r] + step_x))
            if partner.size:
                out[k, r] = V[r, partner[0]]
    return out


@pytest.mark.parametrize("below", [0.0, 1.1], ids=["dense", "sparse"])
@pytest.mark.parametrize("form", ["stencil", "lags", "none"])
def test_output_correlation__is_the_matrix_written_out(monkeypatch, below, form):
    monkeypatch.setattr("specphoto.spatial.operator._SPARSE_BELOW", below)
    monkeypatch.setattr("specphoto.spatial.covariance._TILE_WITH_NEIGHBOURS", 3)
    op = operator(step=1.7, n_out=9)
    rng = np.random.default_rng(1)
    good = rng.random(op.shape_in) > 0.1
    good[8:12, 8:12] = False
    sigma = rng.uniform(0.5, 2.0, op.shape_in)
    lag_y, lag_x = np.array([0, 0, 1, 2, 3, 5]), np.array([1, 4, -1, 0, 3, -8])
    if form == "lags":
        C = fibre_matrix(op.shape_in)
        given = checked_lags(*lags_of(C, op.shape_in), name="cube")
    else:
        scale = SCALE if form == "stencil" else 1e-3
        C = correlation_matrix_of(op.shape_in, CUTOFF, scale)
        given = correlation_stencil(SCALE if form == "stencil" else 0.0, CUTOFF)
    got = output_correlation(op, good, sigma, given, lag_y, lag_x)
    wanted = written_out(op, good, sigma, C, lag_y, lag_x)
    assert got.dtype == np.float32
    assert np.isfinite(wanted).any(axis=1).all()
    # the negative part of the stencil's spectrum is clipped, in the matrix written out it is not
    np.testing.assert_allclose(got, wanted, atol=1e-3 if form == "stencil" else 1e-5)


def test_output_correlation__is_unknown_where_nothing_is_good():
    op = operator(step=1.7, n_out=9)
    ones = np.ones(op.shape_in)
    lags = np.array([0]), np.array([1])
    assert np.isnan(output_correlation(op, ones < 0, ones, ones[:1, :1], *lags)).all()
    empty = output_correlation(op, ones > 0, ones, ones[:1, :1], *np.empty((2, 0), int))
    assert empty.shape == (0, op.row.size)


@pytest.mark.parametrize("angle", [0.0, 33.0])
def test_output_lags__hold_all_that_is_correlated(angle):
    kernel = matching_kernel(PSF("gaussian", 2.54), PSF("gaussian", 5.0), 0.5)
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    edge = (np.arange(15) - 7.0) * 2.4
    x, y = np.meshgrid(edge, edge)
    corners = (c * x - s * y + 29.5, s * x + c * y + 29.5)
    op = build_operator(*corners, (60, 60), kernel)
    stencil = correlation_stencil(SCALE, CUTOFF)
    lag_y, lag_x = output_lags([kernel], stencil, local_affine(*corners))
    every_y, every_x = np.mgrid[0:10, -9:10].reshape(2, -1)
    half = (every_y > 0) | (every_x > 0)
    every = every_y[half], every_x[half]
    ones = np.ones(op.shape_in)
    middle = op.row.tolist().index(7 * 14 + 5)
    rho = output_correlation(op, ones > 0, ones, stencil, *every)[:, middle]
    found = {(a, b) for a, b in zip(lag_y.tolist(), lag_x.tolist(), strict=True)}
    inside = np.array([(a, b) in found for a, b in zip(*(e.tolist() for e in every), strict=True)])
    # one and the same lag differs a little from pixel to pixel of a grid that is turned
    assert np.nanmax(rho[~inside]) < 0.012
    assert np.nanmin(rho[inside]) > 0.008
    assert 20 < len(found) < 100


def test_output_lags__a_grid_that_oversamples_has_none():
    kernel = matching_kernel(PSF("gaussian", 2.54), PSF("gaussian", 6.4), 0.5)
    lag_y, lag_x = output_lags([kernel], correlation_stencil(SCALE, CUTOFF), np.eye(2) / 2.0)
    assert lag_y.size == lag_x.size == 0


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
