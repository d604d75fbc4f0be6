"""The viewer as a page on the loopback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.util import bind_sockets, create_hosts_allowlist
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop

from specphoto.errors import InputError
from specphoto.io import open_cube
from specphoto.viewer.blocks import BLOCK, Blocks
from specphoto.viewer.looks import TEMPLATE
from specphoto.viewer.viewer import Viewer

if TYPE_CHECKING:
    import os

    from bokeh.document import Document
    from bokeh.resources import Resources
    from tornado.websocket import WebSocketHandler

__all__ = ["serve"]


def serve(product: str | os.PathLike[str], *, port: int = 0) -> tuple[BaseServer, int]:
    """Start to serve a product's page to this machine; ``server.io_loop.start()`` goes on.

    The page listens on the loopback only and answers pages of its own address only.

    Parameters
    ----------
    product
        Zarr folder or FITS file of a matched galaxy; a gzipped one is slow.
    port
        0 takes any free one.

    Returns
    -------
    tuple
        The server, and the port that it listens on.

    Raises
    ------
    InputError
        If the product cannot be read, or the port is taken.
    """
    ds = open_cube(product)
    # Zarr is read where it is cut; FITS by its chunks, of which planes are good for maps only
    cut = ds if Path(product).is_dir() else open_cube(product, chunks={"y": BLOCK, "x": BLOCK})
    blocks = Blocks(cut)
    # what is wrong with a product is said here, not in the browser
    ready = [Viewer(ds, blocks)]
    title = str(ds.attrs.get("name") or Path(product).name)

    def fill(doc: Document) -> None:
        doc.title = f"{title} · specphoto"
        doc.template = TEMPLATE
        viewer = ready.pop() if ready else Viewer(ds, blocks)
        doc.add_root(viewer.layout)

    return _served(Application(FunctionHandler(fill)), port)


class _Site(BokehTornado):  # type: ignore[misc]  # Bokeh's types are not used
    """Bokeh's pages, made quick for one viewer on the same machine."""

    def resources(self, absolute_url: str | bool | None = None) -> Resources:
        """Where a page finds its scripts: those it needs, which are two fifths of all."""
        every = super().resources(absolute_url)
        return every.clone(components=["bokeh", "bokeh-widgets"])

    def new_connection(self, protocol: Any, socket: WebSocketHandler, *about: Any) -> Any:
        """Open a connection whose messages leave at once.

        An answer is many small ones; by default some wait 40 ms for the receipt of those before.
        """
        socket.set_nodelay(True)
        return super().new_connection(protocol, socket, *about)


def _served(application: Application, port: int) -> tuple[BaseServer, int]:
    try:
        sockets, port = bind_sockets("127.0.0.1", port)
    except OSError as error:
        raise InputError(
            f"port {port}", expected="a free one", found=error.strerror or str(error),
            remedy="give another (--port), or 0 for any",
        ) from error  # fmt: skip
    site = _Site({"/": application}, extra_websocket_origins=create_hosts_allowlist(None, port))
    http = HTTPServer(site)
    http.add_sockets(sockets)
    server = BaseServer(IOLoop.current(), site, http)
    server.start()
    return server, port
