"""Confine a process to the files that it needs, without a network: steps read files of strangers."""
