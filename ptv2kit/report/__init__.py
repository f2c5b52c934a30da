"""Reports of suites and runs, from what their folders hold: scores over seeds, tables, figures, and two pages."""
