"""Selection kernels."""
