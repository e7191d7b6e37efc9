"""Task pools: jobs done in threads, in processes of a Ray cluster, or simulated."""
