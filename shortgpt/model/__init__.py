"""What a decoder stack is, in any model: its layers, its hidden states, its tokens (lesson 01)."""
