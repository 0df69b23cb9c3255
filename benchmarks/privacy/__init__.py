"""What attacks find out about training items, with and without differential privacy."""
