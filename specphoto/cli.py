"""The command line: parse, call, print."""

# no postponed annotations here: typer reads them when the commands are made
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import specphoto
from specphoto import cli_explore, cli_library, cli_look, cli_sample
from specphoto.errors import InputError
from specphoto.terminal import StageBars, line, results, table

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False,
    add_completion=False,
    help="Join a galaxy's integral-field spectra with its multi-band images, pixel by pixel.\n\n"
    "First steps: [bold]specphoto demo[/bold] simulates a galaxy, runs everything on it and shows "
    "how well the truth comes back. [bold]specphoto COMMAND --help[/bold] explains a command.",
)  # fmt: skip


class Format(StrEnum):
    """What to write."""

    both = "both"
    fits = "fits"
    zarr = "zarr"


class Compat(StrEnum):
    """Whose recipe."""

    pixedfit = "pixedfit"


class FactorMethod(StrEnum):
    """How the factor is found."""

    bayesian = "bayesian"
    best = "best"
    ratio = "ratio"


class Register(StrEnum):
    """What to do about the cube's pointing."""

    no = "no"
    report = "report"
    yes = "yes"


class Survey(StrEnum):
    """Formats the simulator writes."""

    manga = "manga"
    califa = "califa"
    muse = "muse"


_INPUT, _SCIENCE, _WHERE = "Input", "Method", "Where it runs"

Cube = Annotated[Path, typer.Argument(help="Cube of spectra: MaNGA, CALIFA or MUSE, .fits(.gz).")]
Redshift = Annotated[float | None, typer.Option(
    "--redshift", "-z", help="Where the headers have none, or a wrong one.",
    rich_help_panel=_INPUT)]  # fmt: skip
SurveyName = Annotated[
    str,
    typer.Option(
        "--survey", help="Survey of the cube; 'auto' looks at the file.", rich_help_panel=_INPUT
    ),
]
SourcePsf = Annotated[str | None, typer.Option(
    "--source-psf", help="PSF of the cube instead of the header's: FWHM in arcsec, a FITS image of "
    "a star, a text file of wavelengths and FWHM, or 'images' for the survey's own.",
    rich_help_panel=_INPUT)]  # fmt: skip
Psf = Annotated[str | None, typer.Option(
    "--psf", help="PSF of the images, or of the grid: FWHM in arcsec, the name of a band "
    "(wise_w2), or a FITS image of a star; by default what their file states.",
    rich_help_panel=_INPUT)]  # fmt: skip
MaskBits = Annotated[list[str] | None, typer.Option(
    "--mask-bit", help="Bit of the survey's mask that makes a channel useless, by name or number; "
    "may be repeated, and replaces the survey's usual ones.", rich_help_panel=_INPUT)]  # fmt: skip
RegisterName = Annotated[Register, typer.Option(
    "--register", help="Find the cube's shift against the images and undo it (yes), or only "
    "write it down (report).", rich_help_panel=_SCIENCE)]  # fmt: skip
MaxShift = Annotated[float, typer.Option(
    "--max-shift", min=0.0, help="Largest shift looked for, in arcsec.",
    rich_help_panel=_SCIENCE)]  # fmt: skip
Correlation = Annotated[str | None, typer.Option(
    "--correlation", help="Scale in spaxels of the Gaussian correlation of the cube's noise, "
    "or 'none'; by default as the file or survey states.", rich_help_panel=_SCIENCE)]  # fmt: skip
Ebv = Annotated[str | None, typer.Option(
    "--ebv", help="Galactic E(B-V), scale of Schlafly & Finkbeiner (2011), for both data sets; "
    "by default what the headers state. 0 applies none; 'cube' and 'images' bring the other to the "
    "value of that header.", rich_help_panel=_INPUT)]  # fmt: skip
EbvLaw = Annotated[str, typer.Option(
    "--ebv-law", help="Extinction law for both: G23, F99, CCM89, O94, or 'pixedfit'.",
    rich_help_panel=_INPUT)]  # fmt: skip
