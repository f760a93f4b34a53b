"""Rows and their numbers: statistics, tables in every format, figures."""
