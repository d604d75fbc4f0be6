"""Spatial match: PSF, pixel overlap, operator, covariance; `match` is the lazy face."""
