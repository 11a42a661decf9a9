"""Tables and graphs from data."""
