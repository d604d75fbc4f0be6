"""A script in the manner of piXedfit's tutorial runs on our products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import matplotlib as mpl
import pytest
from factories import specphoto_dataset

from specphoto.io.fits_writer import write_fits

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import numpy as np
from astropy.io import fits
import matplotlib.pyplot as plt
from specphoto.pixedfit import cwave_filters

cube = fits.open(name_fits)
header = cube[0].header
unit = float(header['unit'])
nfilters = int(header['nfilters'])
filters = []
for i in range(0, nfilters):
    filters.append(header['fil%d' % i])
photo_wave = cwave_filters(filters)

photo_region = cube['photo_region'].data
spec_region = cube['spec_region'].data
photo_flux = cube['photo_flux'].data * unit
photo_flux_err = cube['photo_fluxerr'].data * unit
wave = cube['wave'].data
spec_flux = cube['spec_flux'].data * unit
spec_flux_err = cube['spec_fluxerr'].data * unit
if corrected == 1:
    corr_factor = cube['corr_factor'].data
    mod_wave = cube['mod_wave'].data
    mod_flux = cube['mod_flux'].data * unit
stamp_exists = 'stamp_image' in cube

# from (band, y, x) and (wave, y, x) to one spectrum per pixel
photo_pix = np.transpose(photo_flux, axes=(1, 2, 0))
spec_pix = np.transpose(spec_flux, axes=(1, 2, 0))

rows, cols = np.where((photo_region == 1) & (spec_region == 1))
n_pixels = 0
for yy, xx in zip(rows[:3], cols[:3]):
    fig = plt.figure(figsize=(8, 4))
    f1 = plt.subplot()
    f1.set_xscale('log')
    f1.set_yscale('log')
    plt.plot(wave, spec_pix[yy][xx], color='black')
    plt.errorbar(photo_wave, photo_pix[yy][xx], yerr=photo_flux_err[:, yy, xx], fmt='o')
    if corrected == 1:
        plt.plot(mod_wave, mod_flux[:, yy, xx], color='red')
        plt.plot(wave, corr_factor[:, yy, xx])
    fig.canvas.draw()
    plt.close(fig)
    n_pixels = n_pixels + 1
cube.close()
"""


@pytest.mark.parametrize("compat", [None, "pixedfit"])
@pytest.mark.parametrize("corrected", [False, True])
def test_tutorial__script_runs_on_our_files(
    tmp_path: Path, corrected: bool, compat: Literal["pixedfit"] | None
) -> None:
    path = tmp_path / "product.fits"
    write_fits(specphoto_dataset(12, corrected=corrected), path, compat=compat)
    names: dict[str, object] = {"name_fits": str(path), "corrected": int(corrected)}
    with mpl.rc_context({"backend": "Agg"}):
        exec(compile(SCRIPT, "tutorial", "exec"), names)
    assert names["n_pixels"] == 3
    assert names["nfilters"] == 12
    assert names["unit"] == 1e-17
    assert names["photo_wave"].shape == (12,)  # type: ignore[attr-defined]
