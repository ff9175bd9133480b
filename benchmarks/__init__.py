"""How fast the ops, the models and the evaluation are, beside what else is installed: python -m benchmarks --help

An installation has this package under the name fastvision.benchmarks; ``fastvision bench`` runs it.
"""
