"""What has to be built, and why."""
