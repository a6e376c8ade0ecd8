"""What is private to other libraries, in one file for each: why, and a check that it is there."""
