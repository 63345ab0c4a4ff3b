"""A deterministic simulation: the real launcher, poller, sweeper and client over models of the servers."""
