"""What a run took, in a small file beside its product.

Not in the product: of the same input it is the same, however long it took.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from specphoto.io.staging import staged

if TYPE_CHECKING:
    import os

    from specphoto.pipeline import Products

__all__ = ["changed", "read_timings", "write_timings"]


def write_timings(made: Products) -> None:
    """Write ``<product>.timings.json`` beside the products: seconds by step and by stage.

    Parameters
    ----------
    made
        What :func:`specphoto.pipeline.run` left.
    """
    paths = [path for path in (made.fits, made.zarr) if path is not None]
    stages = {f"{s.name}, {s.done} tasks, summed over workers": s.seconds for s in made.stages}
    seconds = {name: round(value, 3) for name, value in (made.seconds | stages).items()}
    with staged(_beside(paths[0]), overwrite=True) as aside:
        aside.write_text(json.dumps({"seconds": seconds}, indent=1) + "\n", encoding="utf-8")


def read_timings(product: str | os.PathLike[str]) -> dict[str, float]:
    """Seconds by step of the run that made a product; empty where they are not known.

    Parameters
    ----------
    product
        Zarr folder or FITS file. What was written before it is of another run.
    """
    file = _beside(Path(product))
    if not file.is_file() or file.stat().st_mtime < changed(Path(product)):
        return {}
    seconds = json.loads(file.read_text(encoding="utf-8"))["seconds"]
    return {str(name): float(value) for name, value in seconds.items()}


def changed(product: Path) -> float:
    """When a product was written, in seconds since the epoch."""
    return (product / "zarr.json" if product.is_dir() else product).stat().st_mtime


def _beside(product: Path) -> Path:
    return product.with_name(f"{product.stem}.timings.json")
