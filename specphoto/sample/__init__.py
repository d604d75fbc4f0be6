"""Many galaxies: plan, run, resume, look, summarise.

A sample is a table of targets, the options of the match, an output folder and a cluster. One
galaxy is one Dask task: it opens its files on the worker, computes there, and writes its product
aside and renames it. So a galaxy is whole or not there, nothing of it travels between workers,
and ten thousand galaxies are ten thousand small messages.
"""

from __future__ import annotations

from specphoto.sample.engine import Outcome, run_sample
from specphoto.sample.journal import Status, read_status
from specphoto.sample.plan import Sample, Target
from specphoto.sample.summary import write_summary

__all__ = [
    "Outcome",
    "Sample",
    "Status",
    "Target",
    "read_status",
    "run_sample",
    "write_summary",
]
