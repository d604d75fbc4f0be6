"""Which PSF all is brought to, and by which kernels.

Nothing is ever made sharper: where the cube is broader than the images, at any wavelength, the
images are brought to the cube's broadest PSF, and so is the cube at its other wavelengths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from specphoto.errors import InputError
from specphoto.spatial.kernel import kernel_report, matching_kernel
from specphoto.spatial.psf import broadest
from specphoto.spatial.varying import same_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from specphoto.spatial.kernel import KernelReport
    from specphoto.spatial.psf import PSF

__all__ = ["Resolution", "common_resolution"]


class Resolution(NamedTuple):
    """The PSF of the result and how to reach it.

    ``psf`` is the PSF of the result; ``source`` the cube's at the wavelengths ``wave`` where it is
    known, in Angstrom, ``(n_node,)``; ``kernels`` the matching kernel there, all of one odd shape;
    ``images_lag`` whether the images are sharper and have to be brought to ``psf`` as well.
    """

    psf: PSF
    source: list[PSF]
    wave: NDArray[np.float64]
    kernels: list[NDArray[np.float64]]
    images_lag: bool

    def reports(self, scale: float) -> list[KernelReport]:
        """How well each kernel brings the cube to ``psf``, on pixels of ``scale`` arcsec."""
        pairs = zip(self.source, self.kernels, strict=False)
        return [kernel_report(source, self.psf, kernel, scale) for source, kernel in pairs]


def common_resolution(
    wave: NDArray[np.float64],
    sources: Sequence[PSF],
    target: PSF,
    scale: float,
    *,
    images: bool,
) -> Resolution:
    """Resolution at which a cube and images meet: the images' own if the cube can be brought to it.

    Parameters
    ----------
    wave, sources
        Where the cube's PSF is known, in Angstrom, ``(n_node,)``, and what it is there.
    target
        PSF of the images, or the one wanted.
    scale
        Pixel side of the cube in arcsec.
    images
        Whether there are images that can be brought to the cube's PSF. Without, the target is
        what is wanted, and a cube that is broader is refused.

    Returns
    -------
    Resolution

    Raises
    ------
    InputError
        If a match would be a deconvolution.
    """
    try:
        kernels = [matching_kernel(source, target, scale) for source in sources]
        psf, lag = target, False
    except InputError:
        psf, lag = broadest(sources), True
        # by area, so that the wings count: two PSFs that cross may reach each other by no kernel
        if not images or psf.area <= target.area:
            raise
        kernels = [matching_kernel(source, psf, scale) for source in sources]
    return Resolution(psf, list(sources), np.asarray(wave, dtype=float), same_shape(kernels), lag)
