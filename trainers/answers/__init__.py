"""Names in, answers out: questions to a trained run."""
