"""``ds.specphoto``: what one asks of a dataset by hand.

Every dataset that a reader or a verb gave has it. ``import specphoto.accessor`` gives it to those
that xarray opened by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from specphoto.cube import celestial_wcs, identify, validate
from specphoto.errors import InputError
from specphoto.extract import aperture_sum, pixel_dataset, pixel_extract
from specphoto.maps import synthetic_map
from specphoto.shapes import pixels_inside
from specphoto.spectral.reference import COVERED

if TYPE_CHECKING:
    from os import PathLike

    import xarray as xr
    from astropy.coordinates import SkyCoord
    from astropy.wcs import WCS
    from numpy.typing import NDArray
    from spectral_cube import DaskSpectralCube
    from specutils import Spectrum

    from specphoto.convert.fitters import Which
    from specphoto.photometry.filters import Filter

__all__ = ["Accessor"]


class Accessor:
    """Questions to one dataset, a survey's cube or a matched one.

    Pixels are named by the numbers in the coordinates ``x`` and ``y``, which a slice keeps.

    Parameters
    ----------
    ds
        The dataset.

    Examples
    --------
    >>> import specphoto
    >>> ds = specphoto.open_cube("ngc.zarr")  # doctest: +SKIP
    >>> ds.specphoto.pixel(50, 48).spec_flux.plot()  # doctest: +SKIP
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    @property
    def wcs(self) -> WCS:
        """Celestial WCS of the pixel numbers in ``x`` and ``y``.

        Raises
        ------
        InputError
            If the dataset has none.
        """
        return celestial_wcs(self._ds)

    def sky_to_pixel(self, coord: SkyCoord) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixel numbers ``x, y`` of positions on the sky; whole numbers are middles of pixels.

        Parameters
        ----------
        coord
            One position or many, in any frame.

        Raises
        ------
        InputError
            If the dataset has no WCS.
        """
        x, y = self.wcs.world_to_pixel(coord)
        return np.asarray(x), np.asarray(y)

    def pixel_to_sky(self, x: Any, y: Any) -> SkyCoord:
        """Positions on the sky of pixel numbers, which need not be whole.

        Parameters
        ----------
        x, y
            Numbers or arrays.

        Raises
        ------
        InputError
            If the dataset has no WCS.
        """
        return self.wcs.pixel_to_world(x, y)

    def pixel(self, x: int, y: int) -> xr.Dataset:
        """One pixel: its images (band), its spectrum (wave) and what else is known; lazily.

        Parameters
        ----------
        x, y
            Pixel numbers.

        Returns
        -------
        xarray.Dataset
            All variables, without the axes ``y`` and ``x``. Of a corrected cube the spectrum
            rests on the images: ``docs/errors.md`` says how not to count them twice.

        Raises
        ------
        InputError
            If the pixel is not on the cube.
        """
        return pixel_dataset(self._ds, self._position(x, y))

    def at(self, coord: SkyCoord) -> xr.Dataset:
        """The pixel that holds a position on the sky; see :meth:`pixel`.

        Parameters
        ----------
        coord
            One position.

        Raises
        ------
        InputError
            If the position is not on the cube, or the dataset has no WCS.
        """
        x, y = self.sky_to_pixel(coord)
        if np.ndim(x) or not (np.isfinite(x) and np.isfinite(y)):
            raise InputError(
                f"{identify(self._ds)}: position", expected="one on the cube's sky",
                found=f"{coord.to_string('hmsdms')}", remedy="give a position on the cube",
            )  # fmt: skip
        return self.pixel(round(float(x)), round(float(y)))

    def synthetic(self, band: str | Filter, *, min_covered: float = COVERED) -> xr.DataArray:
        """Map of synthetic photometry: the mean flux of each pixel's spectrum in a band; lazily.

        Parameters
        ----------
        band
            Name of a filter (:func:`~specphoto.photometry.filters.load_filter`) or a curve.
        min_covered
            Share of the band that the cube has to cover. The mean is over that share, so a low
            limit biases bands in which the spectrum has a slope.

        Returns
        -------
        xarray.DataArray
            Photon-weighted mean F_lambda (y, x), in the unit of ``spec_flux``; NaN where good
            channels see less than 90% of what the cube covers. Of a corrected cube it is no news:
            the factor was made to bring it to the image.

        Raises
        ------
        InputError
            If the filter is unknown, or the cube covers too little of it.
        """
        return synthetic_map(self._ds, band, min_covered=min_covered)

    def aperture(self, region: Any, *, trusted: bool = True) -> xr.Dataset:
        """Sum an aperture, with errors that know how its pixels are correlated; lazily.

        The correlation is ``spec_corr`` where the dataset has it, else what its attributes state
        (:func:`specphoto.sum_spectra`). Of a corrected cube the sum rests on the images as each
        pixel does, and the error of the factor, which is not in ``spec_err``, does not average
        down over pixels.

        Parameters
        ----------
        region
            A mask (y, x) of bools; or an aperture of photutils or a region of ``regions``, on the
            sky or in pixel numbers: of those, pixels whose middle is inside.
        trusted
            Leave out pixels outside ``spec_region``. That map is read for it (of a cube still to be
            matched: computed); with False nothing is.

        Returns
        -------
        xarray.Dataset
            ``spec_flux``, ``spec_err``, ``spec_mask`` (wave), ``photo_flux``, ``photo_err``
            (band), ``n_pixel`` and what else :func:`specphoto.sum_spectra` gives.

        Raises
        ------
        InputError
            If no pixel is inside, the mask has another shape, or nothing tells how noise is
            correlated.
        """
        validate(self._ds, "spec_flux", "spec_mask", "wave", verb="aperture")
        inside = pixels_inside(self._ds, region)
        if trusted and "spec_region" in self._ds:
            inside = inside & self._ds["spec_region"].values
        return aperture_sum(self._ds, inside)

    def to_specutils(self) -> Spectrum:
        """Spectra as a ``specutils.Spectrum``; what is lazy is computed.

        A cube keeps its axes (wave, y, x), a pixel or a sum has one. Wavelengths are the vacuum
        ones of ``wave``; errors are those of single channels, and those of neighbouring pixels are
        correlated (``spec_corr``). Masked: what is unknown or not to be used.

        Raises
        ------
        InputError
            If specutils is not installed, or the dataset has no spectra.
        """
        from specphoto.convert.cubes import to_specutils

        return to_specutils(self._ds)

    def to_spectral_cube(self) -> DaskSpectralCube:
        """Spectra as a ``spectral_cube.DaskSpectralCube``; nothing is computed.

        Its spectral axis is the survey's (in air for CALIFA and MUSE, as its ``ctype`` says).
        It has no errors: convert ``ds.assign(spec_flux=ds.spec_err)`` for a cube of them.

        Raises
        ------
        InputError
            If spectral-cube is not installed, the dataset has no WCS, or its channels follow
            neither a linear nor a logarithmic axis.
        """
        from specphoto.convert.cubes import to_spectral_cube

        return to_spectral_cube(self._ds)

    def to_prospector(self, x: int, y: int, *, spectrum: Which = "observed") -> dict[str, Any]:
        """Observation of a pixel for prospector: its ``obs`` dictionary, in maggies.

        The factor was found from the images, so that the corrected spectrum and the images are
        not independent. Nothing is counted twice with either choice of ``spectrum``.

        Parameters
        ----------
        x, y
            Pixel numbers.
        spectrum
            'observed': the images, and the spectrum before the factor, to be fitted with a free
            polynomial (``prospect.models.PolySpecModel``). 'corrected': the corrected spectrum
            alone; the error of its factor moves all channels together and is not in ``unc``
            (``docs/errors.md``, way 2).

        Returns
        -------
        dict
            ``filters`` (sedpy), ``maggies``, ``maggies_unc``, ``phot_mask``, ``phot_wave``
            (n_band); ``wavelength`` (Angstrom, vacuum, as observed), ``spectrum``, ``unc``,
            ``mask`` (n_wave). Masks are True where data are to be used. What is not to be fitted
            is None: the photometry, or the spectrum of a pixel outside ``spec_region``.

        Raises
        ------
        InputError
            If the pixel is not on the cube or holds nothing to fit.
        """
        from specphoto.convert.fitters import to_prospector

        return to_prospector(pixel_extract(self._ds, self._position(x, y)), spectrum)

    def to_bagpipes(
        self, x: int, y: int, *, spectrum: Which = "observed",
        folder: str | PathLike[str] = "filters",
    ) -> dict[str, Any]:  # fmt: skip
        """Observation of a pixel for Bagpipes: ``bagpipes.galaxy(**...)`` takes it.

        The factor was found from the images, so that the corrected spectrum and the images are
        not independent. Nothing is counted twice with either choice of ``spectrum``.

        Parameters
        ----------
        x, y
            Pixel numbers.
        spectrum
            'observed': the images, and the spectrum before the factor, to be fitted with a
            ``calib`` polynomial. 'corrected': the corrected spectrum alone; the error of its
            factor moves all channels together and is not in its errors (``docs/errors.md``).
        folder
            Where the filter curves are written, as Bagpipes reads them from files.

        Returns
        -------
        dict
            Arguments of ``bagpipes.galaxy``: ``ID``, ``load_data``, ``filt_list`` (paths),
            ``spectrum_exists``, ``photometry_exists``, ``spec_units``, ``phot_units``.
            ``load_data(ID)`` gives the spectrum (n_wave, 3): wavelength (Angstrom, vacuum, as
            observed), flux and error in erg s-1 cm-2 Angstrom-1; and the photometry (n_band, 2) in
            microjansky. What is unknown or masked has the error 9.9e99, as Bagpipes masks.

        Raises
        ------
        InputError
            If the pixel is not on the cube or holds nothing to fit.
        """
        from specphoto.convert.fitters import to_bagpipes

        name = f"{self._ds.attrs.get('name') or 'pixel'}_x{x}_y{y}".replace(" ", "_")
        one = pixel_extract(self._ds, self._position(x, y))
        return to_bagpipes(one, spectrum, name=name, folder=folder)

    def _position(self, x: int, y: int) -> tuple[int, int]:
        """Position ``(y, x)`` of a pixel of these numbers."""
        found = []
        for dim, number in (("y", y), ("x", x)):
            at = np.flatnonzero(self._ds[dim].values == number)
            if not at.size:
                numbers = self._ds[dim].values
                raise InputError(
                    f"{identify(self._ds)}: pixel x = {x}, y = {y}",
                    expected=f"{dim} from {numbers.min()} to {numbers.max()}",
                    found="a pixel outside the cube", remedy="choose one inside",
                )  # fmt: skip
            found.append(int(at[0]))
        return found[0], found[1]
