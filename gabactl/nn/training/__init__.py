"""Training on C-MAPSS: settings, networks, the loop, and what it found."""
