"""Images from the Hub, from local files or from the package, decoded once and read in an exact order."""

from lebm.data.images import ImageData, open_images, to_unit_range

__all__ = ["ImageData", "open_images", "to_unit_range"]
