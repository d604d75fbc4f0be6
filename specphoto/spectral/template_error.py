r"""What no model of a library holds: a relative error of its spectra, correlated in wavelength.

The true spectrum of a pixel is taken to be :math:`t = s\,m_k\,(1 + \delta)` with one of the models
and a template error :math:`\delta`, a Gaussian process in rest-frame wavelength,

.. math::
    \langle \delta(\lambda)\,\delta(\lambda') \rangle
    = \sigma(\lambda)\,\sigma(\lambda')\,(1 + r)\,e^{-r}, \qquad
    r = \sqrt 3\,|\ln \lambda - \ln \lambda'| / \ell

(Matern, of smoothness 3/2). The amplitude is the "template error function" of Brammer et al.
(2008, ApJ 686, 1503, section 2.3); that it is correlated is what lets a band correct the models at
the wavelengths near it, and what keeps many bands from making a wrong model certain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from specphoto.photometry.synthetic import photon_weights
from specphoto.spectral import legendre

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from specphoto.photometry.filters import Filter

__all__ = ["DEFAULT_TEMPLATE_ERROR", "ProjectedError", "TemplateError"]

# Nodes over which the process is averaged into bands; their step is a tenth of a broad band.
_STEP = 0.01  # in ln wavelength
# The cube's range in as many bins as the shape of the models.
_N_BIN = 48


class ProjectedError(NamedTuple):
    """Covariance of the template error in the bands and in the shape of the cube's spectrum.

    ``band`` ``(n_band, n_band)`` between relative errors of model photometry, ``shape`` ``(n_shape,
    n_shape)`` between Legendre coefficients of ``ln t`` over the cube's range, ``cross``
    ``(n_shape, n_band)`` between the two.
    """

    band: NDArray[np.float64]
    cross: NDArray[np.float64]
    shape: NDArray[np.float64]


@dataclass(frozen=True)
class TemplateError:
    r"""Relative error of a library's spectra.

    Attributes
    ----------
    wave
        Rest-frame wavelengths in Angstrom at which the amplitude is given, increasing; it is
        interpolated in :math:`\ln\lambda` and constant beyond.
    sigma
        Amplitude :math:`\sigma` there, relative.
    length
        Correlation length :math:`\ell` in :math:`\ln\lambda`.

    Examples
    --------
    >>> error = TemplateError((1500.0, 5000.0), (0.1, 0.02), 0.3)
    >>> np.sqrt(np.diag(error.covariance(np.array([1500.0, 5000.0, 9000.0])))).round(3)
    array([0.1 , 0.02, 0.02])
    """

    wave: tuple[float, ...]
    sigma: tuple[float, ...]
    length: float

    def covariance(self, wave: NDArray[np.float64]) -> NDArray[np.float64]:
        """Covariance between rest-frame wavelengths in Angstrom, ``(n_wave, n_wave)``."""
        x = np.log(wave)
        sigma = np.interp(x, np.log(self.wave), self.sigma)
        r = np.sqrt(3.0) * np.abs(x[:, None] - x) / self.length
        return np.asarray(np.outer(sigma, sigma) * (1.0 + r) * np.exp(-r))

    def project(
        self,
        redshift: float,
        filters: Sequence[Filter],
        wave_range: tuple[float, float],
        n_shape: int,
    ) -> ProjectedError:
        """Average the process over bands, and take the Legendre coefficients of a cube's range.

        Parameters
        ----------
        redshift
            Of the galaxy.
        filters
            The bands.
        wave_range
            First and last wavelength of the cube, observed vacuum Angstrom.
        n_shape
            Number of coefficients, order + 1.
        """
        lo = min(wave_range[0], *(f.range[0] for f in filters))
        hi = max(wave_range[1], *(f.range[1] for f in filters))
        nodes = np.exp(np.arange(np.log(lo) - _STEP, np.log(hi) + 2 * _STEP, _STEP))
        bands, _ = photon_weights(nodes, filters)
        rows = np.vstack([bands.T, _shape_rows(nodes, wave_range, n_shape)])
        whole = rows @ self.covariance(nodes / (1.0 + redshift)) @ rows.T
        n = len(filters)
        return ProjectedError(whole[:n, :n], whole[n:, :n], whole[n:, n:])


def _shape_rows(
    nodes: NDArray[np.float64], wave_range: tuple[float, float], n_shape: int
) -> NDArray[np.float64]:
    """What takes values at the nodes to Legendre coefficients, ``(n_shape, n_node)``."""
    edges = np.linspace(*wave_range, _N_BIN + 1)
    middle = 0.5 * (edges[1:] + edges[:-1])
    inverse = np.linalg.pinv(legendre.basis(legendre.normalized(middle, *wave_range), n_shape - 1))
    lower = np.clip(np.searchsorted(nodes, middle, side="right") - 1, 0, nodes.size - 2)
    share = (middle - nodes[lower]) / (nodes[lower + 1] - nodes[lower])
    read = np.zeros((_N_BIN, nodes.size))
    read[np.arange(_N_BIN), lower] = 1.0 - share
    read[np.arange(_N_BIN), lower + 1] = share
    return np.asarray(inverse.T @ read)


#: Of the default library against histories and dust laws that it does not hold.
DEFAULT_TEMPLATE_ERROR = TemplateError(
    wave=(1500.0, 2500.0, 3500.0, 5000.0, 9000.0, 20_000.0),
    sigma=(0.375, 0.18, 0.1125, 0.06, 0.05, 0.024),
    length=0.75,
)
