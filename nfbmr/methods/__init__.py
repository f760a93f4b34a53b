"""The methods, and the one table of them."""
