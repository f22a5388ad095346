"""Word error rates and the report."""
