"""What every room uses and nothing of balancing: errors, results, files, locks, interrupts, plots."""
