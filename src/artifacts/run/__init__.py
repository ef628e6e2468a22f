"""What is done with a plan."""
