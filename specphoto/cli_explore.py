"""The command that makes a store of many galaxies: ingest."""

# no postponed annotations here: typer reads them when the commands are made
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from specphoto.terminal import line, results

__all__ = ["ingest"]


def ingest(
    files: Annotated[
        list[str], typer.Argument(help="Survey files (.fits, .fits.gz), folders or patterns.")
    ],
    store: Annotated[
        str,
        typer.Option("--output", "-o", help="Store: a folder such as sky.zarr, or s3://..."),
    ],
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="'local', 'slurm' or an address.")
    ] = None,
    site: Annotated[
        Path | None, typer.Option("--site", help="Site file (see deploy/slurm).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "-j", min=1, help="Worker processes, or jobs.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace galaxies that came from other files.")
    ] = False,
) -> None:
    """Copy survey files into a store that is quick to read: a pixel, a plane, a whole cube.

    All headers and all bits are kept, and every command and function opens STORE/NAME as it
    opens the file. Started again, it copies only what is not whole. Ends with exit code 0 when
    all files are in the store, and 1 when some could not be used.

    Example: [bold]specphoto ingest sky/*.fits.gz -o sky.zarr -j 4[/bold]
    """
    from specphoto.cluster import open as open_cluster
    from specphoto.explore import ingest as copy
    from specphoto.explore.sources import find_files

    with ExitStack() as stack:
        client = None
        if cluster is not None or site is not None or workers is not None:
            client = stack.enter_context(open_cluster(cluster, site=site, workers=workers))
        table = copy(files, store, client=client, overwrite=overwrite).table
    # the store may have rows of other runs
    given = {path.name for one in files for path in find_files(one)}
    errors = table.loc[table["file"].isin(given), "error"].dropna()
    for name, reason in errors.items():
        line(f"failed: {name}: {reason}", style="red")
    results.print(store, highlight=False, soft_wrap=True)
    if len(errors):
        raise typer.Exit(1)
