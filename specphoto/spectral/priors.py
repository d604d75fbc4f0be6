"""Priors of the parameters of composite populations, and how they are written in a recipe.

``priors`` names parameters; each has a number, or a shape with its numbers:

``flat: [low, high]``         even between the two
``log: [low, high]``          even in the logarithm
``square root: [low, high]``  even in the square root of the distance from ``low``: crowded there
``gaussian: [mean, sigma, low, high]``  a normal distribution cut at the two

``histories`` names families of star formation histories (:data:`HISTORIES`) with their own priors
and ``share`` of the models (1): ``tau`` in yr, or ``tau_over_age``; ``alpha``; ``beta``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy.special import ndtr, ndtri

from specphoto.errors import InputError
from specphoto.keys import require_known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["DEFAULT_PRIORS", "HISTORIES", "History", "Prior", "Priors", "parse_priors"]

#: Families of star formation histories, see :func:`specphoto.spectral.sfh.star_formation_rate`.
HISTORIES = (
    "delayed", "double power law", "exponential", "log-normal", "gaussian", "constant",
)  # fmt: skip

Shape = Literal["flat", "log", "square root", "gaussian"]


@dataclass(frozen=True)
class Prior:
    """Distribution of one parameter.

    Parameters
    ----------
    shape
        As the module says.
    low, high
        Limits; equal for a fixed value.
    mean, sigma
        Of a Gaussian.
    """

    shape: Shape
    low: float
    high: float
    mean: float = 0.0
    sigma: float = 1.0

    def at(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        """Quantiles: values below which a share ``u`` of the distribution lies, same shape."""
        low, high = self.low, self.high
        if self.shape == "log":
            return np.asarray(low * (high / low) ** u)
        if self.shape == "square root":
            return np.asarray(low + (high - low) * u**2)
        if self.shape == "flat":
            return np.asarray(low + (high - low) * u)
        below, above = (ndtr((x - self.mean) / self.sigma) for x in (low, high))
        value = self.mean + self.sigma * ndtri(below + (above - below) * u)
        return np.asarray(np.clip(value, low, high))


_WIDE = Prior("log", 0.2, 20.0)
_OVER_AGE = Prior("flat", 0.02, 1.0)


@dataclass(frozen=True)
class History:
    """A family of histories among the models.

    Parameters
    ----------
    share
        Of the models, relative to those of the other families.
    tau
        Time scale, yr; a share of the age if ``relative``.
    alpha, beta
        What else the family has, see :func:`specphoto.spectral.sfh.star_formation_rate`.
    relative
        Whether ``tau`` counts in ages.
    """

    share: float = 1.0
    tau: Prior = _OVER_AGE
    alpha: Prior = _WIDE
    beta: Prior = _WIDE
    relative: bool = True


#: What a family has where a recipe names it alone; widths of 0.1 to 1 are bursts to slow rises.
_FAMILIES: Mapping[str, History] = {
    "delayed": History(tau=Prior("log", 0.1e9, 15e9), relative=False),
    "double power law": History(),
    "exponential": History(tau=Prior("log", 0.1e9, 15e9), relative=False),
    "log-normal": History(alpha=Prior("log", 0.1, 1.0)),
    "gaussian": History(alpha=Prior("log", 0.1, 1.0)),
    "constant": History(),
}


def _default_histories() -> dict[str, History]:
    return {name: _FAMILIES[name] for name in ("delayed", "double power law")}


@dataclass(frozen=True)
class Priors:
    """Distributions of all parameters; the defaults are those of the default library.

    Parameters
    ----------
    histories
        Families by name.
    age, metallicity, a_v, slope, bump, birth_ratio
        See :class:`specphoto.spectral.parameters.ModelParameters`.
    """

    histories: Mapping[str, History] = field(default_factory=_default_histories)
    age: Prior = Prior("log", 0.1e9, 13.5e9)
    metallicity: Prior = Prior("log", 0.0004, 0.05)
    a_v: Prior = Prior("square root", 0.0, 3.0)
    slope: Prior = Prior("flat", 0.4, 1.3)
    bump: Prior = Prior("flat", 0.0, 0.8)
    birth_ratio: Prior = Prior("flat", 0.0, 3.0)


DEFAULT_PRIORS = Priors()

_PARAMETERS = tuple(f.name for f in fields(Priors) if f.name != "histories")
# What no population has.
_LIMITS = {
    "age": (1e6, 2e10), "metallicity": (1e-6, 0.5), "a_v": (0.0, 50.0), "slope": (0.0, 5.0),
    "bump": (0.0, 10.0), "birth_ratio": (0.0, 50.0), "tau": (1e5, 1e12),
    "tau_over_age": (1e-3, 100.0), "alpha": (0.02, 100.0), "beta": (0.02, 100.0),
}  # fmt: skip


def parse_priors(
    priors: Mapping[str, Any], histories: Mapping[str, Any] | None, what: str
) -> Priors:
    """Read priors as recipes have them.

    Parameters
    ----------
    priors
        Parameter to number or shape.
    histories
        Family to its priors (None: as they are by default); None for the default families.
    what
        The recipe, for messages.

    Raises
    ------
    InputError
        If a name is unknown, a number is none, or a limit is beyond what populations have.
    """
    require_known(priors, _PARAMETERS, f"{what}: priors")
    given: dict[str, Any] = {
        name: _prior(name, value, f"{what}: {name}") for name, value in priors.items()
    }
    if histories is not None:
        require_known(histories, HISTORIES, f"{what}: histories")
        given["histories"] = {
            name: _history(name, value or {}, f"{what}: {name}")
            for name, value in histories.items()
        }
    return Priors(**given)


def _history(family: str, given: Mapping[str, Any], what: str) -> History:
    require_known(given, ("share", "tau", "tau_over_age", "alpha", "beta"), what)
    out = _FAMILIES[family]
    for name, value in given.items():
        if name == "share":
            out = replace(out, share=_number(value, what))
        elif name in ("tau", "tau_over_age"):
            prior = _prior(name, value, f"{what}: {name}")
            out = replace(out, tau=prior, relative=name == "tau_over_age")
        elif name == "alpha":
            out = replace(out, alpha=_prior(name, value, f"{what}: {name}"))
        else:
            out = replace(out, beta=_prior(name, value, f"{what}: {name}"))
    if not out.share > 0:
        raise InputError(what, expected="a share above 0", found=f"{out.share:g}",
                         remedy="leave the family out")  # fmt: skip
    return out


def _prior(name: str, value: Any, what: str) -> Prior:
    if not isinstance(value, dict):
        fixed = _number(value, what)
        return _inside(Prior("flat", fixed, fixed), name, what)
    if len(value) != 1 or next(iter(value)) not in get_args(Shape):
        raise InputError(
            what, expected="a number, or one of " + ", ".join(get_args(Shape)),
            found=", ".join(map(str, value)) or "nothing", remedy="see specphoto.spectral.priors",
        )  # fmt: skip
    shape, listed = next(iter(value.items()))
    numbers = [_number(v, what) for v in listed] if isinstance(listed, list) else []
    wanted = 4 if shape == "gaussian" else 2
    if len(numbers) != wanted:
        raise InputError(what, expected=f"{wanted} numbers for {shape}", found=f"{listed}",
                         remedy="see specphoto.spectral.priors")  # fmt: skip
    low, high = numbers[-2:]
    prior = Prior(shape, low, high, *numbers[:-2])
    return _inside(prior, name, what)


def _inside(prior: Prior, name: str, what: str) -> Prior:
    least, most = _LIMITS[name]
    good = least <= prior.low <= prior.high <= most and prior.sigma > 0
    if not good or (prior.shape == "log" and prior.low <= 0):
        raise InputError(
            what, expected=f"low to high within {least:g} to {most:g}",
            found=f"{prior.shape} {prior.low:g} to {prior.high:g}", remedy="correct the prior",
        )  # fmt: skip
    return prior


def _number(value: Any, what: str) -> float:
    # YAML takes 1e9 for a word
    try:
        number = float("" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise InputError(what, expected="a number", found=repr(value), remedy="correct the recipe")
    return number