NoCompensate = Annotated[bool, typer.Option(
    "--no-compensate", help="Leave the edge of the bundle as the convolution makes it.",
    rich_help_panel=_SCIENCE)]  # fmt: skip
MaxBias = Annotated[float, typer.Option(
    "--max-bias", help="spec_region: where the bias left at the edge is estimated below this.",
    rich_help_panel=_SCIENCE)]  # fmt: skip
Library = Annotated[str, typer.Option(
    "--library", help="'default' (BC03, in the package), or a library file: of 'specphoto library "
    "build', or piXedfit's.",
    rich_help_panel=_SCIENCE)]  # fmt: skip
Order = Annotated[int, typer.Option(
    "--order", min=0, max=10, help="Order of the Legendre polynomial.",
    rich_help_panel=_SCIENCE)]  # fmt: skip
ModelError = Annotated[float, typer.Option(
    "--model-error", help="Relative error of images against model photometry that no other band "
    "shares: curves, zero points.",
    rich_help_panel=_SCIENCE)]  # fmt: skip
MethodName = Annotated[FactorMethod, typer.Option(
    "--method", help="'bayesian': all acceptable models, with their template error; 'best': the "
    "best one alone; 'ratio': as published, biased by noise.",
    rich_help_panel=_SCIENCE)]  # fmt: skip
Alone = Annotated[bool, typer.Option(
    "--pixel-by-pixel", help="Leave each pixel its own factor, instead of taking the pixels of the "
    "galaxy together.", rich_help_panel=_SCIENCE)]  # fmt: skip
SubtractPedestal = Annotated[bool, typer.Option(
    "--subtract-pedestal", help="Take what the sky left in the spectra, against the images, off "
    "before the factor is found.", rich_help_panel=_SCIENCE)]  # fmt: skip
Holdout = Annotated[bool, typer.Option(
    "--holdout", help="Judge the factor in each band by a fit that did not see its image "
    "(closure_holdout); takes several times as long.", rich_help_panel=_SCIENCE)]  # fmt: skip
Exclude = Annotated[list[str] | None, typer.Option(
    "--exclude", help="Band to leave out of the SED fit; may be repeated. By default those "
    "beyond 2.5 micron.", rich_help_panel=_SCIENCE)]  # fmt: skip
LineWindow = Annotated[float, typer.Option(
    "--line-window", help="Half width in km/s of the windows about emission lines that the "
    "factor's fit leaves out.", rich_help_panel=_SCIENCE)]  # fmt: skip
Velocity = Annotated[str | None, typer.Option(
    "--velocity", help="FITS image of the pixels' velocities on the grid of the product, km/s "
    "relative to the redshift; or 'measured', from the absorption lines.",
    rich_help_panel=_SCIENCE)]  # fmt: skip
Labels = Annotated[Path | None, typer.Option(
    "--labels", help="FITS image of integers on the grid of the product: pixels of equal numbers "
    "are a bin and get one factor, those of 0 none.", rich_help_panel=_SCIENCE)]  # fmt: skip
MinSnr = Annotated[float, typer.Option(
    "--min-snr", help="Median S/N per channel below which a spectrum has no factor.",
    rich_help_panel=_SCIENCE)]  # fmt: skip
CompatName = Annotated[Compat | None, typer.Option(
    "--compat", help="'pixedfit': its recipe of v1.0, with its faults.",
    rich_help_panel=_SCIENCE)]  # fmt: skip
Kernel = Annotated[Path | None, typer.Option(
    "--kernel", help="PSF-matching kernel, a FITS image; with --compat as piXedfit's files "
    "hold it.", rich_help_panel=_SCIENCE)]  # fmt: skip
Cluster = Annotated[str, typer.Option(
    "--cluster", help="'local', 'slurm', or the address of a Dask scheduler (tcp://...).",
    rich_help_panel=_WHERE)]  # fmt: skip
Workers = Annotated[int | None, typer.Option(
    "--workers", "-j", min=1, help="Worker processes (jobs on SLURM); by default one per core.",
    rich_help_panel=_WHERE)]  # fmt: skip
