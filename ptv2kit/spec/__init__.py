"""The spec layer: YAML files in, validated tasks and recipes out. Imports no torch."""
