from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from specphoto.errors import InputError
from specphoto.photometry import filters
from specphoto.photometry.filters import (
    Filter,
    cwave_filters,
    known_filters,
    load_filter,
    load_filters,
    pixedfit_scale,
    register_filter,
)

if TYPE_CHECKING:
    from pathlib import Path

TWELVE = [
    "galex_fuv", "galex_nuv", "sdss_u", "sdss_g", "sdss_r", "sdss_i", "sdss_z",
    "2mass_j", "2mass_h", "2mass_k", "wise_w1", "wise_w2",
]  # fmt: skip


@pytest.fixture
def _clean_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_registered", {})


def test_load_filters__twelve_bands_have_their_published_pivots():
    # pivot wavelengths as the surveys publish them, Angstrom
    published = [1535, 2301, 3557, 4702, 6176, 7491, 8946, 12355, 16457, 21603, 33682, 46179]
    pivots = [f.pivot for f in load_filters(TWELVE)]
    np.testing.assert_allclose(pivots, published, rtol=5e-4)


@pytest.mark.parametrize("name", sorted(filters._sedpy_names()))
def test_load_filter__every_mapped_name_is_a_clean_curve_of_that_filter(name: str):
    curve = load_filter(name)
    pivot = filters._pixedfit_table()[name][1]
    assert np.all(np.diff(curve.wave) > 0)
    # the support, with at most one node of nothing beyond it on either side
    assert max(curve.response[:2]) > 0
    assert max(curve.response[-2:]) > 0
    # the same filter; the far-infrared differs most, where piXedfit's curves are per unit energy
    assert abs(curve.pivot / pivot - 1) < 0.05


def test_load_filter__sedpy_spelling_works():
    np.testing.assert_array_equal(load_filter("sdss_g0").response, load_filter("sdss_g").response)
    assert load_filter("bessell_V").name == "bessell_V"


def test_load_filter__unknown_name_gets_the_nearest_and_the_remedy():
    with pytest.raises(InputError, match=r"'sdss_gg'.*no curve.*sdss_g.*register_filter"):
        load_filter("sdss_gg")


AKARI = ("akari_n60", "akari_wide_s", "akari_wide_l", "akari_n160")


def test_load_filter__all_names_of_pixedfit_have_a_curve():
    table = filters._pixedfit_table()
    assert set(table) <= set(known_filters())
    assert len(filters._bundled()) == 53
    assert not set(filters._bundled()) & {*filters._sedpy_names(), *filters._sedpy_available()}
    for name in set(filters._bundled()) - {*AKARI, "wfi_i"}:
        # coarse curves have another pivot by the trapezium rule than by the exact one
        assert load_filter(name).pivot == pytest.approx(table[name][1], rel=5e-5), name
    assert load_filter("hst_wfpc2_f814w").pivot == pytest.approx(7996, abs=1)


def test_load_filter__akari_is_made_signal_per_photon():
    # the mission's responses are per energy: 1 at 65 micron
    curve = load_filter("akari_n60")
    per_energy = curve.response * curve.wave
    at = np.interp(65e4, curve.wave, per_energy)
    assert at / per_energy.max() == pytest.approx(1 / 1.0984, abs=2e-3)
    assert curve.pivot < filters._pixedfit_table()["akari_n60"][1]


def test_load_filter__doubtful_curve_is_told_of():
    with pytest.warns(UserWarning, match=r"'wfi_i': piXedfit's curve is doubtful"):
        curve = load_filter("wfi_i")
    assert curve.pivot == pytest.approx(9846, abs=2)


def test_load_filter__thinned_curves_lose_nothing(realdata: Path):
    grid = np.linspace(0.5, 1.5, 4001)
    with (
        h5py.File(realdata / "tables" / "pixedfit_filters_w.hdf5") as wave,
        h5py.File(realdata / "tables" / "pixedfit_filters_t.hdf5") as response,
    ):
        for name in set(filters._bundled()) - {*AKARI, "wfi_i"}:
            thin = load_filter(name)
            w, r = wave[name][:], np.clip(response[name][:], 0, None)
            order = np.argsort(w, kind="stable")
            whole = Filter(name, w[order], r[order])
            assert thin.pivot == pytest.approx(whole.pivot, rel=2e-5), name
            assert thin.effective_width == pytest.approx(whole.effective_width, rel=1e-4), name
            # a steep spectrum with an edge in the band
            wave_grid = grid * whole.pivot
            flux = grid**-3 * np.where(grid > 1.0, 2.0, 1.0)
            means = [
                np.trapezoid(flux * c, wave_grid) / np.trapezoid(c, wave_grid)
                for curve in (thin, whole)
                for c in [wave_grid * np.interp(wave_grid, curve.wave, curve.response, 0, 0)]
            ]
            assert means[0] == pytest.approx(means[1], rel=2e-4), name


