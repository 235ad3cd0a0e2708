"""Images, sentences and arrays from the Hub, from local files or from the package, read in an exact order."""

from lebm.data.arrays import ArrayData, PlaneData, plane_samples
from lebm.data.images import ImageData, open_images, to_unit_range
from lebm.data.module import SplitData
from lebm.data.text import TextData, open_text

__all__ = [
    "ArrayData",
    "ImageData",
    "PlaneData",
    "SplitData",
    "TextData",
    "open_images",
    "open_text",
    "plane_samples",
    "to_unit_range",
]
