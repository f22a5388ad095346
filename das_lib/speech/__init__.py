"""From texts to checked 16 kHz recordings."""
