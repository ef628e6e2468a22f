"""Commands, tasks and tables of doit."""
