"""What has to be, and why."""
