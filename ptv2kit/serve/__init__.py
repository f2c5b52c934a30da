"""Trained prompts over HTTP: what is asked, what is refused, which rows share a forward pass."""
