"""The index of a sample: every product of a folder in one table, with a page of each."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from specphoto.errors import InputError
from specphoto.io.staging import staged
from specphoto.io.zarr_store import is_zarr
from specphoto.report.page import page_row, render, write_page
from specphoto.report.run import run_columns, run_rows
from specphoto.timings import changed

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["find_products", "write_index", "write_table"]

# Names of columns, and what people read above them.
_COLUMNS = {
    "thumbnail": "image", "name": "galaxy", "verdict": "verdict", "reasons": "reasons",
    "survey": "survey", "redshift": "redshift", "n_pixel": "pixels", "coverage": "coverage",
    "masked": "masked", "factor_typical": "|factor − 1|", "chi2": "chi2",
    "closure_before": "closure before (mag)", "closure_after": "closure after (mag)",
    "shift": "shift (arcsec)",
}  # fmt: skip


def write_index(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a page of every product in a folder, and an index of them all.

    Pages newer than their product are kept, so that a second call goes on where the first ended.
    A product that cannot be read has a row that says why, and so has a galaxy that the run of
    the sample could not match.

    Parameters
    ----------
    folder
        Holds products, ``.zarr`` or ``.fits`` (one of the two is enough; Zarr is read), and the
        table of the run that made them, where there was one.
    output
        Folder for the pages; by default ``report`` in `folder`.
    workers
        Processes that draw pages.
    progress
        Called with the number of pages made, and of all.

    Returns
    -------
    pathlib.Path
        The index, ``index.html``.

    Raises
    ------
    InputError
        If the folder holds no products.
    """
    source = Path(folder)
    told = run_rows(source)
    products = find_products(source, told)
    if not products:
        raise InputError(
            str(source), expected="a folder with products, .zarr or .fits", found="none",
            remedy="give the folder that specphoto match wrote to",
        )  # fmt: skip
    pages = Path(output) if output is not None else source / "report"
    (pages / "thumbnails").mkdir(parents=True, exist_ok=True)
    rows = [row | run_columns(told.get(stem, {})) for stem, row in
            _rows(products, pages, told, workers, progress)]  # fmt: skip
    rows += [_unmade(stem, told[stem]) for stem in sorted(set(told) - set(products))]
    index = pages / "index.html"
    write_table(rows, index, title=source.resolve().name)
    return index


def find_products(folder: Path, told: Iterable[str] = ()) -> dict[str, Path]:
    """Products of a folder by stem, in the order of their names; of two formats the Zarr.

    Parameters
    ----------
    folder
        Other files may be there too.
    told
        Stems of FITS products besides those that piXedfit's names tell (``*specphoto_*``).
    """
    names = set(told)
    files = {path.stem: path for path in folder.glob("*.fits")
             if "specphoto_" in path.name or path.stem in names}  # fmt: skip
    folders = {path.stem: path for path in folder.glob("*.zarr") if is_zarr(path)}
    found = files | folders
    return dict(sorted(found.items()))


def write_table(
    rows: list[dict[str, Any]], index: Path, *, title: str
) -> None:  # fmt: skip
    """Write the index of rows that are there already; it stays quick for many thousands.

    Parameters
    ----------
    rows
        With ``name``, ``verdict`` and any of the numbers; ``page`` and ``thumbnail`` are
        addresses relative to the index.
    index
        HTML file; one already there is replaced.
    title
        Of the page.
    """
    known = {key for row in rows for key, value in row.items() if value is not None}
    others = sorted(known - set(_COLUMNS) - {"page", "corrected", "quality_flag", "ra", "dec",
                                             "with_factor", "factor_min", "edge_bias",
                                             "closure_worst"})  # fmt: skip
    columns = [{"key": k, "label": v} for k, v in _COLUMNS.items() if k in known]
    columns += [{"key": key, "label": key.removeprefix("run_")} for key in others]
    text = render("sample.html", title=title, rows=rows, columns=columns)
    with staged(index, overwrite=True) as aside:
        aside.write_text(text, encoding="utf-8")


def _rows(
    products: Mapping[str, Path], pages: Path, told: Mapping[str, Mapping[str, Any]],
    workers: int, progress: Callable[[int, int], None] | None,
) -> list[tuple[str, dict[str, Any]]]:  # fmt: skip
    rows = {stem: _kept(path, pages / f"{stem}.html") for stem, path in products.items()}
    missing = [stem for stem, row in rows.items() if row is None]
    done = len(products) - len(missing)
    for stem, row in _made([(s, products[s], pages, told.get(s, {})) for s in missing], workers):
        rows[stem] = row
        done += 1
        if progress is not None:
            progress(done, len(products))
    return [(stem, _linked(stem, row or {}, pages)) for stem, row in rows.items()]


def _made(
    jobs: list[tuple[str, Path, Path, Mapping[str, Any]]], workers: int
) -> Iterable[tuple[str, dict[str, Any]]]:
    """Make pages, here or in processes of their own."""
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            yield job[0], _page(*job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
        futures = {pool.submit(_page, *job): job[0] for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _page(stem: str, product: Path, pages: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return write_page(
            product, pages / f"{stem}.html", run=run,
            thumbnail=pages / "thumbnails" / f"{stem}.png",
        )  # fmt: skip
    except InputError as error:
        # where the folder lies says nothing in a table of it
        why = str(error).replace(str(product), product.name)
        return {"name": stem, "verdict": "fail", "reasons": [why]}


def _kept(product: Path, page: Path) -> dict[str, Any] | None:
    """Row of a page that is newer than its product, or None."""
    if page.is_file() and page.stat().st_mtime >= changed(product):
        return page_row(page)
    return None


def _unmade(stem: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """Row of a galaxy without product."""
    why = f"no product: {told.get('reason') or told.get('state') or 'the run does not say why'}"
    return {"name": stem, "verdict": "fail", "reasons": [why]} | run_columns(told)


def _linked(stem: str, row: dict[str, Any], pages: Path) -> dict[str, Any]:
    """Row with the addresses of its page and its thumbnail, where there are any."""
    page, thumbnail = f"{stem}.html", f"thumbnails/{stem}.png"
    return row | {
        "name": row.get("name") or stem,
        "page": quote(page) if (pages / page).is_file() else None,
        "thumbnail": quote(thumbnail) if (pages / thumbnail).is_file() else None,
    }
