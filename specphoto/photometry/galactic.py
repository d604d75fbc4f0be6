"""One Galactic extinction for both data sets: each source's own is undone, the common one applied.

Factors only; they multiply lazily. The common E(B-V) is on the scale of Schlafly & Finkbeiner
(2011); the common law is G23 (Gordon et al. 2023) at R_V = 3.1 unless another is asked for.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from specphoto.errors import InputError
from specphoto.photometry.extinction import (
    band_transmission,
    effective_ebv,
    extinction_curve,
    transmission,
)
from specphoto.photometry.filters import cwave_filters, load_filters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from specphoto.photometry.extinction import Law

__all__ = ["NO_CHANGE", "Ebv", "Extinction", "band_factors", "channel_factors", "common_extinction"]

#: E(B-V) itself, or whose it is.
Ebv = float | Literal["cube", "images"]

logger = logging.getLogger(__name__)

# Headers whose A_g differ by more than this many magnitudes deserve a word.
_WORTH_A_WARNING = 0.01
_WAVE_G = 4702.0


class Extinction(NamedTuple):
    """What both data sets are corrected for: E(B-V) in magnitudes (None: nothing), and the law."""

    ebv: float | None
    law: Law = "G23"


#: Nothing is corrected, nothing is undone.
NO_CHANGE = Extinction(None)


def common_extinction(
    ifs: Mapping[str, Any],
    photometry: Mapping[str, Any],
    ebv: Ebv | None = None,
    law: Law = "G23",
) -> Extinction:
    """Extinction for both data sets, on the scale of Schlafly & Finkbeiner (2011).

    The E(B-V) given goes first, then the cube's header, then the photometry's. Disagreeing headers
    are warned of, in magnitudes of extinction in g; what cannot be made consistent, because a
    correction was made that no header states, is said in the log.

    Parameters
    ----------
    ifs, photometry
        Attributes of the two datasets (``ebv``, ``ebv_scale``).
    ebv
        The user's value, already on this scale; 0 applies none. 'cube' and 'images' take the value
        of that header. None takes the headers'.
    law
        The law for both, see :func:`specphoto.photometry.extinction.extinction_curve`.

    Raises
    ------
    InputError
        If the header asked for does not state a value, or the law is unknown.
    """
    headers = {"cube": _stated(ifs), "images": _stated(photometry)}
    if isinstance(ebv, str):
        if headers.get(ebv) is None:
            raise InputError(
                "ebv", expected="a number, or 'cube' or 'images' that state theirs",
                found=f"{ebv!r}, which states none" if ebv in headers else repr(ebv),
                remedy="give a number of magnitudes",
            )  # fmt: skip
        chosen, whose = headers[ebv], f"that of the {ebv}"
    elif ebv is not None:
        chosen, whose = float(ebv), "the given value"
    elif headers["cube"] is not None:
        chosen, whose = headers["cube"], "that of the cube"
    else:
        chosen, whose = headers["images"], "that of the images"
    k_g = float(extinction_curve(np.array([_WAVE_G]), law=law)[0])
    _compare(headers["cube"], headers["images"], k_g, whose)
    _say_what_stands(ifs, photometry, chosen)
    return Extinction(chosen, law)


def _stated(attrs: Mapping[str, Any]) -> float | None:
    """E(B-V) of a header on the common scale."""
    if attrs.get("ebv") is None:
        return None
    return effective_ebv(attrs["ebv"], attrs.get("ebv_scale", "SF11"))


def _compare(cube: float | None, images: float | None, k_g: float, whose: str) -> None:
    if cube is None or images is None:
        return
    difference = k_g * (cube - images)
    if abs(difference) > _WORTH_A_WARNING:
        warnings.warn(
            f"E(B-V) of the cube and of the photometry differ by {difference:+.3f} mag of "
            f"extinction in g ({cube:.4f} against {images:.4f} on one scale); "
            f"{whose} is used for both",
            UserWarning,
            stacklevel=4,
        )


def _say_what_stands(
    ifs: Mapping[str, Any], photometry: Mapping[str, Any], ebv: float | None
) -> None:
    """Corrections that cannot be undone, and data that cannot be corrected."""
    sources = {name: a for name, a in (("spectra", ifs), ("images", photometry)) if a}
    corrected = [name for name, attrs in sources.items() if attrs.get("ebv_corrected")]
    for name in corrected:
        unknown = None in (sources[name].get("ebv"), sources[name].get("ebv_law"))
        if unknown and ebv is not None:
            logger.warning(
                "the %s are corrected for a Galactic extinction that is not stated; it stays, and "
                "the other data are corrected for E(B-V) = %.4f", name, ebv,
            )  # fmt: skip
    if ebv is None and len(corrected) == 1 and len(sources) == 2:
        logger.warning(
            "of spectra and images only the %s are corrected for Galactic extinction, and no "
            "E(B-V) is stated: give one (ebv=..., --ebv)", corrected[0],
        )  # fmt: skip


def channel_factors(
    attrs: Mapping[str, Any], wave: NDArray[np.float64], dust: Extinction
) -> NDArray[np.float64]:
    """Factor per channel that corrects a cube's flux for the common extinction, ``(n_wave,)``.

    A cube that its survey corrected is first brought back with the survey's own E(B-V) and law;
    where the file does not state them, its correction stands (factor 1).
    """
    ebv = dust.ebv
    if attrs.get("ebv_corrected"):
        own, law = attrs.get("ebv"), attrs.get("ebv_law")
        if own is None or law is None or ebv is None:
            return np.ones(wave.size)
        return transmission(wave, own, law=law) / transmission(wave, ebv, law=dust.law)
    return np.ones(wave.size) if ebv is None else 1.0 / transmission(wave, ebv, law=dust.law)


def band_factors(
    attrs: Mapping[str, Any], bands: Sequence[str], dust: Extinction
) -> NDArray[np.float64]:
    """Factor per band that corrects images for the common extinction, ``(n_band,)``.

    piXedfit corrects at one tabulated wavelength per band; that is undone, and the extinction
    is redone integrated over the band.
    """
    if dust.ebv is None:
        return np.ones(len(bands))
    own, law = attrs.get("ebv"), attrs.get("ebv_law")
    factor = 1.0 / band_transmission(load_filters(bands), dust.ebv, law=dust.law)
    if attrs.get("ebv_corrected"):
        if own is None or law is None:
            return np.ones(len(bands))
        factor *= transmission(np.asarray(cwave_filters(list(bands))), own, law=law)
    return np.asarray(factor)
