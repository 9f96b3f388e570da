"""What trains and evaluates one base model."""
