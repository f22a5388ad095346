"""One versioned Arrow schema per dataset, and the check that a table keeps it."""
