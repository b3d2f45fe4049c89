"""What closes part of the gap that a removed layer leaves (lesson 06)."""
