"""Recipes of libraries: small YAML files that say what a library is made of.

===========  =====================================================================================
``grid``     ``default`` (BC03, in the package), ``fsps``, or a file as
             :mod:`specphoto.io.ssp_file` reads it, relative to the recipe
``medium``   of the wavelengths of a file that does not say it: ``air`` or ``vacuum``
``fwhm``     Angstrom, of a file that does not say it
``models``   how many composite populations (50 000)
``nebular``  whether gas round young stars shines (false); the default grid alone has it
``log_u``    its ionisation parameter (-3)
``dust``     law of the interstellar dust: ``power law`` or ``Calzetti``
``priors``   distributions of the parameters, and
``histories``  families of star formation histories, see :mod:`specphoto.spectral.priors`
===========  =====================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml

from specphoto.errors import InputError
from specphoto.io.fsps import fsps_grid
from specphoto.io.library import default_grid
from specphoto.io.ssp_file import Medium, read_ssp_grid
from specphoto.keys import require_known
from specphoto.spectral.dust import DustLaw
from specphoto.spectral.library import CompositeLibrary
from specphoto.spectral.parameters import sample_parameters
from specphoto.spectral.priors import DEFAULT_PRIORS, Priors, parse_priors

if TYPE_CHECKING:
    from os import PathLike

    from specphoto.spectral.library import SSPGrid

__all__ = ["Recipe", "build_library", "read_recipe"]


@dataclass(frozen=True)
class Recipe:
    """What a library is made of; the defaults make the default library.

    Parameters
    ----------
    grid, medium, fwhm, models, nebular, log_u, dust
        As the module says.
    priors
        Distributions of the parameters and the families of histories.
    """

    grid: str = "default"
    medium: Medium | None = None
    fwhm: float | None = None
    models: int = 50_000
    nebular: bool = False
    log_u: float = -3.0
    dust: DustLaw = "power law"
    priors: Priors = DEFAULT_PRIORS


def read_recipe(path: str | PathLike[str]) -> Recipe:
    """Read a recipe.

    Raises
    ------
    InputError
        If the file cannot be read, has an unknown key, or a value of the wrong kind.
    """
    path = Path(path)
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            str(path), expected="a recipe in YAML", found=" ".join(str(error).split()),
            remedy="see specphoto.io.recipe for the keys",
        ) from error  # fmt: skip
    if not isinstance(given, dict):
        raise InputError(
            str(path), expected="keys and values", found=f"a {type(given).__name__}",
            remedy="see specphoto.io.recipe for the keys",
        )  # fmt: skip
    require_known(given, [*(f.name for f in fields(Recipe)), "histories"], str(path))
    values = {key: _checked(key, value, path) for key, value in given.items()}
    values["priors"] = parse_priors(
        values.get("priors", {}), values.pop("histories", None), str(path)
    )
    recipe = Recipe(**values)
    if recipe.grid in ("default", "fsps"):
        return recipe
    return replace(recipe, grid=str(path.parent / recipe.grid))


_KINDS: dict[str, tuple[type, ...]] = {
    "grid": (str,),
    "medium": (str,),
    "fwhm": (int, float),
    "models": (int,),
    "nebular": (bool,),
    "log_u": (int, float),
    "dust": (str,),
    "priors": (dict,),
    "histories": (dict,),
}
_CHOICES = {"medium": get_args(Medium), "dust": get_args(DustLaw)}  # fmt: skip


def _checked(key: str, value: Any, path: Path) -> Any:
    kinds = _KINDS[key]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(k.__name__ for k in kinds)
        raise InputError(
            f"{path}: {key}", expected=wanted, found=repr(value), remedy="correct the recipe"
        )
    if key in _CHOICES and value not in _CHOICES[key]:
        raise InputError(
            f"{path}: {key}", expected=" or ".join(_CHOICES[key]), found=repr(value),
            remedy="correct the recipe",
        )  # fmt: skip
    return value


def build_library(recipe: Recipe) -> CompositeLibrary:
    """Make the library of a recipe.

    Raises
    ------
    InputError
        If the grid cannot be had, or lacks what the recipe asks for.
    """
    return CompositeLibrary(
        _grid(recipe), sample_parameters(recipe.models, recipe.priors), nebular=recipe.nebular,
        dust=recipe.dust,
    )  # fmt: skip


def _grid(recipe: Recipe) -> SSPGrid:
    if recipe.grid == "default":
        return default_grid(log_u=float(recipe.log_u))
    if recipe.grid == "fsps":
        return fsps_grid()
    return read_ssp_grid(recipe.grid, medium=recipe.medium, fwhm=recipe.fwhm)
