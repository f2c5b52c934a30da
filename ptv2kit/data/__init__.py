"""From files to batches: sources, templates, label schemes, encoding, batching."""
