"""Survey files to datasets, datasets to FITS and Zarr."""
