"""Model photometry kept on disk by library, redshift and filters.

An entry is a file in the folder of :mod:`specphoto.io.cache`, under the digest of everything that
the numbers depend on, the code that makes them included. It is written aside and renamed, so
that any number of workers may look for the same one at once; each that finds none computes its own,
and all are the same. What cannot be read, or fails the checksum in its file, is computed again.
Entries count in the limit of that folder (``SPECPHOTO_CACHE_GB``), least recently used ones go
first. ``SPECPHOTO_MODEL_CACHE=0`` turns this off.
"""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from specphoto.errors import InputError
from specphoto.io.cache import cache_folder, evict
from specphoto.spectral.fingerprint import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from specphoto.photometry.filters import Filter
    from specphoto.spectral.library import Library, ObservedModels

__all__ = ["CachedLibrary"]

logger = logging.getLogger(__name__)

_SWITCH = "SPECPHOTO_MODEL_CACHE"


class CachedLibrary:
    """A library whose photometry is looked up on disk before it is computed.

    Parameters
    ----------
    library
        Any library. One without a ``fingerprint``, which tells it from all others, is not cached.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self.identity = library.identity

    @property
    def n_model(self) -> int:
        """Number of models."""
        return self._library.n_model

    @property
    def wave_range(self) -> tuple[float, float]:
        """First and last rest-frame wavelength, vacuum Angstrom."""
        return self._library.wave_range

    def observed(
        self, redshift: float, wave: NDArray[np.float64], lsf: NDArray[np.float64] | None
    ) -> ObservedModels:
        """Prepare the spectra of all models for one wavelength grid."""
        return self._library.observed(redshift, wave, lsf)

    def photometry(self, redshift: float, filters: Sequence[Filter]) -> NDArray[np.float64]:
        """Photon-weighted mean F_lambda of all models, as the library itself gives it.

        Parameters
        ----------
        redshift, filters
            As for the library.

        Returns
        -------
        array of shape ``(n_model, n_band)``
            The same bits whether read or computed.
        """
        entry = self._entry(redshift, filters)
        if entry is None:
            return self._library.photometry(redshift, filters)
        found = _read(entry, (self.n_model, len(filters)))
        if found is None:
            found = self._library.photometry(redshift, filters)
            _write(entry, found)
        return found

    def _entry(self, redshift: float, filters: Sequence[Filter]) -> Path | None:
        """File of these numbers, or None where there is no cache."""
        own = getattr(self._library, "fingerprint", None)
        if own is None or os.environ.get(_SWITCH) == "0":
            return None
        curves = [array for f in filters for array in (f.wave, f.response)]
        key = digest(_code(), own, float(redshift), *curves)
        try:
            return cache_folder() / f"models-{key}.npz"
        except InputError as error:
            logger.debug("model photometry is not cached: %s", error)
            return None


@lru_cache(maxsize=1)
def _code() -> str:
    """Digest of the modules that model photometry comes from: no entry outlives a change."""
    folders = (files("specphoto") / name for name in ("spectral", "photometry"))
    modules = (m for folder in folders for m in folder.iterdir() if m.name.endswith(".py"))
    return digest(*(m.read_bytes() for m in sorted(modules, key=str)))


def _read(entry: Path, shape: tuple[int, int]) -> NDArray[np.float64] | None:
    try:
        with entry.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            found: NDArray[np.float64] = file["photometry"]
        os.utime(entry)  # the mark of use that the eviction goes by
    except FileNotFoundError:
        return None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        logger.debug("%s is computed again: %s", entry, error)
        return None
    return found if found.shape == shape and found.dtype == np.float64 else None


def _write(entry: Path, photometry: NDArray[np.float64]) -> None:
    """Write aside and rename; a disk that is full or read-only stops nothing."""
    try:
        handle, name = tempfile.mkstemp(dir=entry.parent, suffix=".part")
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                np.savez(stream, photometry=photometry)
            partial.replace(entry)
        finally:
            partial.unlink(missing_ok=True)
        evict(entry)
    except OSError as error:
        logger.debug("model photometry is not cached: %s", error)
