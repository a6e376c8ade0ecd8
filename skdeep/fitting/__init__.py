"""What happens in a fit: decided once in a `Recipe`, done to a list of `Member`."""
