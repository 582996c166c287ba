"""Linear and nonlinear analysis of a loop: margins, responses, noise, rest points, certificates."""
