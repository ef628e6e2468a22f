"""Types that describe a model: its metadata, its chunk schedule, and its parts as networks."""
