from __future__ import annotations

import numpy as np

from specphoto.spectral.wavelength import air_to_vacuum, refractive_index, vacuum_to_air


def test_air_to_vacuum__inverts_to_float64() -> None:
    wave = np.linspace(2100, 30000, 5001)
    np.testing.assert_allclose(air_to_vacuum(vacuum_to_air(wave)), wave, rtol=1e-14)


def test_air_to_vacuum__known_lines() -> None:
    # Hbeta, [O III], Halpha, [S II]: NIST and SDSS list both wavelengths
    air = [4861.333, 5006.843, 6562.801, 6730.816]
    vacuum = [4862.691, 5008.240, 6564.614, 6732.674]
    np.testing.assert_allclose(air_to_vacuum(air), vacuum, atol=2e-3)


def test_refractive_index__is_one_where_tables_give_vacuum() -> None:
    np.testing.assert_array_equal(air_to_vacuum([912.0, 1900.0]), [912.0, 1900.0])
    assert refractive_index(5500.0) == np.float64(refractive_index([5500.0])[0])
