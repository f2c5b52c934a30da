"""Scores and predictions of a trained prompt."""
