"""Block Influence, and how far it can be trusted (lesson 02)."""
