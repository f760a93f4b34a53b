"""The commands of this package: submit, jobs, cluster, serve."""
