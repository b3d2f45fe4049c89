"""Models in and out: names, folders, files (lessons 00 and 03)."""
