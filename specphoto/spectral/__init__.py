"""Spectral match: library, SED fit, Legendre factor, LSF; `match` is the lazy face."""
