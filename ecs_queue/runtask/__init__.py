"""From a request and its queue's profile to the arguments of RunTask: checked, merged, and frozen for one launch."""
