"""What the viewer says and hands out: positions, sentences, tables."""

from __future__ import annotations

from html import escape
from io import BytesIO, StringIO
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Table

from specphoto.cube import FLUX_LABEL

if TYPE_CHECKING:
    import xarray as xr
    from astropy.wcs import WCS

    from specphoto.extract import Extract

__all__ = ["data_text", "figure_bytes", "position", "readout", "sky_link"]


def position(ds: xr.Dataset, wcs: WCS, y: float, x: float) -> tuple[float, float]:
    """Right ascension and declination (degrees) of a place on the pixels."""
    # x and y hold the pixel numbers of the WCS: a cut keeps its sky
    at = [
        float(np.interp(v, np.arange(ds.sizes[d]), ds[d].values)) for v, d in ((x, "x"), (y, "y"))
    ]
    ra, dec = wcs.wcs_pix2world([at], 0)[0]
    return float(ra), float(dec)


def sky_link(ra: float, dec: float) -> str:
    """Address of the place in the Legacy Surveys' sky viewer."""
    return f"https://www.legacysurvey.org/viewer?ra={ra:.5f}&dec={dec:.5f}&zoom=15&mark={ra:.5f},{dec:.5f}"


def readout(ds: xr.Dataset, wcs: WCS | None, one: Extract, y: float, x: float) -> str:
    """HTML that tells the numbers of a pixel or an aperture, and where it is on the sky."""
    parts = [f"<strong>{escape(one.where)}</strong>"]
    if wcs is not None:
        sky = position(ds, wcs, y, x)
        parts.append(
            f'<a href="{escape(sky_link(*sky))}" target="_blank" rel="noopener">'
            f"RA {sky[0]:.5f}°, Dec {sky[1]:+.5f}°</a>"
        )
    if one.note:
        parts.append(f"<em>{escape(one.note)}</em>")
    parts += numbers_of(one)
    return "<br>".join(parts)


def numbers_of(one: Extract) -> list[str]:
    """Sentences on the spectrum: flux, signal to noise, factor."""
    said = []
    good = one.good & np.isfinite(one.spec_err) & (one.spec_err > 0)
    if good.any():
        flux, sn = (
            np.median(one.spec_flux[good]),
            np.median(one.spec_flux[good] / one.spec_err[good]),
        )
        said.append(f"median flux {flux:.4g} × {FLUX_LABEL}, median S/N per channel {sn:.3g}")
    if one.factor is not None and np.isfinite(one.factor).any():
        low, high = np.nanmin(one.factor), np.nanmax(one.factor)
        said.append(f"factor {low:.4f} to {high:.4f}")
    return said


def data_text(one: Extract, name: str) -> str:
    """Spectrum as an ECSV table with units, the images in its header."""
    columns = {
        "wave": one.wave, "spec_flux": one.spec_flux, "spec_err": one.spec_err, "good": one.good,
        "observed": one.observed, "corr_factor": one.factor, "corr_factor_err": one.factor_err,
        "mod_flux": one.model,
    }  # fmt: skip
    table = Table({key: value for key, value in columns.items() if value is not None})
    table["wave"].unit = "Angstrom"
    for key in ("spec_flux", "spec_err", "observed", "mod_flux"):
        if key in table.colnames:
            table[key].unit = "1e-17 erg s-1 cm-2 Angstrom-1"
    table.meta = {
        "object": name, "where": one.where, "note": one.note, "bands": one.bands,
        "band_wave": one.band_wave.tolist(), "photo_flux": one.photo_flux.astype(float).tolist(),
        "photo_err": one.photo_err.astype(float).tolist(),
    }  # fmt: skip
    out = StringIO()
    table.write(out, format="ascii.ecsv")
    return out.getvalue()


def figure_bytes(one: Extract, kind: str) -> bytes:
    """Publication figure of a pixel or an aperture, as 'png', 'pdf' or 'svg'."""
    # the page is there before matplotlib is needed
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from specphoto import plot

    out = BytesIO()
    with mpl.rc_context(plot.STYLE):
        figure = Figure(figsize=(7.5, 5.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        plot.draw_sed(one, upper)
        plot.draw_residuals(one, lower)
        upper.set_xlabel("")
        figure.savefig(out, format=kind)
    return out.getvalue()
