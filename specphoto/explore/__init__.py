"""Look at many galaxies: a table of them all, each opened lazily when it is asked for.

>>> import specphoto
>>> sample = specphoto.open_sample("sky/manga-*-LOGCUBE.fits.gz")  # doctest: +SKIP
>>> nearby = sample.select("z < 0.03 and not critical")  # doctest: +SKIP
>>> nearby["8485-1901"].spec_flux.isel(x=16, y=16).plot()  # doctest: +SKIP
>>> nearby.map(lambda ds: float(ds.spec_flux.median()))  # doctest: +SKIP
"""

from __future__ import annotations

from specphoto.explore.ingesting import ingest
from specphoto.explore.sample import GalaxySample
from specphoto.explore.sources import open_sample

__all__ = ["GalaxySample", "ingest", "open_sample"]
