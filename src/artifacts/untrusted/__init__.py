"""Reading what strangers made: within bounds, and without running any of it."""
