"""Images from the Hub, from local files or from the package, decoded once and read in an exact order."""

from lebm.data.images import ImageData, open_images, to_unit_range
from lebm.data.synthetic import PlaneData, plane_samples

__all__ = ["ImageData", "PlaneData", "open_images", "plane_samples", "to_unit_range"]
