"""The one evaluator, and what is made of its ranks."""
