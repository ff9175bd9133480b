"""A module per op; its WORKLOADS say what is measured."""
