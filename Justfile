# Everyday commands. `just` itself comes with the extra `dev` (PyPI package rust-just); activate the environment first.

# List the commands
default:
    @just --list

# Install for development, with the tested versions
install:
    pip install -c constraints.txt -e '.[dev]'

# Train the quickstart recipe
quickstart:
    ptv2kit run recipes/quickstart.yaml

# Quick tests
test *arguments:
    pytest {{ arguments }}

# Tests that take longer
test-slow:
    pytest -m slow

# Style and formatting
lint:
    ruff check .
    ruff format --check .

# Strict types
types:
    pyright --pythonpath "$(command -v python)"

# All that CI checks
check: lint types test test-slow

# Write the key reference and the JSON Schemas again; both are committed
reference:
    mkdir -p docs/reference docs/schema
    for kind in task recipe suite; do ptv2kit schema $kind --markdown > docs/reference/$kind.md; ptv2kit schema $kind > docs/schema/$kind.json; done

# Write the quickstart data again; the result is committed
quickstart-data:
    python tasks/quickstart/generate.py

# Write the page of supported backbones again; it is committed
backbones:
    pytest -n 0 tests/models/test_compatibility.py -m "slow or not slow" --deselect tests/models/test_compatibility.py::test_the_page_is_of_these_families --backbones-page docs/backbones.md
