"""Parameters of composite stellar populations, and the fixed sequence that samples them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import qmc

from specphoto.errors import InputError
from specphoto.spectral.priors import DEFAULT_PRIORS, HISTORIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from specphoto.spectral.priors import Priors

__all__ = ["ModelParameters", "sample_parameters"]

_N_DIM = 10


@dataclass(frozen=True)
class ModelParameters:
    """What defines each composite population; every array has shape ``(n_model,)``.

    Parameters
    ----------
    age
        Time since star formation began, yr.
    history
        Star formation history, its place in :data:`specphoto.spectral.priors.HISTORIES`; see
        :func:`specphoto.spectral.sfh.star_formation_rate`.
    tau
        Its time scale, yr.
    alpha, beta
        What else it has: slopes of the fall and of the rise of a double power law, ``alpha`` the
        width of a log-normal or Gaussian.
    metallicity
        Mass fraction Z, the same for all stars.
    a_v
        Attenuation by the interstellar medium at 5500 A, mag (of the power law, without bump).
    slope
        The interstellar curve goes as wavelength to the power ``-slope``.
    bump
        Height of the 2175 A bump over the power law, in units of ``a_v``.
    birth_ratio
        Attenuation at 5500 A by the birth clouds, which stars under 10 Myr see besides, in
        units of ``a_v``.
    """

    age: NDArray[np.float64]
    history: NDArray[np.int8]
    tau: NDArray[np.float64]
    alpha: NDArray[np.float64]
    beta: NDArray[np.float64]
    metallicity: NDArray[np.float64]
    a_v: NDArray[np.float64]
    slope: NDArray[np.float64]
    bump: NDArray[np.float64]
    birth_ratio: NDArray[np.float64]

    def __post_init__(self) -> None:
        shapes = {np.shape(getattr(self, f.name)) for f in fields(self)}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise InputError(
                "population parameters", expected="arrays of one and the same length",
                found=f"shapes {sorted(shapes)}", remedy="give one value per model",
            )  # fmt: skip

    def __len__(self) -> int:
        return len(self.age)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> ModelParameters:
        """Return the models of these numbers, in this order."""
        return ModelParameters(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def sample_parameters(n: int = 50_000, priors: Priors = DEFAULT_PRIORS) -> ModelParameters:
    """Sample composite populations evenly, the same ones every time.

    The points are the first ``n`` of the unscrambled Sobol sequence: no random stream, so that
    every machine and scheduler has the same library. The ranges of the default priors are wide on
    purpose (they must hold the colours of any normal galaxy) and flat in the variable named:

    ===============  =============================================================
    ``age``          log, 0.1 to 13.5 Gyr
    ``history``      one half delayed tau, one half double power law
    ``tau``          delayed tau: log, 0.1 to 15 Gyr; power law: 0.02 to 1 of ``age``
    ``alpha``        log, 0.2 to 20
    ``beta``         log, 0.2 to 20
    ``metallicity``  log, 0.0004 to 0.05 (0.02 to 2.5 solar, solar being 0.02)
    ``a_v``          square root, 0 to 3 mag
    ``slope``        0.4 to 1.3 (0.7: Charlot & Fall 2000; grey starbursts to steep SMC)
    ``bump``         0 to 0.8 (0: starbursts; 0.8: Milky Way)
    ``birth_ratio``  0 to 3 (2.3: Charlot & Fall 2000)
    ===============  =============================================================

    Ages are not limited by the age of the Universe: below redshift 0.2 the difference, at most
    2.5 Gyr at the old end, hardly changes a colour.

    Parameters
    ----------
    n
        Number of models.
    priors
        Distributions of the parameters.

    Raises
    ------
    InputError
        If ``n`` is not positive.

    Examples
    --------
    >>> models = sample_parameters(1000)
    >>> len(models), float(models.age[1] / 1e9)
    (1000, 1.161895003862225)
    """
    if n < 1:
        raise InputError(
            "n", expected="a positive number of models", found=str(n), remedy="ask for one or more"
        )
    # the sequence is balanced at powers of two, and SciPy warns about any other number
    power = max(int(np.ceil(np.log2(n))), 1)
    u = qmc.Sobol(_N_DIM, scramble=False).random_base2(power)[:n].T
    age = priors.age.at(u[0])
    # a dimension of its own: in a Sobol sequence even and odd points fill different halves
    families = list(priors.histories.items())
    bounds = np.cumsum([family.share for _, family in families])
    chosen = np.searchsorted(bounds[:-1] / bounds[-1], u[1], side="right")
    history, tau, alpha, beta = np.zeros(n, np.int8), np.empty(n), np.empty(n), np.empty(n)
    for i, (name, family) in enumerate(families):
        rows = chosen == i
        history[rows] = HISTORIES.index(name)
        scale = family.tau.at(u[2, rows])
        tau[rows] = age[rows] * scale if family.relative else scale
        alpha[rows], beta[rows] = family.alpha.at(u[3, rows]), family.beta.at(u[4, rows])
    return ModelParameters(
        age=age,
        history=history,
        tau=tau,
        alpha=alpha,
        beta=beta,
        metallicity=priors.metallicity.at(u[5]),
        a_v=priors.a_v.at(u[6]),
        slope=priors.slope.at(u[7]),
        bump=priors.bump.at(u[8]),
        birth_ratio=priors.birth_ratio.at(u[9]),
    )
