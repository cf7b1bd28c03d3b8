"""The light audit."""
