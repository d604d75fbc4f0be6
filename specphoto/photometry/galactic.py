"""One Galactic extinction for both data sets: each source's own is undone, the common one applied.

Factors only; they multiply lazily. The common E(B-V) is on the scale of Schlafly & Finkbeiner
(2011), the common law G23 (Gordon et al. 2023) at R_V = 3.1.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

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

__all__ = ["band_factors", "channel_factors", "common_ebv"]

LAW: Law = "G23"
# Headers whose A_g differ by more than this many magnitudes deserve a word.
_WORTH_A_WARNING = 0.01
_WAVE_G = 4702.0


def common_ebv(
    ifs: Mapping[str, Any], photometry: Mapping[str, Any], ebv: float | None
) -> float | None:
    """E(B-V) for both data sets, in magnitudes on the scale of Schlafly & Finkbeiner (2011).

    The one given goes first, then the cube's header, then the photometry's. Disagreeing headers
    are warned of, in magnitudes of extinction in g.

    Parameters
    ----------
    ifs, photometry
        Attributes of the two datasets (``ebv``, ``ebv_scale``).
    ebv
        The user's value, already on this scale; 0 applies none. None takes the headers'.
    """
    stated = [
        effective_ebv(attrs["ebv"], attrs.get("ebv_scale", "SF11"))
        for attrs in (ifs, photometry)
        if attrs.get("ebv") is not None
    ]
    if len(stated) == 2:
        k_g = float(extinction_curve(np.array([_WAVE_G]), law=LAW)[0])
        difference = k_g * (stated[0] - stated[1])
        if abs(difference) > _WORTH_A_WARNING:
            warnings.warn(
                f"E(B-V) of the cube and of the photometry differ by {difference:+.3f} mag of "
                f"extinction in g ({stated[0]:.4f} against {stated[1]:.4f} on one scale); "
                f"{'the given value' if ebv is not None else 'that of the cube'} is used for both",
                UserWarning,
                stacklevel=3,
            )
    if ebv is not None:
        return ebv
    return stated[0] if stated else None


def channel_factors(
    attrs: Mapping[str, Any], wave: NDArray[np.float64], ebv: float | None
) -> NDArray[np.float64]:
    """Factor per channel that corrects a cube's flux for the common extinction, ``(n_wave,)``.

    A cube that its survey corrected is first brought back with the survey's own E(B-V) and law;
    where the file does not state them, its correction stands (factor 1).
    """
    if attrs.get("ebv_corrected"):
        own, law = attrs.get("ebv"), attrs.get("ebv_law")
        if own is None or law is None or ebv is None:
            return np.ones(wave.size)
        return transmission(wave, own, law=law) / transmission(wave, ebv, law=LAW)
    return np.ones(wave.size) if ebv is None else 1.0 / transmission(wave, ebv, law=LAW)


def band_factors(
    attrs: Mapping[str, Any], bands: Sequence[str], ebv: float | None
) -> NDArray[np.float64]:
    """Factor per band that corrects images for the common extinction, ``(n_band,)``.

    piXedfit corrects at one tabulated wavelength per band; that is undone, and the extinction
    is redone integrated over the band.
    """
    if ebv is None:
        return np.ones(len(bands))
    own, law = attrs.get("ebv"), attrs.get("ebv_law")
    factor = 1.0 / band_transmission(load_filters(bands), ebv, law=LAW)
    if attrs.get("ebv_corrected"):
        if own is None or law is None:
            return np.ones(len(bands))
        factor *= transmission(np.asarray(cwave_filters(list(bands))), own, law=law)
    return np.asarray(factor)
