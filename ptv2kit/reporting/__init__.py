"""What a run leaves behind and what is shown of it."""
