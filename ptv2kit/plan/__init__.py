"""What a run will need before it is started: parameters, memory, steps, time. Nothing is downloaded or computed."""
