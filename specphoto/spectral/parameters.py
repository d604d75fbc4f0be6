"""Parameters of composite stellar populations, and the fixed sequence that samples them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import qmc

from specphoto.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ModelParameters", "sample_parameters"]

_N_DIM = 10


@dataclass(frozen=True)
class ModelParameters:
    """What defines each composite population; every array has shape ``(n_model,)``.

    Parameters
    ----------
    age
        Time since star formation began, yr.
    delayed
        True: star formation rate ``s exp(-s / tau)``; False: double power law
        ``1 / ((s / tau)**alpha + (s / tau)**-beta)``, with ``s`` the time since it began.
    tau
        Time scale of either, yr.
    alpha, beta
        Slopes of the fall and of the rise of the double power law (not used when ``delayed``).
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
    delayed: NDArray[np.bool_]
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


def sample_parameters(n: int = 50_000) -> ModelParameters:
    """Sample composite populations evenly, the same ones every time.

    The points are the first ``n`` of the unscrambled Sobol sequence: no random stream, so that
    every machine and scheduler has the same library. The ranges are wide on purpose (they must
    hold the colours of any normal galaxy) and every prior is flat in the variable named:

    ===============  =============================================================
    ``age``          log, 0.1 to 13.5 Gyr
    ``delayed``      one half delayed tau, one half double power law
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
    age = _log_range(u[0], 0.1e9, 13.5e9)
    # a dimension of its own: in a Sobol sequence even and odd points fill different halves
    delayed = u[1] < 0.5
    tau = np.where(delayed, _log_range(u[2], 0.1e9, 15e9), age * (0.02 + 0.98 * u[2]))
    return ModelParameters(
        age=age,
        delayed=delayed,
        tau=tau,
        alpha=_log_range(u[3], 0.2, 20.0),
        beta=_log_range(u[4], 0.2, 20.0),
        metallicity=_log_range(u[5], 0.0004, 0.05),
        a_v=3.0 * u[6] ** 2,
        slope=0.4 + 0.9 * u[7],
        bump=0.8 * u[8],
        birth_ratio=3.0 * u[9],
    )


def _log_range(u: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return np.asarray(low * (high / low) ** u)
