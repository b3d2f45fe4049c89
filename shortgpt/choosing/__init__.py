"""Which layers to remove: by score, by other criteria, by trying (lessons 03 and 06)."""
