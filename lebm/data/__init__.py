"""Images from the Hub, from local files or from the package, decoded once and read in an exact order."""
