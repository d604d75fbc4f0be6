"""Datasets as other packages want them."""
