"""The official metrics of the tasks, as functions of predictions and references; all on a scale of 0 to 100."""
