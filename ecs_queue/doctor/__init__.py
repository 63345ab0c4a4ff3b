"""The doctor: looks at everything a launch needs, says what it found and what to do. It changes nothing."""
