"""The commands for population libraries: parse, call, print."""

# no postponed annotations here: typer reads them when the commands are made
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from specphoto.terminal import results, table

__all__ = ["library"]

library = typer.Typer(no_args_is_help=True, help="Population libraries: look, build, check.")

Name = Annotated[
    str, typer.Argument(help="'default', a library file, or a recipe (.yaml) not built yet.")
]


class Layout(StrEnum):
    """How a library lies on disk."""

    specphoto = "specphoto"
    pixedfit = "pixedfit"


@library.command()
def info(name: Name = "default") -> None:
    """Show what a library holds: models, ages, wavelengths, resolution, ranges of parameters.

    Example: [bold]specphoto library info emiles.h5[/bold]
    """
    from specphoto.spectral.audit import facts

    results.print(table(name, facts(_opened(name))))


@library.command()
def build(
    recipe: Annotated[Path, typer.Argument(help="Recipe in YAML (see deploy/library.yaml).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, .h5.")],
    layout: Annotated[
        Layout,
        typer.Option(
            "--layout", help="'specphoto': grid and parameters, some MB. 'pixedfit': all spectra, "
            "0.1 MB per model.",
        ),
    ] = Layout.specphoto,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file already there.")
    ] = False,
) -> None:  # fmt: skip
    """Make a library from a recipe.

    Example: [bold]specphoto library build emiles.yaml -o emiles.h5[/bold]
    """
    from specphoto.io.library_file import write_composites, write_pixedfit_library
    from specphoto.io.recipe import build_library, read_recipe

    made = build_library(read_recipe(recipe))
    if layout is Layout.pixedfit:
        write_pixedfit_library(made, output, overwrite=overwrite)
    else:
        text = recipe.read_text(encoding="utf-8")
        write_composites(made, output, recipe=text, overwrite=overwrite)
    results.print(str(output), highlight=False, soft_wrap=True)


@library.command()
def check(
    name: Name = "default",
    redshift: Annotated[float, typer.Option("--redshift", "-z", help="Of a galaxy.")] = 0.0,
    band: Annotated[
        list[str] | None, typer.Option("--band", help="That shall be inside; may be repeated.")
    ] = None,
) -> None:
    """Test whether a library is sound, and say in words what is wrong. Exit code 1 if something is.

    Example: [bold]specphoto library check emiles.h5 -z 0.03 --band galex_fuv --band sdss_r[/bold]
    """
    from specphoto.io.library import default_grid
    from specphoto.photometry.filters import load_filters
    from specphoto.spectral.audit import audit

    found = audit(
        _opened(name), redshift=redshift, filters=load_filters(band or []), against=default_grid()
    )
    rows = [(f.what, "good" if f.good else "BAD", f.words) for f in found]
    results.print(table("library check", rows, columns=("test", "", "seen")))
    if not all(f.good for f in found):
        raise typer.Exit(1)


def _opened(name: str) -> Any:
    """Return the library of a name."""
    from specphoto.io.library import default_library, open_library
    from specphoto.io.recipe import build_library, read_recipe

    if name == "default":
        return default_library()
    if Path(name).suffix in (".yaml", ".yml"):
        return build_library(read_recipe(name))
    return open_library(name)
