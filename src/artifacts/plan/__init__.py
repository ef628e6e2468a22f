"""Plan of a build, and the reasons for each rebuild."""
