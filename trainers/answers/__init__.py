"""Names in, answers out: questions to a trained run, and the missing facts it holds for most probable."""