Memory = Annotated[
    str | None, typer.Option("--memory", help="Of one worker, such as 4GB.", rich_help_panel=_WHERE)
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace products already there.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say what is done and how long.")]


def _version(value: bool) -> None:
    if value:
        results.print(f"specphoto {specphoto.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def match(
    cube: Cube,
    photometry: Annotated[Path, typer.Argument(help="Photometric cube as piXedfit writes it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the products.")],
    redshift: Redshift = None,
    survey: SurveyName = "auto",
    source_psf: SourcePsf = None,
    psf: Psf = None,
    mask_bit: MaskBits = None,
    ebv: Ebv = None,
    ebv_law: EbvLaw = "G23",
    register: RegisterName = Register.no,
    max_shift: MaxShift = 3.0,
    correlation: Correlation = None,
    no_compensate: NoCompensate = False,
    max_bias: MaxBias = 0.02,
    library: Library = "default",
    order: Order = 3,
    method: MethodName = FactorMethod.bayesian,
    pixel_by_pixel: Alone = False,
    subtract_pedestal: SubtractPedestal = False,
    holdout: Holdout = False,
    model_error: ModelError = 0.02,
    exclude: Exclude = None,
    line_window: LineWindow = 500.0,
    velocity: Velocity = None,
    labels: Labels = None,
    min_snr: MinSnr = 0.0,
    compat: CompatName = None,
    kernel: Kernel = None,
    write: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.both,
    cluster: Cluster = "local",
    workers: Workers = None,
    memory: Memory = None,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Match a cube to images and correct its spectra: the whole job for one galaxy.

    Writes [bold]corr_specphoto_<photometry>_<cube>.fits[/bold] and [bold].zarr[/bold].

    Example: [bold]specphoto match manga-7495-12704-LOGCUBE.fits.gz fluxmap_7495-12704.fits -o
    results[/bold]
    """
    options: dict[str, Any] = {
        "source_psf": _psf(source_psf, table=True), "target_psf": _psf(psf), "ebv": _number(ebv),
        "ebv_law": ebv_law,
        "register": _REGISTER[register], "max_shift": max_shift,
        "correlation": _correlation(correlation), "compensate": not no_compensate,
        "max_bias": max_bias, "library": library, "order": order, "method": method.value,
        "coherent": not pixel_by_pixel, "subtract_pedestal": subtract_pedestal, "holdout": holdout,
        "model_error": model_error,
        "exclude_bands": exclude, "line_window": line_window, "velocity": _velocity(velocity),
        "labels": labels and _labels(labels), "min_snr": min_snr,
        "compat": compat and compat.value,
        "kernel": kernel and _image(kernel),
    }  # fmt: skip
    computer = _client(cluster, workers, memory, verbose=verbose)
    with StageBars() as bars:
        from specphoto.pipeline import run

        made = run(
            cube, photometry, output, survey=survey, mask_bits=mask_bit, redshift=redshift,
            formats=_formats(write), overwrite=overwrite, cluster=computer, progress=bars.show,
            **options,
        )  # fmt: skip
    _report(made)


@app.command()
def spatial(
    cube: Cube,
    photometry: Annotated[
        Path | None, typer.Argument(help="Photometric cube: sets grid and PSF. Or use --grid.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .fits, or .zarr.")
    ] = ...,  # type: ignore[assignment]  # typer's way to say that it is required
    grid: Annotated[
        Path | None,
        typer.Option(
            "--grid", help="Image whose WCS sets the grid; the frame is that of the cube.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    pixel_scale: Annotated[
        float | None,
        typer.Option(
            "--pixel-scale", help="Pixel of the grid in arcsec; by default the image's.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    psf: Psf = None,
    redshift: Redshift = None,
    survey: SurveyName = "auto",
    source_psf: SourcePsf = None,
    mask_bit: MaskBits = None,
    ebv: Ebv = None,
    ebv_law: EbvLaw = "G23",
    register: RegisterName = Register.no,
    max_shift: MaxShift = 3.0,
    correlation: Correlation = None,
    no_compensate: NoCompensate = False,
    max_bias: MaxBias = 0.02,
    compat: CompatName = None,
    kernel: Kernel = None,
    cluster: Cluster = "local",
    workers: Workers = None,
    memory: Memory = None,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Bring a cube to the PSF and the pixel grid of images, or of a grid of your own.

    Example: [bold]specphoto spatial minicube.fits --grid hst.fits --pixel-scale 0.4 --psf 1.5
    --source-psf 1.05 -o matched.fits[/bold]
    """
    options = {
        "source_psf": _psf(source_psf, table=True), "ebv": _number(ebv), "ebv_law": ebv_law,
        "register": _REGISTER[register],
        "max_shift": max_shift, "correlation": _correlation(correlation),
        "compensate": not no_compensate, "max_bias": max_bias, "compat": compat and compat.value,
        "kernel": kernel and _image(kernel),
    }  # fmt: skip
    computer = _client(cluster, workers, memory, verbose=verbose)
    with StageBars() as bars:
        from specphoto.pipeline import run_spatial

        made = run_spatial(
            cube, output, photometry=photometry, grid=grid, pixel_scale=pixel_scale,
            psf=_psf(psf), survey=survey, mask_bits=mask_bit, redshift=redshift,
            overwrite=overwrite, cluster=computer, progress=bars.show, **options,
        )  # fmt: skip
    _report(made)


@app.command()
def spectral(
    file: Annotated[
        Path, typer.Argument(help="Spatially matched cube, ours or piXedfit's: .fits or .zarr.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .fits or .zarr.")],
    redshift: Redshift = None,
    library: Library = "default",
    order: Order = 3,
    method: MethodName = FactorMethod.bayesian,
    pixel_by_pixel: Alone = False,
    subtract_pedestal: SubtractPedestal = False,
    holdout: Holdout = False,
    model_error: ModelError = 0.02,
    exclude: Exclude = None,
    line_window: LineWindow = 500.0,
    velocity: Velocity = None,
    labels: Labels = None,
    min_snr: MinSnr = 0.0,
    compat: CompatName = None,
    cluster: Cluster = "local",
    workers: Workers = None,
    memory: Memory = None,
    overwrite: Overwrite = False,
    verbose: Verbose = False,
) -> None:
    """Correct the spectra of a spatially matched cube by its photometry.

    Example: [bold]specphoto spectral specphoto_ngc309.fits -o corr_specphoto_ngc309.fits[/bold]
    """
    options: dict[str, Any] = {
        "library": library, "order": order, "method": method.value,
        "coherent": not pixel_by_pixel, "subtract_pedestal": subtract_pedestal, "holdout": holdout,
        "model_error": model_error,
        "exclude_bands": exclude, "line_window": line_window, "velocity": _velocity(velocity),
        "labels": labels and _labels(labels), "min_snr": min_snr,
        "compat": compat and compat.value,
    }  # fmt: skip
    computer = _client(cluster, workers, memory, verbose=verbose)
    with StageBars() as bars:
        from specphoto.pipeline import run_spectral

        made = run_spectral(
            file, output, redshift=redshift, overwrite=overwrite, cluster=computer,
            progress=bars.show, **options,
        )  # fmt: skip
    _report(made)


@app.command()
def images(
    image: Annotated[
        list[str],
        typer.Argument(
            help="PATH,band=NAME and what the file does not say: psf=FWHM, a band or PSF.fits, "
            "noise=HDU, noise_kind=weight, zero_point=AB, unit=..., sky=estimate, hdu=NAME."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: .fits.")],
    on: Annotated[
        Path | None, typer.Option("--on", help="Cube whose pixels and PSF the images get.")
    ] = None,
    grid: Annotated[
        Path | None, typer.Option("--grid", help="Or an image whose WCS and frame set the grid.")
    ] = None,
    pixel_scale: Annotated[
        float | None, typer.Option("--pixel-scale", help="Pixel of that grid in arcsec.")
    ] = None,
    psf: Annotated[
        str | None,
        typer.Option(
            "--psf",
            help="PSF to reach: FWHM in arcsec, a band's name, or a FITS image of a star; by "
            "default the broadest of all.",
        ),
    ] = None,
    cube_psf: Annotated[
        float | None, typer.Option("--cube-psf", help="FWHM of the cube, if its file has none.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a photometric cube of calibrated images, for match, spatial and register.

    Example: [bold]specphoto images "hst.fits,band=hst_wfpc2_f814w,noise=WHT,noise_kind=weight"
    --on minicube.fits --cube-psf 1.05 -o photometry.fits[/bold]
    """
    from specphoto.imaging import run_images

    made = run_images(
        image, output, cube=on, grid=grid, pixel_scale=pixel_scale, psf=_psf(psf),
        cube_psf=cube_psf, overwrite=overwrite,
    )  # fmt: skip
    results.print(str(made), highlight=False, soft_wrap=True)


@app.command()
def register(
    cube: Cube,
    photometry: Annotated[
        str, typer.Argument(help="Photometric cube, or one image as PATH,band=NAME,...")
    ],
    source_psf: SourcePsf = None,
    psf: Psf = None,
    min_covered: Annotated[
        float, typer.Option("--min-covered", help="Share of a band that the cube has to cover.")
    ] = 0.95,
    survey: SurveyName = "auto",
    max_shift: MaxShift = 3.0,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Figure to write: .png, .pdf or .svg.")
    ] = None,
) -> None:
    """Find where a cube lies on images: shift, flux scale, zero of the sky, width of the PSF.

    Example: [bold]specphoto register minicube.fits "hst.fits,band=hst_wfpc2_f814w" --source-psf
    1.05 --figure registration.png[/bold]
    """
    from specphoto.describe import describe_registration
    from specphoto.imaging import run_register

    found = run_register(
        cube, photometry, source_psf=_psf(source_psf, table=True), target_psf=_psf(psf),
        survey=survey, max_shift=max_shift, min_covered=min_covered, figure=figure,
    )  # fmt: skip
    results.print(table(f"{cube.name} on {photometry.split(',')[0]}", describe_registration(found)))
    if figure is not None:
        results.print(str(figure), highlight=False, soft_wrap=True)


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="Any file that specphoto reads.")],
) -> None:
    """Say what a file holds: survey, shape, wavelengths, PSF, Galactic dust, bands, history.

    Example: [bold]specphoto info manga-7495-12704-LOGCUBE.fits.gz[/bold]
    """
    from specphoto.describe import describe, open_described

    kind, ds = open_described(file)
    results.print(table(f"{file.name}: {kind}", describe(ds)))


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("demo"),
    workers: Workers = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the simulated galaxy.")] = 1,
) -> None:
    """Simulate a galaxy, run the whole job on its files, and show how well the truth comes back.

    Example: [bold]specphoto demo -o demo[/bold]
    """
    from specphoto.demo import run_demo

    with _client("local", workers, None, verbose=False) as client:
        run_demo(folder, client, seed=seed)


@app.command()
def simulate(
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("simulated"),
    survey: Annotated[Survey, typer.Option("--survey", help="Format of the cube.")] = Survey.manga,
    seed: Annotated[int, typer.Option("--seed", help="Chooses all that is random.")] = 1,
    size: Annotated[
        int, typer.Option("--size", help="Fibres of the MaNGA bundle, or spaxels on a MUSE side.")
    ] = 127,
    redshift: Annotated[float, typer.Option("--redshift", "-z")] = 0.03,
    ebv: Annotated[float, typer.Option("--ebv", help="Galactic E(B-V), scale of SFD.")] = 0.03,
) -> None:
    """Write a cube and a photometric cube of a galaxy that does not exist, in survey formats.

    Example: [bold]specphoto simulate -o sky --survey manga --size 19[/bold]
    """
    from specphoto.simulate import simulate_galaxy

    made = simulate_galaxy(
        folder, survey=survey.value, seed=seed, size=size, redshift=redshift, ebv=ebv
    )
    for path in (made.cube.path, made.photometry.path):
        results.print(str(path), highlight=False, soft_wrap=True)


app.command()(cli_look.report)
app.command()(cli_look.view)
app.command()(cli_explore.ingest)
app.command()(cli_sample.run)
app.command()(cli_sample.submit)
app.command()(cli_sample.status)
app.add_typer(cli_sample.clusters, name="cluster")
app.add_typer(cli_library.library, name="library")


@contextmanager
def _client(
    kind: str, workers: int | None, memory: str | None, *, verbose: bool
) -> Iterator["Client"]:
    """Connect, and say where the dashboard is."""
    from specphoto import cluster as clusters

    logging.getLogger("specphoto").setLevel(logging.INFO if verbose else logging.WARNING)
    with clusters.open(kind, workers=workers, memory_limit=memory) as client:
        line(f"dashboard: {client.dashboard_link}")
        yield client


_REGISTER = {Register.no: False, Register.report: "report", Register.yes: True}


def _number(text: str | None) -> float | str | None:
    """Return a number, or a name."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _psf(text: str | None, *, table: bool = False) -> Any:
    """Return the PSF that a text names."""
    from specphoto.io.psf_file import parse_psf

    return None if text is None else parse_psf(text, table=table)


def _correlation(text: str | None) -> dict[str, Any] | None:
    """Return the correlation of a cube's noise as its attribute has it."""
    scale = _number(text)
    if isinstance(scale, str) and scale != "none":
        raise InputError(
            "--correlation", expected="a scale in spaxels, or 'none'", found=repr(text),
            remedy="give one of the two",
        )  # fmt: skip
    if scale is None:
        return None
    return {"model": "none"} if scale == "none" else {"model": "gaussian", "scale": scale}


def _formats(choice: Format) -> tuple[Any, ...]:
    return ("fits", "zarr") if choice is Format.both else (choice.value,)


def _image(path: Path) -> Any:
    """First image of a FITS file."""
    from specphoto.io.fitsfile import open_fits

    file = open_fits(path)
    name = next((hdu.name for hdu in file.hdus if hdu.shape), "PRIMARY")
    return file.values(name)


def _labels(path: Path) -> Any:
    """Return the whole numbers of a FITS image."""
    import numpy as np

    values = _image(path)
    whole = np.nan_to_num(values).astype(int)
    if (whole != values).any():
        raise InputError(
            str(path), expected="whole numbers, equal ones a bin", found="fractions, or NaN",
            remedy="write integers; 0 is no bin",
        )  # fmt: skip
    return whole


def _velocity(text: str | None) -> Any:
    """Return the map that a text names, or the word 'measured'."""
    return text if text in (None, "measured") else _image(Path(text))


def _report(made: Any) -> None:
    """Print what was made, and for people how well it closes."""
    from specphoto.closure import closure_verdict
    from specphoto.timings import write_timings

    write_timings(made)
    paths = [path for path in (made.fits, made.zarr) if path is not None]
    cube = specphoto.open_cube(paths[-1])
    if cube.attrs.get("corrected"):
        line(closure_verdict(cube))
    for path in paths:
        results.print(str(path), highlight=False, soft_wrap=True)


def _one_line(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        line(f"warning: {message}", style="yellow")


class _Lines(logging.Handler):
    """Log records as single lines."""

    def emit(self, record: logging.LogRecord) -> None:
        name = "warning" if record.levelno >= logging.WARNING else "note"
        line(f"{name}: {record.getMessage()}", style="yellow" if name == "warning" else None)


def main() -> None:
    """Run the command line; exit code 2 and one sentence for input that cannot be used."""
    warnings.showwarning = _one_line
    logger = logging.getLogger("specphoto")
    if not any(isinstance(handler, _Lines) for handler in logger.handlers):
        logger.addHandler(_Lines())
    logger.propagate = False
    logging.getLogger("distributed").setLevel(logging.ERROR)
    try:
        app(prog_name="specphoto")
    except InputError as error:
        line(f"error: {error}", style="red")
        sys.exit(2)
    except KeyboardInterrupt:
        line("stopped; nothing is left half-written", style="red")
        sys.exit(130)