@pytest.mark.usefixtures("_clean_registry")
def test_register_filter__goes_before_and_is_trimmed():
    wave = [3000.0, 3100.0, 3200.0, 3300.0, 3400.0, 3500.0]
    curve = register_filter("sdss_u", wave, [0, 0, 1, 1, 0, 0])
    assert load_filter("sdss_u") is curve
    assert curve.range == (3100.0, 3400.0)
    # piXedfit's own figure stays what piXedfit used
    assert cwave_filters("sdss_u") == 3351.0


@pytest.mark.usefixtures("_clean_registry")
def test_register_filter__own_name_has_a_central_wavelength_and_no_distortion():
    curve = register_filter("my_band", [5000.0, 6000.0], [1.0, 1.0])
    assert cwave_filters("my_band") == curve.pivot
    assert pixedfit_scale(["my_band"]) == 1.0
    assert "my_band" in known_filters()


@pytest.mark.parametrize(
    ("wave", "response", "message"),
    [
        ([1.0, 2.0, 3.0], [1.0, 1.0], "shapes"),
        ([1.0, np.nan], [1.0, 1.0], "finite"),
        ([2.0, 1.0], [1.0, 1.0], "increase"),
        ([1.0, 2.0], [1.0, -1.0], "at least 0"),
        ([1.0, 2.0], [0.0, 0.0], "at least 0"),
    ],
)
def test_register_filter__bad_curve_is_refused(wave, response, message):
    with pytest.raises(InputError, match=message):
        register_filter("bad", wave, response)
    assert "bad" not in known_filters()


def test_filter__box_has_analytic_properties():
    box = Filter("box", np.array([4000.0, 6000.0]), np.array([0.3, 0.3]))
    # int lam dlam / int dlam / lam
    assert box.pivot == pytest.approx(np.sqrt(0.5 * (6e3**2 - 4e3**2) / np.log(1.5)), rel=1e-12)
    assert box.effective_width == pytest.approx(2000.0)


def test_filter__is_read_only_and_travels():
    curve = load_filter("sdss_r")
    with pytest.raises(ValueError, match="read-only"):
        curve.response[0] = 1.0
    again = pickle.loads(pickle.dumps(curve))
    np.testing.assert_array_equal(again.wave, curve.wave)
    assert again.pivot == curve.pivot


def test_cwave_filters__all_names_of_pixedfit():
    table = filters._pixedfit_table()
    assert len(table) == 235
    names = list(table)
    assert cwave_filters(names).shape == (235,)
    assert isinstance(cwave_filters("sdss_u"), float)
    assert cwave_filters("sdss_u") == 3351.0
    with pytest.raises(InputError, match="nonsense"):
        cwave_filters(["sdss_u", "nonsense"])


def test_cwave_filters__equal_to_pixedfits_own_files(realdata: Path):
    with (
        h5py.File(realdata / "tables" / "pixedfit_filters_w.hdf5") as wave,
        h5py.File(realdata / "tables" / "pixedfit_filters_t.hdf5") as response,
    ):
        assert set(wave) == set(filters._pixedfit_table())
        for name, (cw, pivot) in filters._pixedfit_table().items():
            assert cw == wave[name].attrs[f"cw_{name}"]
            w, r = wave[name][:], np.clip(response[name][:], 0, None)
            w, r = w[np.argsort(w, kind="stable")], r[np.argsort(w, kind="stable")]
            ratio = np.trapezoid(r * w, w) / np.trapezoid(r / w, w)
            assert pivot == pytest.approx(np.sqrt(ratio), rel=1e-5)


def test_pixedfit_scale__is_what_pixedfit_is_too_bright_by():
    names = ["sdss_u", "galex_nuv", "galex_fuv", "wise_w1", "wise_w2", "sdss_g"]
    percent = (1 / pixedfit_scale(names) - 1) * 100
    np.testing.assert_allclose(percent, [12.6, 7.8, 2.2, 2.2, 1.6, 0.7], atol=0.055)


def test_pixedfit_scale__own_curves_differ_where_pixedfits_are_per_energy():
    names = ["sdss_u", "galex_nuv", "2mass_j", "wise_w1", "wise_w2"]
    percent = (1 / pixedfit_scale(names, curves="specphoto") - 1) * 100
    np.testing.assert_allclose(percent, [12.6, 7.8, 0.0, 0.9, 0.7], atol=0.055)


def test_pixedfit_scale__unknown_name_is_refused():
    with pytest.raises(InputError, match="nonsense"):
        pixedfit_scale(["nonsense"])
