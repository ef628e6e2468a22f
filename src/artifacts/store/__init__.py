"""Results that are kept: artifacts, records, digests, target links, the journal."""
