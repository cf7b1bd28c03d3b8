"""What the process says over HTTP: health, metrics, status. Reads only, on loopback unless told otherwise."""
