"""Filter curves by piXedfit's names, and the wavelengths piXedfit assigns to them.

Curves are the ones bundled with astro-sedpy, detector signal per photon; the table
``data/filters.yaml`` says which of them is which piXedfit filter. For the 53 filters that it lacks,
piXedfit's own curves are in ``data/filter_curves.txt``. Wavelengths are in Angstrom.
"""

from __future__ import annotations

import csv
import difflib
import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import yaml

from specphoto.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Filter",
    "cwave_filters",
    "known_filters",
    "load_filter",
    "load_filters",
    "pixedfit_scale",
    "register_filter",
]

# Response below this share of the peak at either end of a curve is noise of its measurement.
_MIN_RESPONSE = 1e-5

# GALEX (Morrissey et al. 2007, ApJS 173, 682): AB zero points in magnitudes, and the flux in
# erg s-1 cm-2 A-1 of one count per second that the mission's handbook gives.
_GALEX = {"galex_fuv": (18.82, 1.40e-15), "galex_nuv": (20.08, 2.06e-16)}
_LIGHT_SPEED = 2.99792458e18  # Angstrom / s

# Curves of piXedfit that cannot be right, and there is no better one to put in their place.
_DOUBTFUL = {
    "wfi_i": "it passes all light up to 12000 A, where the detector sees none "
    "(pivot 9846 A, central wavelength by piXedfit 7838 A)",
}

_registered: dict[str, Filter] = {}


@dataclass(frozen=True, eq=False)
class Filter:
    """One filter curve, linear between its nodes and zero outside them.

    Parameters
    ----------
    name
        What the filter is called in messages and in the ``band`` coordinate.
    wave
        Wavelengths in Angstrom, increasing, shape ``(n,)``.
    response
        Detector signal per photon (any scale), shape ``(n,)``.

    Raises
    ------
    InputError
        If the curve is not finite, not increasing in wavelength, negative or zero everywhere.

    Examples
    --------
    >>> box = Filter("box", [5000.0, 6000.0], [1.0, 1.0])
    >>> round(box.pivot, 1), box.effective_width, box.range
    (5492.4, 1000.0, (5000.0, 6000.0))
    """

    name: str
    wave: NDArray[np.float64]
    response: NDArray[np.float64]

    def __post_init__(self) -> None:
        wave = np.array(self.wave, dtype=np.float64)
        response = np.array(self.response, dtype=np.float64)
        _check_curve(self.name, wave, response)
        wave.setflags(write=False)
        response.setflags(write=False)
        object.__setattr__(self, "wave", wave)
        object.__setattr__(self, "response", response)

    @property
    def pivot(self) -> float:
        r"""Pivot wavelength in Angstrom.

        :math:`\lambda_p = \sqrt{\int R\,\lambda\,d\lambda \,/ \int R\,\lambda^{-1}\,d\lambda}`,
        so that the mean fluxes of any spectrum obey
        :math:`\langle F_\nu\rangle = \langle F_\lambda\rangle \lambda_p^2 / c`.
        """
        lo, hi = self.wave[:-1], self.wave[1:]
        r_lo, r_hi = self.response[:-1], self.response[1:]
        # both integrals are exact for a response that is linear between nodes
        above = np.sum((hi - lo) * (lo * (2 * r_lo + r_hi) + hi * (r_lo + 2 * r_hi))) / 6
        slope = (r_hi - r_lo) / (hi - lo)
        below = np.sum(slope * (hi - lo) + (r_lo - slope * lo) * np.log(hi / lo))
        return float(np.sqrt(above / below))

    @property
    def effective_width(self) -> float:
        """Width in Angstrom of the box of the same peak and area."""
        return float(np.trapezoid(self.response, self.wave) / self.response.max())

    @property
    def range(self) -> tuple[float, float]:
        """First and last wavelength of the curve, Angstrom."""
        return float(self.wave[0]), float(self.wave[-1])


def _check_curve(name: str, wave: NDArray[np.float64], response: NDArray[np.float64]) -> None:
    expected, found = "", ""
    if wave.ndim != 1 or wave.shape != response.shape or wave.size < 2:
        expected = "wave and response of one same length of at least 2"
        found = f"shapes {wave.shape} and {response.shape}"
    elif not (np.all(np.isfinite(wave)) and np.all(np.isfinite(response))):
        expected, found = "finite wave and response", "NaN or infinity"
    elif wave[0] <= 0 or np.any(np.diff(wave) <= 0):
        expected, found = "positive wavelengths that increase", "some that do not"
    elif response.min() < 0 or response.max() == 0:
        expected = "a response of at least 0, and above 0 somewhere"
        found = f"{response.min():g} to {response.max():g}"
    if expected:
        raise InputError(
            f"filter {name!r}", expected=expected, found=found,
            remedy="correct the curve (wavelength in Angstrom, detector signal per photon)",
        )  # fmt: skip


