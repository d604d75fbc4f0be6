"""The commands to look at products: report and view."""

# no postponed annotations here: typer reads them when the commands are made
from pathlib import Path
from typing import Annotated

import typer

from specphoto.errors import InputError
from specphoto.terminal import line, results

__all__ = ["report", "view"]


def report(
    product: Annotated[
        Path, typer.Argument(help="Product of one galaxy, .zarr or .fits; or a folder of products.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o",
            help="HTML file of a galaxy (by default beside it), or folder of the pages of many "
            "(by default 'report' in it).",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", "-j", min=1, help="Processes that draw the pages of many.")
    ] = 1,
) -> None:  # fmt: skip
    """Write the QA page of a galaxy, or of every galaxy of a folder with an index of them all.

    The pages work without a network. Pages newer than their product are kept.

    Example: [bold]specphoto report results/corr_specphoto_fluxmap_7495-12704_manga.zarr[/bold]
    """
    from specphoto.io.zarr_store import is_zarr
    from specphoto.report import write_index, write_page

    if not product.exists():
        raise InputError(
            str(product), expected="a product, or a folder of products", found="nothing there",
            remedy="check the path",
        )  # fmt: skip
    if product.is_dir() and not is_zarr(product):
        made = write_index(product, output, workers=workers, progress=_said)
    else:
        made = output or product.with_suffix(".html")
        numbers = write_page(product, made)
        line(f"{numbers['verdict']}{''.join(f'; {r}' for r in numbers['reasons'])}")
    results.print(str(made), highlight=False, soft_wrap=True)


def _said(done: int, total: int) -> None:
    line(f"{done} of {total} pages")


def view(
    product: Annotated[Path, typer.Argument(help="Product of one galaxy, .zarr (quick) or .fits.")],
    port: Annotated[int, typer.Option("--port", min=0, help="0 takes any free one.")] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
) -> None:  # fmt: skip
    """Look at a galaxy in the browser: click a pixel or drag an aperture, switch maps.

    The page is served on this machine only, until Ctrl-C.

    Example: [bold]specphoto view results/corr_specphoto_fluxmap_7495-12704_manga.zarr[/bold]
    """
    import webbrowser

    from specphoto.viewer import serve

    server, at = serve(product, port=port)
    address = f"http://localhost:{at}/"
    results.print(address, highlight=False, soft_wrap=True)
    line("Ctrl-C ends it; from another machine: ssh -L PORT:localhost:PORT")
    if browser:
        server.io_loop.add_callback(webbrowser.open, address)
    try:
        server.io_loop.start()
    except KeyboardInterrupt:
        server.stop()
