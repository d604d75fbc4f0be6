"""Closure in a sentence: whether corrected spectra and images agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

__all__ = ["closure_verdict"]

# Median of the worst band, in magnitudes, up to which a closure is good, or fair.
_GOOD, _FAIR = 0.03, 0.1


def closure_verdict(ds: xr.Dataset) -> str:
    """Say in a line how well synthetic photometry of the corrected spectra meets the images.

    Closures of bands that the fit did not see (``match_spectral(holdout=True)``) are what is
    judged, where there are any: the others were made to close.

    Parameters
    ----------
    ds
        A corrected cube. Its maps of the closure are read.

    Returns
    -------
    str
        Per covered band the median over ``spec_region`` (over all pixels where that is empty) and
        half the width of the central 68%, synthetic minus image, in magnitudes.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> after = np.full((2, 5, 5), 0.004)
    >>> after[1] = np.nan  # a band that the cube does not cover
    >>> cube = xr.Dataset(
    ...     {name: (("band", "y", "x"), size * after)
    ...      for name, size in (("closure_before", 20.0), ("closure_after", 1.0))},
    ...     coords={"band": ["sdss_r", "2mass_j"]},
    ... )
    >>> closure_verdict(cube)
    'closure good: sdss_r +0.004 +- 0.000 mag after, +0.080 before'
    """
    if "closure_after" not in ds:
        return "closure unknown: the product tells none"
    region = np.ones(ds["closure_after"].shape[1:], bool)
    if "spec_region" in ds and ds["spec_region"].values.any():
        region = ds["spec_region"].values
    after, before = (_by_band(ds[f"closure_{name}"].values, region) for name in ("after", "before"))
    held = _by_band(ds["closure_holdout"].values, region) if "closure_holdout" in ds else {}
    if not after:
        return "closure unknown: the cube covers no band, or no pixel has a factor"
    bands = [str(band) for band in ds["band"].values]
    worst = max(abs(middle) for middle, _ in (held or after).values())
    word = "good" if worst <= _GOOD else "fair" if worst <= _FAIR else "poor"
    parts = []
    for b, (middle, half) in after.items():
        text = f"{bands[b]} {middle:+.3f} +- {half:.3f} mag after"
        if b in before:
            text += f", {before[b][0]:+.3f} before"
        if b in held:
            text += f", {held[b][0]:+.3f} +- {held[b][1]:.3f} held out"
        parts.append(text)
    return f"closure {word}: {'; '.join(parts)}"


def _by_band(
    values: NDArray[np.floating], region: NDArray[np.bool_]
) -> dict[int, tuple[float, float]]:
    """Median and half the width of the central 68% of each band that has any, by its number."""
    out = {}
    for b, band in enumerate(values[:, region].astype(float)):
        known = band[np.isfinite(band)]
        if known.size:
            low, middle, high = np.percentile(known, (16, 50, 84))
            out[b] = float(middle), float(high - low) / 2.0
    return out
