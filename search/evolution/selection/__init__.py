"""Who lives, who is a parent, who is dropped: the population, the samples and the race."""
