"""The paper's sentences about MNIST as claims to check, and its own figures."""
