"""Galactic extinction: laws, transmission at wavelengths and through bands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from specphoto.errors import InputError
from specphoto.photometry.synthetic import photon_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from specphoto.photometry.filters import Filter

__all__ = [
    "SFD_SCALE",
    "EbvScale",
    "Law",
    "band_transmission",
    "effective_ebv",
    "extinction_curve",
    "transmission",
]

Law = Literal["G23", "F99", "CCM89", "O94", "pixedfit", "pixedfit-ifs"]
EbvScale = Literal["SFD", "SF11"]

SFD_SCALE = 0.86
"""E(B-V) of Schlegel, Finkbeiner & Davis (1998) times this is on the scale of Schlafly &
Finkbeiner (2011, ApJ 737, 103)."""

# Beyond a law's red end A falls as this power of wavelength (Cardelli, Clayton & Mathis 1989).
_INFRARED_SLOPE = -1.61

# Optical polynomials of Cardelli, Clayton & Mathis (1989, ApJ 345, 245), equation 3, in
# y = 1/lambda - 1.82 (micron-1), lowest order first.
_CCM_A = (1.0, 0.17699, -0.50447, -0.02427, 0.72085, 0.01979, -0.77530, 0.32999)
_CCM_B = (0.0, 1.41338, 2.28305, 1.07233, -5.38434, -0.62251, 5.30260, -2.09002)


def effective_ebv(ebv: float, scale: EbvScale) -> float:
    """E(B-V) on the scale of Schlafly & Finkbeiner (2011), in magnitudes.

    Parameters
    ----------
    ebv
        E(B-V) as the source states it.
    scale
        ``"SFD"`` (Schlegel et al. 1998; MaNGA's EBVGAL) is multiplied by :data:`SFD_SCALE`,
        ``"SF11"`` (piXedfit's GALEBV) is returned as it is.

    Raises
    ------
    InputError
        If the scale is neither.

    Examples
    --------
    >>> round(effective_ebv(0.1, "SFD"), 6)
    0.086
    """
    if scale not in get_args(EbvScale):
        raise InputError(
            "E(B-V) scale", expected="'SFD' or 'SF11'", found=repr(scale),
            remedy="say which map the E(B-V) is from",
        )  # fmt: skip
    return ebv * SFD_SCALE if scale == "SFD" else ebv


def transmission(
    wave: ArrayLike, ebv: float, *, law: Law = "G23", rv: float = 3.1
) -> NDArray[np.float64]:
    r"""Share of light that Galactic dust lets through, :math:`10^{-0.4 k(\lambda) E(B-V)}`.

    Parameters
    ----------
    wave
        Vacuum wavelengths in Angstrom, observed frame, any shape.
    ebv
        E(B-V) in magnitudes, on the scale of Schlafly & Finkbeiner (see :func:`effective_ebv`).
    law, rv
        See :func:`extinction_curve`.

    Returns
    -------
    array
        Of the shape of ``wave``, between 0 and 1, nowhere NaN.

    Raises
    ------
    InputError
        If ``ebv`` is not finite, or as :func:`extinction_curve`.

    Examples
    --------
    >>> transmission([1528.0, 5500.0, 33526.0], 0.1).round(3)
    array([0.451, 0.752, 0.986])
    """
    if not np.isfinite(ebv):
        raise InputError(
            "E(B-V)", expected="a finite number of magnitudes", found=f"{ebv}",
            remedy="give it by option, or 0 for none",
        )  # fmt: skip
    return np.asarray(10.0 ** (-0.4 * ebv * extinction_curve(wave, law=law, rv=rv)))


def extinction_curve(wave: ArrayLike, *, law: Law = "G23", rv: float = 3.1) -> NDArray[np.float64]:
    r"""Extinction curve :math:`k(\lambda) = A(\lambda) / E(B-V)`, in magnitudes per magnitude.

    Parameters
    ----------
    wave
        Vacuum wavelengths in Angstrom, any shape.
    law
        ``"G23"`` Gordon et al. (2023), 912 Angstrom to 32 micron; ``"F99"`` Fitzpatrick (1999),
        ``"CCM89"`` Cardelli et al. (1989) and ``"O94"`` O'Donnell (1994), 0.1 to 3.3 micron.
        Blueward of its range a law keeps its last value, redward it goes on as
        :math:`\lambda^{-1.61}`.
        ``"pixedfit"`` is the curve piXedfit v1.0 puts on images, at each band's ``cw``
        (:func:`specphoto.photometry.filters.cwave_filters`), and ``"pixedfit-ifs"`` the one
        it puts on MaNGA spectra: they are the same, CCM89 redward of 1/3.3 micron, with its
        infrared power law at all longer wavelengths, and Fitzpatrick & Massa's form with the
        coefficients of the LMC (Fitzpatrick 1986) blueward.
    rv
        :math:`R_V = A(V) / E(B-V)`. piXedfit's law is for 3.1 only.

    Raises
    ------
    InputError
        If the law is unknown, :math:`R_V` is out of its range, or a wavelength is not positive.
    """
    lam = np.asarray(wave, dtype=np.float64)
    if not np.all(lam > 0):
        raise InputError(
            "wave", expected="positive wavelengths (Angstrom)", found="some that are not",
            remedy="drop them",
        )  # fmt: skip
    if law not in get_args(Law):
        raise InputError(
            "extinction law", expected="one of " + ", ".join(get_args(Law)), found=repr(law),
            remedy="choose one of them",
        )  # fmt: skip
    if law in ("pixedfit", "pixedfit-ifs"):
        if rv != 3.1:
            raise InputError(
                f"extinction law {law!r}", expected="R_V = 3.1", found=f"{rv}",
                remedy="leave R_V at 3.1 or choose another law",
            )  # fmt: skip
        return _pixedfit_curve(1e4 / lam)
    return _published_curve(lam, law, float(rv))


def _model(law: str, rv: float) -> Any:
    """Model of the dust_extinction package, a new one for each curve.

    G23 keeps what it works with in the model itself: one that two threads share gives one the
    numbers of the other.
    """
    from dust_extinction import parameter_averages

    try:
        return getattr(parameter_averages, law)(Rv=rv)
    except ValueError as err:
        lo, hi = getattr(parameter_averages, law).Rv_range
        raise InputError(
            f"extinction law {law!r}", expected=f"R_V between {lo:g} and {hi:g}", found=f"{rv}",
            remedy="choose another R_V or law",
        ) from err  # fmt: skip


def _published_curve(lam: NDArray[np.float64], law: str, rv: float) -> NDArray[np.float64]:
    from astropy import units as u

    model = _model(law, rv)
    x_lo, x_hi = model.x_range
    x = 1e4 / lam
    inside = np.clip(x, x_lo, x_hi)
    k = np.asarray(model(np.atleast_1d(inside) / u.micron), dtype=np.float64) * rv
    # A falls with wavelength: continuous at the red edge, and 1 in transmission far beyond it
    return np.asarray(k.reshape(lam.shape) * np.minimum(x / x_lo, 1.0) ** -_INFRARED_SLOPE)


def _pixedfit_curve(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """PiXedfit's k at wavenumbers ``x`` (micron-1), R_V = 3.1."""
    y = x - 1.82
    optical = 3.1 * np.polynomial.polynomial.polyval(y, _CCM_A)
    optical = optical + np.polynomial.polynomial.polyval(y, _CCM_B)
    infrared = (3.1 * 0.574 - 0.527) * x**-_INFRARED_SLOPE
    # k = R_V + c1 + c2 x + c3 D(x; x0, gamma) + c4 F(x) with the LMC's c1 ... c4. Between 3.3
    # and 5.9 micron-1 piXedfit has 3.55 for c3, a step of 0.16 at 5.9; kept, to undo it exactly.
    bump = 1.0 / ((x - 4.608**2 / x) ** 2 + 0.994**2)
    far = np.maximum(x - 5.9, 0.0)
    rise = 0.5 * (0.539 * far**2 + 0.0564 * far**3)
    ultraviolet = 3.1 - 0.69 + 0.89 * x + np.where(x >= 5.9, 2.55, 3.55) * bump + rise
    return np.where(x < 1.1, infrared, np.where(x <= 3.3, optical, ultraviolet))


def band_transmission(
    filters: Sequence[Filter],
    ebv: float,
    *,
    law: Law = "G23",
    rv: float = 3.1,
    spectrum: tuple[ArrayLike, ArrayLike] | None = None,
) -> NDArray[np.float64]:
    r"""Share of a band's mean flux density that Galactic dust lets through.

    :math:`\int F R \lambda\,10^{-0.4 A}\,d\lambda \big/ \int F R \lambda\,d\lambda`: divide an
    observed band flux by it to correct for extinction.

    Parameters
    ----------
    filters
        The filter curves.
    ebv, law, rv
        As :func:`transmission`.
    spectrum
        ``(wave, flux)`` of the source in the observed frame (Angstrom, any unit of F_lambda),
        at least as wide as the bands; flat in F_lambda by default.

    Returns
    -------
    array of shape ``(n_band,)``

    Raises
    ------
    InputError
        If a spectrum is given that does not cover a band or has no light in it, or as
        :func:`transmission`.

    Examples
    --------
    >>> from specphoto.photometry.filters import load_filters
    >>> band_transmission(load_filters(["galex_fuv", "sdss_r"]), 0.1).round(3)
    array([0.45 , 0.781])
    """
    out = np.empty(len(filters))
    for b, curve in enumerate(filters):
        wave, flux = _source(curve, spectrum)
        weights = photon_weights(wave, [curve])[0][:, 0]
        through = transmission(wave, ebv, law=law, rv=rv)
        out[b] = (flux * through) @ weights / (flux @ weights)
    return out


def _source(
    curve: Filter, spectrum: tuple[ArrayLike, ArrayLike] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wavelengths fine enough for a band's extinction, and the source's flux at them."""
    lo, hi = curve.range
    wave = np.union1d(curve.wave, np.linspace(lo, hi, 500))
    if spectrum is None:
        return wave, np.ones(wave.size)
    source_wave, source_flux = (np.asarray(a, dtype=np.float64) for a in spectrum)
    wave = np.union1d(wave, source_wave[(source_wave > lo) & (source_wave < hi)])
    flux = np.interp(wave, source_wave, source_flux, left=np.nan, right=np.nan)
    if not np.all(np.isfinite(flux)) or not flux.sum() > 0:
        raise InputError(
            f"spectrum for filter {curve.name!r}",
            expected=f"light at all of {lo:g} to {hi:g} Angstrom",
            found=f"{source_wave.min():g} to {source_wave.max():g} Angstrom, or no light",
            remedy="give a wider spectrum, or none for a flat one",
        )  # fmt: skip
    return wave, flux
