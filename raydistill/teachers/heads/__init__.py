"""What turns a model's output into a teacher's number: class gains, pooling."""
