"""The page of figures, ``benchmarks/README.md``: each benchmark has a section of it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["put"]

_README = Path(__file__).with_name("README.md")


def put(section: str, text: str, page: Path = _README) -> None:
    """Put a text between the marks of a section, in the place of what was there.

    Parameters
    ----------
    section
        The marks are ``<!-- section -->`` and ``<!-- end of section -->``.
    text
        Markdown.
    page
        The page.

    Raises
    ------
    ValueError
        If the page has no such section.
    """
    mark, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    before, found, after = page.read_text(encoding="utf-8").partition(mark)
    _, closed, rest = after.partition(end)
    if not (found and closed):
        raise ValueError(f"{page}: expected the marks {mark} and {end}, found not both")
    page.write_text(f"{before}{mark}\n\n{text}\n\n{end}{rest}", encoding="utf-8")
