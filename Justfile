# Everyday commands. `just` itself comes with the extra `dev` (PyPI package rust-just); activate the environment first.

# List the commands
default:
    @just --list

# Install for development, with the tested versions
install:
    pip install -c constraints.txt -e '.[dev]'

# Train the quickstart recipe
quickstart:
    ptv2kit run quickstart

# Quick tests
test *arguments:
    pytest {{ arguments }}

# Tests that take longer, which CI runs too
test-slow:
    pytest -m "slow and not night"

# All families, killed processes and disks of every kind, thousands of damaged files (PTV2KIT_FUZZ=1500): half an hour
test-night:
    pytest -m night

# Quick tests with the oldest versions that pyproject.toml allows; old versions warn of what newer Pythons will not have
test-lowest:
    python3 -m venv .venv-lowest && .venv-lowest/bin/pip install -q uv
    .venv-lowest/bin/uv pip install --python .venv-lowest/bin/python --resolution lowest-direct -e '.[dev]'
    .venv-lowest/bin/pytest -o filterwarnings=default

# Style and formatting
lint:
    ruff check .
    ruff format --check .

# Strict types; for Windows too, so that nothing is called that it lacks
types:
    pyright --pythonpath "$(command -v python)"
    pyright --pythonpath "$(command -v python)" --pythonplatform Windows

# The documentation site, into site/; broken links and anchors are errors
docs:
    NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

# The documentation site as you write it, on this machine
docs-serve:
    NO_MKDOCS_2_WARNING=1 mkdocs serve

# All that CI checks
check: lint types docs test test-slow

# Speed and memory beside PEFT, LoRA and fine-tuning; `just bench --help` lists the arguments
bench *arguments:
    OMP_NUM_THREADS=1 python benchmarks/speed.py {{ arguments }}

# Write the key reference and the JSON Schemas again; both are committed
reference:
    mkdir -p docs/reference docs/schema
    for kind in task recipe suite; do ptv2kit schema $kind --markdown > docs/reference/$kind.md; ptv2kit schema $kind > docs/schema/$kind.json; done

# Write the quickstart data again; the result is committed
quickstart-data:
    python tasks/quickstart/generate.py

# Write the page of supported backbones again; it is committed
backbones:
    pytest -n 0 tests/models/test_compatibility.py -m "slow or not slow or night" --deselect tests/models/test_compatibility.py::test_the_page_is_of_these_families --backbones-page docs/backbones.md

# A table or figure of the paper: table=2, 3, 4 or figure=1, 3, 4; scale=mini: in small, scale=study: with all seeds
[positional-arguments]
reproduce *arguments:
    #!/usr/bin/env bash
    set -uo pipefail
    folder='' name='' chosen='' rest=() only=()
    for argument in "$@"; do
        case "$argument" in
            table=[234] | figure=[134]) name=${argument/=/} ;;
            scale=mini) folder=mini/ only=(--only '*seed=31*') ;;
            scale=study) folder=mini/ only=() ;;
            scale=full) folder='' only=() ;;
            --only | --only=*) chosen=yes; rest+=("$argument") ;;
            table=* | figure=* | scale=*) echo "error: $argument: there are table=2|3|4, figure=1|3|4 and scale=full|mini|study" >&2; exit 2 ;;
            *) rest+=("$argument") ;;
        esac
    done
    if [ -z "$name" ]; then
        echo "error: say which: just reproduce table=3, just reproduce figure=4" >&2
        exit 2
    fi
    echo "== $folder$name" >&2
    [ -z "$chosen" ] || only=()
    exec ptv2kit run "$folder$name" ${only[@]+"${only[@]}"} ${rest[@]+"${rest[@]}"}

# Every table and figure of the paper; one that fails does not stop the others. scale=mini: in small, an evening
[positional-arguments]
reproduce-all *arguments:
    #!/usr/bin/env bash
    set -uo pipefail
    code=0 failed=()
    for part in table=2 table=3 table=4 figure=1 figure=3 figure=4; do
        {{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} reproduce "$part" "$@"
        ended=$?
        case $ended in
            0) ;;
            130 | 143) exit $ended ;;
            *) code=$ended; failed+=("$part (exit code $ended)") ;;
        esac
    done
    if [ $code -ne 0 ]; then
        echo "error: not as they should be: ${failed[*]}" >&2
    fi
    exit $code
