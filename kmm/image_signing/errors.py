"""Why an image cannot be signed."""

from __future__ import annotations


class ImageError(ValueError):
    """An image that lacks what is to be signed, or cannot be read or signed. The text may hold any character."""


class NoModulesError(ImageError):
    """An image that has none of the files that are to be signed."""
