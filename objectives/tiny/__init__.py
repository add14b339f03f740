"""The embedded scorers: a small CLIP and a small reward for the images that ``tiny`` draws."""
