"""The cells of a suite: workers that train them, searches that choose them, and the folder that they share."""
