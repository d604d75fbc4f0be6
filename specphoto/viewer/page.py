"""The viewer as a page on the loopback."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.server.server import Server

from specphoto.errors import InputError
from specphoto.io import open_cube
from specphoto.viewer.looks import TEMPLATE
from specphoto.viewer.viewer import Viewer

if TYPE_CHECKING:
    import os

    import xarray as xr
    from bokeh.document import Document

    from specphoto.viewer.blocks import Blocks

__all__ = ["serve"]

# What is stored together is read together.
_CHUNKS = {"wave": 1024, "y": 32, "x": 32}


def serve(product: str | os.PathLike[str], *, port: int = 0) -> Server:
    """Start to serve a product's page to this machine; ``server.io_loop.start()`` goes on.

    The page listens on the loopback only and answers pages of its own address only.

    Parameters
    ----------
    product
        Zarr folder (quick) or FITS file of a matched galaxy.
    port
        0 takes any free one.

    Raises
    ------
    InputError
        If the product cannot be read, or the port is taken.
    """
    is_folder = Path(product).is_dir()
    ds = open_cube(product, chunks=_CHUNKS if is_folder else "auto")
    # what is wrong with a product is said here, not in the browser
    blocks = Viewer(ds).blocks
    title = str(ds.attrs.get("name") or Path(product).name)
    application = Application(FunctionHandler(partial(_fill, ds=ds, blocks=blocks, title=title)))
    try:
        server = Server({"/": application}, port=port, address="127.0.0.1")
    except OSError as error:
        raise InputError(
            f"port {port}", expected="a free one", found=error.strerror or str(error),
            remedy="give another (--port), or 0 for any",
        ) from error  # fmt: skip
    server.start()
    return server


def _fill(doc: Document, *, ds: xr.Dataset, blocks: Blocks, title: str) -> Any:
    doc.title = f"{title} · specphoto"
    doc.template = TEMPLATE
    doc.add_root(Viewer(ds, blocks).layout)