def _trim(wave: NDArray[np.float64], response: NDArray[np.float64]) -> slice:
    """Slice of the curve's support, with one node beyond it on either side."""
    positive = np.flatnonzero(response > _MIN_RESPONSE * response.max())
    return slice(max(positive[0] - 1, 0), min(positive[-1] + 2, wave.size))


@lru_cache(maxsize=1)
def _sedpy_names() -> dict[str, str]:
    """PiXedfit's filter names and the astro-sedpy name of each."""
    text = (files("specphoto") / "data" / "filters.yaml").read_text(encoding="utf-8")
    table: dict[str, str] = yaml.safe_load(text)
    return table


@lru_cache(maxsize=1)
def _sedpy_available() -> frozenset[str]:
    from sedpy import observate

    # a SPHEREx file holds many curves side by side, none of them under this name
    return frozenset(n for n in observate.list_available_filters() if not n.startswith("spherex_"))


@lru_cache(maxsize=1)
def _pixedfit_table() -> dict[str, tuple[float, float]]:
    """PiXedfit's ``cw`` and the pivot of its curve in Angstrom, by filter name."""
    text = (files("specphoto") / "data" / "pixedfit_filters.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {r["name"]: (float(r["cw"]), float(r["pivot"])) for r in csv.DictReader(lines)}


@lru_cache(maxsize=512)
def _from_sedpy(name: str, sedpy_name: str) -> Filter:
    from sedpy import observate

    curve = observate.Filter(sedpy_name)
    # a wavelength given twice is a step in the curve; half-way up is as good as it gets
    wave, inverse = np.unique(np.asarray(curve.wavelength, dtype=np.float64), return_inverse=True)
    response = np.bincount(inverse, weights=curve.transmission) / np.bincount(inverse)
    keep = _trim(wave, response)
    return Filter(name, wave[keep], response[keep])


@lru_cache(maxsize=1)
def _bundled() -> dict[str, tuple[str, str]]:
    """PiXedfit's curves that astro-sedpy lacks: wavelengths and response as text, by name."""
    text = (files("specphoto") / "data" / "filter_curves.txt").read_text(encoding="utf-8")
    lines = [line.split(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {
        name: (wave, response)
        for (name, wave), (_, response) in zip(lines[::2], lines[1::2], strict=True)
    }


@lru_cache(maxsize=64)
def _from_bundle(name: str) -> Filter:
    wave, response = (np.array(text.split(), dtype=np.float64) for text in _bundled()[name])
    return Filter(name, wave, response)


def known_filters() -> list[str]:
    """Names that :func:`load_filter` knows: registered, piXedfit's, astro-sedpy's."""
    return sorted({*_registered, *_sedpy_names(), *_sedpy_available(), *_bundled()})


def register_filter(name: str, wave: ArrayLike, response: ArrayLike) -> Filter:
    """Give a filter curve of one's own a name, for this process.

    A registered curve goes before a known one of the same name. Filters travel to Dask workers
    as objects, so that workers need not know the name.

    Parameters
    ----------
    name
        The name, as the photometric cube writes it (``FIL0`` ...).
    wave
        Wavelengths in Angstrom, increasing, shape ``(n,)``.
    response
        Detector signal per photon, any scale, shape ``(n,)``. Divide a curve of signal per unit
        energy by the wavelength first.

    Raises
    ------
    InputError
        If the curve is not finite, not increasing in wavelength, negative or zero everywhere.

    Examples
    --------
    >>> register_filter("my_box", [5000.0, 5001.0, 5999.0, 6000.0], [0, 1, 1, 0]).range
    (5000.0, 6000.0)
    >>> round(load_filter("my_box").pivot)
    5492
    """
    curve = Filter(name, np.asarray(wave, dtype=float), np.asarray(response, dtype=float))
    keep = _trim(curve.wave, curve.response)
    _registered[name] = Filter(name, curve.wave[keep], curve.response[keep])
    return _registered[name]


def load_filter(name: str) -> Filter:
    """Filter curve by its name.

    Parameters
    ----------
    name
        A registered name, one of piXedfit's 235 (``galex_fuv``, ``sdss_g``, ``2mass_j``,
        ``hst_wfpc2_f814w``) or astro-sedpy's (``sdss_g0``, ``bessell_V``).

    Raises
    ------
    InputError
        If no curve goes by that name; the message names the nearest ones that do.

    Examples
    --------
    >>> round(load_filter("sdss_u").pivot, 1)
    3556.5
    """
    if name in _registered:
        return _registered[name]
    if name in _sedpy_names():
        return _from_sedpy(name, _sedpy_names()[name])
    if name in _sedpy_available():
        return _from_sedpy(name, name)
    if name in _bundled():
        if name in _DOUBTFUL:
            warnings.warn(
                f"filter {name!r}: piXedfit's curve is doubtful: {_DOUBTFUL[name]}; register a "
                "better one with specphoto.photometry.filters.register_filter",
                stacklevel=2,
            )
        return _from_bundle(name)
    known = known_filters()
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    nearest = f"; the nearest known are {', '.join(near)}" if near else ""
    raise InputError(
        f"filter {name!r}", expected=f"one of {len(known)} known filter names",
        found=f"no curve of that name{nearest}",
        remedy="register the curve with specphoto.photometry.filters.register_filter"
        "(name, wave, response)",
    )  # fmt: skip


def load_filters(names: Iterable[str]) -> list[Filter]:
    """Filter curves by name, in the order given; see :func:`load_filter`."""
    return [load_filter(name) for name in names]


# A string is also a sequence of strings; the first signature takes it.
@overload
def cwave_filters(names: str) -> float: ...  # type: ignore[overload-overlap]
@overload
def cwave_filters(names: Sequence[str]) -> NDArray[np.float64]: ...
def cwave_filters(names: str | Sequence[str]) -> float | NDArray[np.float64]:
    """Central wavelengths as piXedfit tabulates them (its ``cw``), Angstrom.

    These are what piXedfit converts fluxes at, and are not always the pivot: 3351 in SDSS u,
    where the pivot is 3556.5. A filter that piXedfit does not have gets its pivot.

    Parameters
    ----------
    names
        One name, or several.

    Returns
    -------
    float or array
        A float for one name, an array of shape ``(n_band,)`` for several.

    Raises
    ------
    InputError
        If a name is neither piXedfit's nor that of a known curve.

    Examples
    --------
    >>> cwave_filters("sdss_u")
    3351.0
    >>> cwave_filters(["sdss_g", "wise_w1"])
    array([ 4686., 33526.])
    """
    if isinstance(names, str):
        table = _pixedfit_table()
        # a curve that the user registered under piXedfit's name does not change piXedfit's cw
        return table[names][0] if names in table else load_filter(names).pivot
    return np.array([cwave_filters(name) for name in names], dtype=np.float64)


def pixedfit_scale(
    names: Iterable[str], *, curves: Literal["pixedfit", "specphoto"] = "pixedfit"
) -> NDArray[np.float64]:
    r"""Factors that turn piXedfit's image fluxes into photon-weighted mean :math:`F_\lambda`.

    piXedfit writes :math:`F_\nu c / \mathrm{cw}^2`, while the mean flux density that goes with
    an AB magnitude is :math:`\langle F_\lambda\rangle = F_\nu c / \lambda_p^2`: the factor is
    :math:`(\mathrm{cw} / \lambda_p)^2`. Its GALEX fluxes are instead counts per second times a
    fixed constant (1.40e-15 in FUV, 2.06e-16 in NUV, erg s-1 cm-2 A-1), where the AB zero point
    ZP (18.82, 20.08) gives :math:`10^{-0.4 (ZP + 48.6)} c / \lambda_p^2`: the factor is the ratio
    of the two. piXedfit is thereby too bright by 12.6% in SDSS u, 0.7% in g, 7.8% in NUV,
    2.2% in FUV, 2.2% in W1 and 1.6% in W2.

    Parameters
    ----------
    names
        Filter names. A curve that piXedfit does not have gets the factor 1.
    curves
        Whose curve :math:`\lambda_p` is of. ``"pixedfit"``: piXedfit's own (the figures above).
        ``"specphoto"``: the curve that :func:`load_filter` gives and models are compared
        through. They differ where piXedfit's curve is signal per unit energy, not per photon:
        WISE (piXedfit's is astro-sedpy's times the wavelength, so that W1 would be too bright by
        0.9% and W2 by 0.7%), Herschel and MIPS.

    Returns
    -------
    array of shape ``(n_band,)``
        Dimensionless; multiplies piXedfit's flux and its error.

    Raises
    ------
    InputError
        If a name is neither piXedfit's nor that of a known curve.

    Examples
    --------
    >>> (1 / pixedfit_scale(["sdss_u", "galex_nuv", "wise_w1"])).round(3)
    array([1.126, 1.078, 1.022])
    """
    return np.array([_scale(name, curves) for name in names], dtype=np.float64)


def _scale(name: str, curves: Literal["pixedfit", "specphoto"]) -> float:
    table = _pixedfit_table()
    if name not in table:
        load_filter(name)  # an unknown name is an error, not a factor of 1
        return 1.0
    cw, pivot = table[name]
    if curves == "specphoto":
        pivot = load_filter(name).pivot
    if name in _GALEX:
        zero_point, per_count = _GALEX[name]
        return 10 ** (-0.4 * (zero_point + 48.6)) * _LIGHT_SPEED / pivot**2 / per_count
    return (cw / pivot) ** 2
