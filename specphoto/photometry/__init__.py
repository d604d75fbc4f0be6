"""Filters, synthetic photometry and Galactic extinction."""
