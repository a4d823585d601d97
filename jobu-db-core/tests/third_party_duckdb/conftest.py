"""DuckDB is not installed here: test_wheels.py runs these tests in an environment of their own."""

collect_ignore = ["tests"]
