"""A self-contained HTML page that compares runs."""
