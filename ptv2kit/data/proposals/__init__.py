"""A first task for data that is not described yet: its format, its label scheme, its input."""
