"""Confines a process to the files that it needs, with no network: for steps, which read what strangers made."""
