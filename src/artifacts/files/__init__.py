"""Files on a disk: written atomically, copied, locked, checksummed, and compared by their stamps."""
