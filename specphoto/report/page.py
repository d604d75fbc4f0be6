"""The QA page of one galaxy: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import matplotlib as mpl
from dask.base import compute
from matplotlib.figure import Figure

import specphoto
from specphoto import plot
from specphoto.describe import describe
from specphoto.errors import InputError
from specphoto.io import open_cube
from specphoto.io.staging import staged
from specphoto.report.figures import page_figures
from specphoto.report.numbers import checks, quality_numbers, reasons, worst
from specphoto.timings import read_timings

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import xarray as xr

    from specphoto.report.figures import Drawn

__all__ = ["draw_thumbnail", "page_row", "render", "write_page"]

_DPI = 80
_ROW = '<script type="application/json" id="row">'


def write_page(
    product: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    thumbnail: str | os.PathLike[str] | None = None,
    run: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the QA page of a product, whole or not at all.

    Parameters
    ----------
    product
        Zarr folder or FITS file of a matched galaxy, corrected or not.
    output
        HTML file; one already there is replaced.
    thumbnail
        PNG to write beside it; None leaves it out.
    run
        What the run of a sample says of the product, shown as it is, after the seconds that
        :func:`specphoto.timings.read_timings` finds.

    Returns
    -------
    dict
        The numbers and the verdict.

    Raises
    ------
    InputError
        If the product cannot be read, or the page not be written.
    """
    ds = _in_memory(open_cube(product))
    if "spec_region" not in ds:
        raise InputError(
            str(product), expected="a matched galaxy, with spec_region", found="none",
            remedy="match it first: specphoto match",
        )  # fmt: skip
    numbers = quality_numbers(ds)
    found = checks(numbers)
    numbers["verdict"] = worst(found)
    numbers["reasons"] = reasons(found)
    text = render(
        "galaxy.html", title=numbers["name"] or Path(product).name, product=Path(product).name,
        numbers=numbers, checks=found, facts=describe(ds), run=_told(product, run),
        figures=[_embedded(drawn) for drawn in page_figures(ds)],
        provenance=json.dumps(ds.attrs.get("provenance", []), indent=1), row=numbers,
    )  # fmt: skip
    with staged(output, overwrite=True) as aside:
        aside.write_text(text, encoding="utf-8")
    if thumbnail is not None:
        draw_thumbnail(ds, Path(thumbnail))
    return numbers


def _told(product: str | os.PathLike[str], run: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is known of the run: seconds by step, and the row of a sample's table."""
    return {f"{k} (s)": v for k, v in read_timings(product).items()} | dict(run or {})


def page_row(page: Path) -> dict[str, Any]:
    """Numbers and verdict of a page that is there already."""
    text = page.read_text(encoding="utf-8")
    start = text.index(_ROW) + len(_ROW)
    row: dict[str, Any] = json.loads(text[start : text.index("</script>", start)])
    return row


def draw_thumbnail(ds: xr.Dataset, path: Path) -> None:
    """Write a small image of a galaxy without axes."""
    figure = Figure(figsize=(0.8, 0.8))
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    if "photo_flux" in ds:
        plot.rgb_image(ds, ax)
    ax.set_axis_off()
    for text in list(ax.texts):
        text.remove()
    figure.savefig(path, dpi=80)


def _in_memory(ds: xr.Dataset) -> xr.Dataset:
    """Load all but the cubes, in one go."""
    small = [name for name in ds.data_vars if "wave" not in ds[name].dims or ds[name].ndim < 3]
    (loaded,) = compute(ds[small])
    return ds.assign(loaded.data_vars)


def _embedded(drawn: Drawn) -> dict[str, Any]:
    out: dict[str, Any] = drawn._asdict()
    if drawn.figure is not None:
        buffer = BytesIO()
        with mpl.rc_context(plot.STYLE):
            drawn.figure.savefig(buffer, dpi=_DPI, format="png")
        out["png"] = base64.b64encode(buffer.getvalue()).decode()
    return out


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("specphoto.report"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip


def render(template: str, **values: Any) -> str:
    """Fill a template of ours; texts are escaped."""
    made = f"specphoto {specphoto.__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return _templates().get_template(template).render(made=made, **values)
