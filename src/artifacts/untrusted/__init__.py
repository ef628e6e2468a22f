"""Reading files from outside: within bounds, and without running any of their code."""
