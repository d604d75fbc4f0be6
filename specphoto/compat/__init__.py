"""``compat="pixedfit"``: the recipe of piXedfit v1.0 on datasets, lazily.

What :func:`specphoto.match_spatial` and :func:`specphoto.match_spectral` do when asked for it.
The arithmetic is in :mod:`specphoto.spatial.compat` and :mod:`specphoto.spectral.compat`; here
the input is validated, the kernels are mapped over chunks and the result is annotated.

Datasets keep our conventions: unknown is NaN, wavelengths are in vacuum (v1.0 takes CALIFA's air
wavelengths for vacuum), and cubes are float32.
"""

from __future__ import annotations

from specphoto.compat.spatial import match_spatial_pixedfit
from specphoto.compat.spectral import match_spectral_pixedfit

__all__ = ["match_spatial_pixedfit", "match_spectral_pixedfit"]
