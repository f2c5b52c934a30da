"""Prompts of others: PEFT adapters, checkpoints of the official code, runs on the Hugging Face hub."""
