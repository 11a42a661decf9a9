"""`draw`: what to show, the artists, the placement, the geometry."""
