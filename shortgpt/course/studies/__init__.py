"""Experiments of single lessons, each a table or a small object that a lesson asks."""
