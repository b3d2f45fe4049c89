"""Is it still any good, and what does it cost (lesson 05)?"""
