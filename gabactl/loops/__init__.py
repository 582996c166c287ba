"""Closed loops simulated: profiles, scenarios, one loop, several balancers, batches, sweeps."""
