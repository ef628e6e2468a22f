"""What is kept: artifacts, digests, target links, the journal."""
