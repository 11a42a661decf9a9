"""Networks as text: one file a format, each read into `Tables`."""
