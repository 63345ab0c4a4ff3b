"""The doctor: checks everything that a launch needs, and says how to correct what is wrong. It changes nothing."""
