"""A deterministic simulation: the real launcher, tracker, sweeper and client over a model of everything around them."""
