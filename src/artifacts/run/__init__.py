"""Work on a plan: lookup, dry run, build, steps, maintenance."""
