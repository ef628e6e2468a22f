"""Files on a disk: replaced whole, copied, locked, and told from one another."""
