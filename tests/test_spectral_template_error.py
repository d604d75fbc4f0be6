"""The template error against draws of it."""

from __future__ import annotations

import numpy as np
import pytest

from specphoto.photometry.filters import load_filters
from specphoto.photometry.synthetic import synthetic_flux
from specphoto.spectral import legendre
from specphoto.spectral.template_error import DEFAULT_TEMPLATE_ERROR, TemplateError

BANDS = ["galex_nuv", "sdss_g", "sdss_r", "2mass_j"]
RANGE = (3600.0, 10_300.0)
ERROR = TemplateError((1500.0, 5000.0, 20_000.0), (0.2, 0.05, 0.1), 0.4)


@pytest.mark.parametrize("redshift", [0.0, 0.1])
def test_project__is_the_covariance_of_draws(redshift):
    filters = load_filters(BANDS)
    wave = np.exp(np.arange(np.log(1500.0), np.log(15_000.0), 0.004))
    rng = np.random.default_rng(1)
    root = np.linalg.cholesky(ERROR.covariance(wave / (1 + redshift)) + 1e-10 * np.eye(wave.size))
    draws = rng.normal(size=(4000, wave.size)) @ root.T
    band = synthetic_flux(draws.T, wave, filters).T
    inside = np.linspace(*RANGE, 500)
    L = legendre.basis(legendre.normalized(inside, *RANGE), 3)
    shape = np.stack([np.interp(inside, wave, d) for d in draws]) @ np.linalg.pinv(L)
    found = np.cov(np.hstack([band, shape]).T)
    got = ERROR.project(redshift, filters, RANGE, 4)
    stated = np.block([[got.band, got.cross.T], [got.cross, got.shape]])
    sigma = np.sqrt(np.diag(found))
    np.testing.assert_allclose(np.sqrt(np.diag(stated)), sigma, rtol=0.05)
    np.testing.assert_allclose(stated / np.outer(sigma, sigma), found / np.outer(sigma, sigma),
                               atol=0.06)  # fmt: skip


def test_project__is_a_covariance():
    filters = load_filters([*BANDS, "galex_fuv", "sdss_u", "sdss_i", "sdss_z", "wise_w1"])
    got = DEFAULT_TEMPLATE_ERROR.project(0.03, filters, RANGE, 5)
    whole = np.block([[got.band, got.cross.T], [got.cross, got.shape]])
    values = np.linalg.eigvalsh(whole)
    assert values[0] > -1e-9 * values[-1]


def test_covariance__is_constant_beyond_the_nodes_and_falls_with_distance():
    wave = np.array([500.0, 1500.0, 3000.0, 50_000.0])
    cov = ERROR.covariance(wave)
    np.testing.assert_allclose(np.sqrt(np.diag(cov))[[0, 1, 3]], [0.2, 0.2, 0.1])
    rho = cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    assert (np.diff(rho[0]) < 0).all()
