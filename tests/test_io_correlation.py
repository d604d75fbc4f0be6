"""Noise correlation, PSF images and foreground spaxels of MaNGA cubes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import pytest
from astropy.io import fits
from lazy import graph_size, raise_if_computes
from survey_files import SHAPE, image, manga

from specphoto import InputError, open_ifs
from specphoto.cube import validate
from specphoto.io.correlation import half_plane, read_correlation
from specphoto.io.fitsfile import open_fits
from specphoto.simulate import galaxy, write_manga

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

N_Y, N_X = SHAPE[1:]
COLUMNS = ("INDXI_C1", "INDXI_C2", "INDXJ_C1", "INDXJ_C2")
# x, y of two spaxels and the correlation of their noise, in either order
PAIRS = [(2, 3, 2, 3, 1.0), (2, 3, 3, 3, 0.8), (4, 1, 2, 3, 0.25), (1, 2, 1, 4, 0.6)]


def table(name: str, pairs: Sequence[tuple[float, ...]], **cards: Any) -> fits.BinTableHDU:
    columns = zip(*pairs, strict=True) if pairs else [[]] * 5
    made = [
        fits.Column(column, "D" if column == "RHOIJ" else "J", array=np.array(values))
        for column, values in zip((*COLUMNS, "RHOIJ"), columns, strict=True)
    ]
    hdu = fits.BinTableHDU.from_columns(made, name=name)
    about = {"BBWAVE": 4702.5, "COVTYPE": "Correlation", "COVSHAPE": f"({N_Y * N_X},{N_Y * N_X})"}
    hdu.header.update({**about, **cards})
    return hdu


def with_hdus(path: Path, *hdus: Any) -> Path:
    manga(path)
    with fits.open(path, mode="append") as file:
        file.extend(hdus)
    return path


def test_half_plane__has_one_of_each_pair_of_lags() -> None:
    lag_y, lag_x = half_plane(6.4)
    assert lag_y.size == 64
    both = {*zip(lag_y, lag_x, strict=True), *zip(-lag_y, -lag_x, strict=True)}
    assert len(both) == 128
    assert all(y**2 + x**2 <= 6.4**2 for y, x in both)
    assert (0, 0) not in both


def test_spec_corr__each_pair_is_where_it_belongs(tmp_path: Path) -> None:
    red = table("RCORREL", [(0, 0, 1, 0, 0.5)], BBWAVE=6176.6)
    path = with_hdus(tmp_path / "a.fits", red, table("GCORREL", PAIRS))
    with raise_if_computes():
        ds = open_ifs(path)
    validate(ds, "spec_corr", "foreground", verb="test")
    assert ds["spec_corr"].dims == ("corr_wave", "lag", "y", "x")
    assert ds["spec_corr"].dtype == np.float32
    assert ds["corr_wave"].values.tolist() == [4702.5, 6176.6]
    corr = ds["spec_corr"].compute()
    for i_x, i_y, j_x, j_y, rho in PAIRS[1:]:
        if j_y < i_y or (j_y == i_y and j_x < i_x):
            i_x, i_y, j_x, j_y = j_x, j_y, i_x, i_y
        at = (corr["lag_y"] == j_y - i_y) & (corr["lag_x"] == j_x - i_x)
        assert at.sum() == 1
        assert float(corr[0, int(at.values.argmax()), i_y, i_x]) == pytest.approx(rho)
    assert (corr[0] != 0).sum() == 3
    assert (corr[1] != 0).sum() == 1
    # one task reads one table
    assert graph_size(ds["spec_corr"]) <= 4 * 2 + 2


def test_spec_corr__wavelength_of_a_table_without_the_card(tmp_path: Path) -> None:
    bare = table("ZCORREL", PAIRS)
    del bare.header["BBWAVE"], bare.header["COVTYPE"], bare.header["COVSHAPE"]
    ds = open_ifs(with_hdus(tmp_path / "a.fits", bare))
    assert ds["corr_wave"].values.tolist() == [8946.7]
    assert "spec_corr" not in open_ifs(manga(tmp_path / "b.fits"))


@pytest.mark.parametrize(
    ("pairs", "cards", "message"),
    [
        ([], {}, r"GCORREL: expected pairs of spaxels, found no rows"),
        (PAIRS, {"COVTYPE": "Covariance"}, r"expected correlations .*, found 'Covariance'"),
        (PAIRS, {"COVSHAPE": "(9,9)"}, r"COVSHAPE of the cube's 7 x 6 spaxels .* found \(9,9\)"),
        (PAIRS, {"TTYPE5": "VALUE"}, r"with the columns INDXI_C1.*, found no RHOIJ"),
    ],
)
def test_spec_corr__damaged_table_is_refused(
    tmp_path: Path, pairs: Any, cards: dict[str, Any], message: str
) -> None:
    hdu = table("GCORREL", pairs)
    path = with_hdus(tmp_path / "a.fits", hdu)
    with fits.open(path, mode="update") as file:
        file["GCORREL"].header.update(cards)
    with pytest.raises(InputError, match=message):
        open_ifs(path)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((7, 0, 6, 0, 0.5), r"spaxels inside the cube of 7 x 6 .* found x = 7, y = 0 in row 4"),
        ((0, 0, 0, -1, 0.5), r"found x = 0, y = -1 in row 4"),
        ((1, 1, 2, 1, 1.2), r"correlations from -1 to 1, .* found RHOIJ = 1.2 in row 4"),
        ((1, 1, 2, 1, np.nan), r"found RHOIJ = nan in row 4"),
        ((1, 1, 1, 1, 0.5), r"1 of a spaxel with itself, found RHOIJ = 0.5 in row 4"),
    ],
)
def test_spec_corr__damaged_numbers_are_refused_when_read(
    tmp_path: Path, pair: tuple[float, ...], message: str
) -> None:
    ds = open_ifs(with_hdus(tmp_path / "a.fits", table("GCORREL", [*PAIRS, pair])))
    with pytest.raises(InputError, match=r"a\.fits, GCORREL: .*" + message):
        ds["spec_corr"].compute(scheduler="synchronous")


def test_spec_corr__truncated_table_is_refused(tmp_path: Path) -> None:
    path = with_hdus(tmp_path / "a.fits", table("GCORREL", PAIRS * 100))
    path.write_bytes(path.read_bytes()[:-5760])
    with pytest.raises(InputError, match=r"a\.fits: expected a whole FITS file"):
        open_ifs(path)


def test_spec_corr__large_correlations_beyond_the_reach_are_told_of(tmp_path: Path) -> None:
    path = with_hdus(tmp_path / "a.fits", table("GCORREL", [*PAIRS, (0, 0, 3, 3, 0.4)]))
    source = open_fits(path).table("GCORREL", *COLUMNS, "RHOIJ")
    with pytest.warns(UserWarning, match=r"of up to 0.40 between spaxels more than 3 apart"):
        near = read_correlation(source, "a.fits, GCORREL", (N_Y, N_X), 3.0)
    assert near.shape == (14, N_Y, N_X)
    assert (near != 0).sum() == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_correlation(source, "a.fits, GCORREL", (N_Y, N_X), 5.0)


def test_spec_corr__scheduler_and_compression_make_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECPHOTO_CACHE", str(tmp_path / "cache"))
    cubes = [
        write_manga(tmp_path / name, galaxy(seed=2), fibres=19, wave_range=(6000, 6030))
        for name in ("a.fits", "a.fits.gz")
    ]
    results = [
        open_ifs(cube.path)["spec_corr"].compute(scheduler=name)
        for cube in cubes
        for name in ("synchronous", "threads")
    ]
    assert all(results[0].identical(other) for other in results[1:])
    # what was simulated: weights that share fibres, of unit quadratic sum
    weights = cubes[0].exposure.weights
    assert weights is not None
    rho = (weights @ weights.T).toarray()
    corr, (n_y, n_x) = results[0][0], cubes[0].pixels.shape
    seen = cubes[0].observed
    for lag in range(corr.sizes["lag"]):
        dy, dx = int(corr["lag_y"][lag]), int(corr["lag_x"][lag])
        y, x = np.nonzero(seen[: n_y - dy, max(0, -dx) : n_x - max(0, dx)])
        x += max(0, -dx)
        pair = rho[y * n_x + x, (y + dy) * n_x + x + dx]
        np.testing.assert_allclose(corr.values[lag, y, x], pair, atol=1.1e-3)


@pytest.mark.realdata
def test_spec_corr__real_matrix_holds_nothing_beyond_the_reach(
    realdata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECPHOTO_CACHE", str(tmp_path))
    path = realdata / "manga" / "manga-7815-3702-SNRG.fits.gz"
    source = open_fits(path).table("CORREL", *COLUMNS, "RHOIJ")
    corr = read_correlation(source, "CORREL", (42, 42), 6.4)
    with fits.open(path) as file:
        rows = file["CORREL"].data
    same = (rows["INDXI_C1"] == rows["INDXJ_C1"]) & (rows["INDXI_C2"] == rows["INDXJ_C2"])
    # every pair has its place, and none is lost: the widest are sqrt(40) spaxels apart
    assert (corr != 0).sum() == (~same).sum()
    assert corr.sum() == pytest.approx(rows["RHOIJ"][~same].sum(), rel=1e-5)
    # as MaNGA states it: a Gaussian of 1.92 spaxels
    lag_y, lag_x = half_plane(6.4)
    middle = corr[:, 16:26, 16:26].mean(axis=(1, 2))
    model = np.exp(-0.5 * (lag_y**2 + lag_x**2) / 1.92**2)
    assert np.abs(middle - model).max() < 0.06


def test_foreground__is_where_half_the_channels_say_so(tmp_path: Path) -> None:
    path = manga(tmp_path / "a.fits")
    with fits.open(path, mode="update") as file:
        file["MASK"].data[: SHAPE[0] // 2, 3, 4] |= 8
        file["MASK"].data[: SHAPE[0] // 2 - 1, 4, 4] |= 8
        file["MASK"].data[:, 5, 4] |= 4
    with raise_if_computes():
        foreground = open_ifs(path)["foreground"]
    assert foreground.dtype == bool
    y, x = np.nonzero(foreground.values)
    assert (y.tolist(), x.tolist()) == ([3], [4])


def test_foreground__of_a_simulated_star(tmp_path: Path) -> None:
    truth = galaxy(seed=2, stars=[(-2.0, 1.0, 16.0)])
    cube = write_manga(tmp_path / "a.fits", truth, fibres=19, wave_range=(6000, 6030))
    ds = open_ifs(cube.path)
    east, north = cube.pixels.offsets()
    np.testing.assert_array_equal(ds["foreground"], np.hypot(east + 2.0, north - 1.0) < 4.0)
    assert ds["spec_mask"].values[:, ds["foreground"].values].all()


def test_psf_image__has_the_bands_of_the_file(tmp_path: Path) -> None:
    cube = write_manga(
        tmp_path / "a.fits", galaxy(seed=2), fibres=19, wave_range=(6000, 6030),
        fwhm={"g": 2.8, "r": 2.6, "i": 2.5, "z": 2.4},
    )  # fmt: skip
    ds = open_ifs(cube.path)
    validate(ds, "psf_image", verb="test")
    assert ds["psf_wave"].values.tolist() == ds.attrs["psf"]["wave"]
    assert ds["psf_image"].shape == (4, 34, 34)
    assert ds["psf_image"].values.sum(axis=(1, 2)) == pytest.approx(1.0, abs=1e-4)
    peak = ds["psf_image"].max(("psf_y", "psf_x")).values
    assert (np.diff(peak) > 0).all()
    some = [image(name, np.ones((9, 9))) for name in ("IPSF", "GPSF")]
    few = open_ifs(with_hdus(tmp_path / "b.fits", *some))
    assert few["psf_wave"].values.tolist() == [4702.5, 7496.1]
    other = [image("GPSF", np.ones((9, 9))), image("RPSF", np.ones((8, 9)))]
    with pytest.raises(InputError, match=r"RPSF: expected shape \(9, 9\), found \(8, 9\)"):
        open_ifs(with_hdus(tmp_path / "c.fits", *other))
    assert "psf_image" not in open_ifs(manga(tmp_path / "d.fits"))


def test_open_ifs__which_bits_are_fatal(tmp_path: Path) -> None:
    path = manga(tmp_path / "a.fits")
    # dead fibre, star, bit 4, no number
    everything, default = np.array([3, 4, 5, 6]), np.array([3, 4, 6])
    cases: list[tuple[Any, Any]] = [
        (None, default), (["DEADFIBER"], [3, 6]), ("forestar", [4, 6]), ([3, 4], [4, 5, 6]),
        ([], [6]), (["DEADFIBER", 3, 4], everything),
    ]  # fmt: skip
    for option, bad in cases:
        ds = open_ifs(path, mask_bits=option)
        assert np.flatnonzero(ds["spec_mask"][:, 2, 2]).tolist() == list(bad), option
        # a spaxel without coverage has no error
        assert ds["spec_mask"].values[:, 0].all()
    assert ds.attrs["provenance"][-1]["options"]["mask_bits"] == ["DEADFIBER", 3, 4]
    for wrong in (["STAR"], [32], [-1], [True]):
        with pytest.raises(InputError, match=r"mask_bits: .*MANGA_DRP3PIXMASK.* FORESTAR \(3\)"):
            open_ifs(path, mask_bits=wrong)


def test_open_ifs__opening_a_table_reads_no_rows(tmp_path: Path) -> None:
    path = with_hdus(tmp_path / "a.fits", table("GCORREL", PAIRS))
    with dask.config.set(scheduler="synchronous"):
        ds = open_ifs(path)
        path.write_bytes(path.read_bytes() + b"\0" * 2880)
        with pytest.raises(InputError, match="open it again"):
            ds["spec_corr"].compute()
