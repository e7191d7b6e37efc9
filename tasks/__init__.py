"""What is trained: tasks, their data, and the inner loop that trains them."""
