"""Results: artifacts, records, digests, target links, the journal."""
