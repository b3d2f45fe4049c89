"""A plan, and models without layers, sublayers, heads or channels (lessons 03 and 07)."""
