"""Reports of runs and suites: reading them, merging seeds, tables, charts, and the files that show them."""
