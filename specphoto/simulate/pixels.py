"""Pixel grids on one tangent plane.

All simulated instruments share the tangent point of the truth, so that plane offsets are an
exact affine map of pixel numbers and no WCS call is needed to know where a pixel is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from specphoto.cube import pixel_scale

if TYPE_CHECKING:
    from astropy.wcs import WCS
    from numpy.typing import NDArray

__all__ = ["PixelGrid"]


@dataclass(frozen=True)
class PixelGrid:
    """A grid of square pixels round a field centre.

    Parameters
    ----------
    shape
        ``(n_y, n_x)``.
    scale
        Pixel side, arcsec.
    centre
        0-based pixel position ``(x, y)`` of the field centre; by default the pixel
        ``(n_x // 2, n_y // 2)``, as in survey cubes.
    rotation
        Angle in degrees by which north is turned from +y towards -x (east).
    flipped
        East towards +x instead of -x.
    """

    shape: tuple[int, int]
    scale: float
    centre: tuple[float, float] | None = None
    rotation: float = 0.0
    flipped: bool = False

    @property
    def origin(self) -> tuple[float, float]:
        """0-based pixel position (x, y) of the field centre."""
        if self.centre is not None:
            return self.centre
        return float(self.shape[1] // 2), float(self.shape[0] // 2)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """2 x 2 matrix from pixel steps (x, y) to arcsec (east, north)."""
        c, s = np.cos(np.deg2rad(self.rotation)), np.sin(np.deg2rad(self.rotation))
        sign = 1.0 if self.flipped else -1.0
        return self.scale * np.array([[sign * c, s], [-sign * s, c]])

    def offsets(
        self, dx: float = 0.0, dy: float = 0.0
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """East and north offsets ``(n_y, n_x)`` in arcsec of the points (x + dx, y + dy)."""
        y, x = np.indices(self.shape, dtype=float)
        px, py = x + dx - self.origin[0], y + dy - self.origin[1]
        m = self.matrix
        return m[0, 0] * px + m[0, 1] * py, m[1, 0] * px + m[1, 1] * py

    def subdivided(self, factor: int, pad: int = 0) -> PixelGrid:
        """The same sky with every pixel cut in ``factor`` x ``factor``, and `pad` pixels more.

        `pad` counts the large pixels, on each side.
        """
        n_y, n_x = self.shape
        x0, y0 = self.origin
        return PixelGrid(
            ((n_y + 2 * pad) * factor, (n_x + 2 * pad) * factor),
            self.scale / factor,
            ((x0 + pad + 0.5) * factor - 0.5, (y0 + pad + 0.5) * factor - 0.5),
            self.rotation,
            self.flipped,
        )

    def header(self, ra: float, dec: float) -> fits.Header:
        """Celestial WCS cards with CD matrix, for a field centre in degrees."""
        cd = self.matrix / 3600.0
        header = fits.Header()
        header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
        header["CUNIT1"], header["CUNIT2"] = "deg", "deg"
        header["CRPIX1"], header["CRPIX2"] = self.origin[0] + 1.0, self.origin[1] + 1.0
        header["CRVAL1"], header["CRVAL2"] = ra, dec
        for i, j in np.ndindex(2, 2):
            if cd[i, j] != 0.0:
                header[f"CD{i + 1}_{j + 1}"] = cd[i, j]
        return header

    @classmethod
    def from_wcs(cls, wcs: WCS, shape: tuple[int, int], *, ra: float, dec: float) -> PixelGrid:
        """The grid of a celestial WCS with square pixels, round a field centre in degrees.

        Exact for a WCS made here; for another tangent point a few arcmin away the plane offsets
        differ by parts in 1e-6.
        """
        celestial = wcs.celestial
        x0, y0 = (float(v) for v in celestial.wcs_world2pix(ra, dec, 0))
        cd = celestial.pixel_scale_matrix
        flipped = bool(np.linalg.det(cd) > 0.0)
        rotation = float(np.rad2deg(np.arctan2(cd[0, 1], cd[1, 1])))
        return cls(shape, pixel_scale(wcs), (x0, y0), rotation, flipped)
