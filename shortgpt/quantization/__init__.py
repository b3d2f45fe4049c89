"""Fewer bits for the weights that stay (lesson 04)."""
